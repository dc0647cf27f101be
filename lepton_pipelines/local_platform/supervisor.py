"""Watches a platform's processes: starts them in order, asks after their health, starts again what died, stops all.

Every process leads a session of its own, so that Ctrl-C is for the supervisor alone, and carries two marks in its
environment, by which all that came of it is found again, also what has left its process group.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lepton_pipelines.local_platform.home import HOME_MARK, PROCESS_MARK, PlatformHome, ProcessStatus
from lepton_pipelines.local_platform.services import Service

LOOK_SECONDS = 0.5
HEALTH_SECONDS = 2.0
START_SECONDS = 240.0  # a first start migrates databases, on a machine that may be busy
UNWELL_SECONDS = 60.0  # how long a process that ran well may go without a healthy answer
STEADY_SECONDS = 60.0  # who was well so long starts anew at the shortest pause
LONGEST_PAUSE = 60.0
STOP_SECONDS = 15.0

Tell = Callable[[str, str], None]


@dataclass(frozen=True)
class Clock:
    """How long things may take, in seconds; tests shorten it."""

    start: float = START_SECONDS
    unwell: float = UNWELL_SECONDS
    steady: float = STEADY_SECONDS
    longest_pause: float = LONGEST_PAUSE


class Watched:
    """One service under watch, by a thread of its own."""

    def __init__(self, service: Service, home: PlatformHome, ready: Callable[[str], bool], tell: Tell, clock: Clock):
        self.service = service
        self._home, self._others_ready, self._tell, self._clock = home, ready, tell, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch {service.name}", daemon=True)
        self.state, self.note, self.restarts = "waiting", "", 0

    def start(self) -> None:
        """Begin to watch; the process starts as soon as those it needs are healthy."""
        self._thread.start()

    def status(self) -> ProcessStatus:
        """Say how it is."""
        process = self._process
        pid = None if process is None or process.poll() is not None else process.pid
        rss = 0 if pid is None else memory_of(pid)
        return ProcessStatus(self.service.name, self.state, pid, self.service.address, self.restarts, rss, self.note)

    def stop(self) -> None:
        """End the process and everything that came of it. Returns when nothing is left."""
        self._stopping.set()
        self._thread.join()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._tell(self.service.name, f"did not end within {STOP_SECONDS:.0f} s and is killed")
        end_all(self._marked)
        if process is not None:
            process.wait()
        self.state = "stopped"

    def _marked(self, environment: dict[str, str]) -> bool:
        home = str(self._home.folder.absolute())
        return environment.get(HOME_MARK) == home and environment.get(PROCESS_MARK) == self.service.name

    def _watch(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            self._wait_for_others()
            began = time.monotonic()
            ended = self._live_once()
            if self._stopping.is_set():
                return
            # What it started must not outlive it: the next one starts the same again.
            end_all(self._marked)
            if time.monotonic() - began > self._clock.steady:
                pause = 1.0
            self.restarts += 1
            self.state, self.note = "restarting", f"{ended}; starts again in {pause:.0f} s"
            self._tell(self.service.name, f"{ended}; starts again in {pause:.0f} s (log: {self._log})")
            self._stopping.wait(pause)
            pause = min(pause * 2, self._clock.longest_pause)

    def _wait_for_others(self) -> None:
        while not all(self._others_ready(name) for name in self.service.after):
            self.state, self.note = "waiting", f"for {', '.join(self.service.after)}"
            if self._stopping.wait(LOOK_SECONDS):
                return

    @property
    def _log(self) -> Path:
        return self._home.logs / f"{self.service.name}.log"

    def _live_once(self) -> str:
        """Start the process and watch it until it ends or has to be ended; returns why."""
        if self._stopping.is_set():
            return ""
        self.state, self.note = "starting", ""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                list(self.service.command),
                env=dict(self.service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        began = well = time.monotonic()
        while not self._stopping.is_set():
            code = process.poll()
            if code is not None:
                return f"ended with {_told(code)}"
            now = time.monotonic()
            if self.service.healthy():
                well = now
                if self.state != "healthy":
                    self._tell(self.service.name, f"is ready after {now - began:.0f} s: {self.service.address}")
                self.state, self.note = "healthy", ""
            elif self.state == "starting" and now - began > self._clock.start:
                return self._give_up(process, f"was not ready within {self._clock.start:.0f} s")
            elif self.state != "starting":
                self.state, self.note = "unwell", f"no answer for {now - well:.0f} s"
                if now - well > self._clock.unwell:
                    return self._give_up(process, f"did not answer for {self._clock.unwell:.0f} s")
            self._wait_or_end(process, LOOK_SECONDS if self.state == "starting" else HEALTH_SECONDS)
        return ""

    def _wait_or_end(self, process: "subprocess.Popen[bytes]", seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None and not self._stopping.wait(0.1):
            pass

    def _give_up(self, process: "subprocess.Popen[bytes]", why: str) -> str:
        process.kill()
        process.wait()
        return why


class Supervisor:
    """All processes of one platform. tell: called with a process's name and what happened, from several threads."""

    def __init__(
        self, home: PlatformHome, services: Sequence[Service], tell: Tell, *, clock: Clock | None = None
    ) -> None:
        self._watched = {one.name: Watched(one, home, self.is_healthy, tell, clock or Clock()) for one in services}

    def start(self) -> None:
        """Begin to watch all processes."""
        for one in self._watched.values():
            one.start()

    def is_healthy(self, name: str) -> bool:
        """Tell whether a process did its work when it was last asked."""
        return self._watched[name].state == "healthy"

    def all_healthy(self) -> bool:
        """Tell whether all did."""
        return all(self.is_healthy(name) for name in self._watched)

    def status(self) -> list[ProcessStatus]:
        """Say how each process is, in the order of their start."""
        return [one.status() for one in self._watched.values()]

    def stop(self) -> None:
        """End all processes, those that need others first. Returns when nothing is left."""
        later = [one for one in self._watched.values() if one.service.after]
        sooner = [one for one in self._watched.values() if not one.service.after]
        for group in (later, sooner):
            threads = [threading.Thread(target=one.stop, name=f"stop {one.service.name}") for one in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def end_left_over(home: PlatformHome) -> int:
    """End what a platform left running whose supervisor was killed; return how many processes that were."""
    folder = str(home.folder.absolute())
    return end_all(lambda environment: environment.get(HOME_MARK) == folder and PROCESS_MARK in environment)


def end_all(marked: Callable[[dict[str, str]], bool]) -> int:
    """End the processes of this user whose environment says that they are meant, first kindly; return how many."""
    found = [one for one in psutil.process_iter() if one.pid != os.getpid() and marked(_environment_of(one))]
    for one in found:
        _send(one.terminate)
    _, left = psutil.wait_procs(found, timeout=STOP_SECONDS)
    for one in left:
        _send(one.kill)
    psutil.wait_procs(left, timeout=STOP_SECONDS)
    return len(found)


def memory_of(pid: int) -> int:
    """Return the resident memory of a process and all its children, in bytes."""
    try:
        process = psutil.Process(pid)
        return sum(_rss(one) for one in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}  # another user's, or gone by now


def _send(signal: Callable[[], None]) -> None:
    try:
        signal()
    except psutil.NoSuchProcess:
        return


def _told(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"
