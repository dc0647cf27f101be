"""A slow line between an organisation and its hub: a relay of TCP that delays bytes and lets so many a second through.

It stands in for `netem` where the kernel has none. It delays every byte by the same time, after the line has had the
time to carry those before it; there are no losses and no slow start, so a real line of these figures is no faster.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

AHEAD = 0.25  # seconds of bytes that the line may hold, as a router's queue does


@dataclass(frozen=True)
class Line:
    """A line. delay: seconds in each direction. rate: bytes a second in each direction."""

    delay: float
    rate: float


class _Direction:
    """One direction of a line, which all connections over it share."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._free = 0.0

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry bytes until the source ends, then end the target."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.ensure_future(self._arrive(under_way, target))
        try:
            while data := await source.read(1 << 16):
                now = loop.time()
                self._free = max(self._free, now) + len(data) / self._line.rate
                under_way.put_nowait((self._free + self._line.delay, data))
                if self._free - now > AHEAD:
                    await asyncio.sleep(self._free - now - AHEAD)
        except ConnectionError:
            pass  # whoever hung up: the other side is told below
        under_way.put_nowait((loop.time() + self._line.delay, b""))
        await arriving

    @staticmethod
    async def _arrive(under_way: "asyncio.Queue[tuple[float, bytes]]", target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(max(due - loop.time(), 0.0))
                if not data:
                    break
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


async def _relay(line: Line, host: str, ports: list[int], ready: Any) -> None:
    up, down = _Direction(line), _Direction(line)

    def connected(port: int) -> Any:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(up.carry(reader, hub_writer), down.carry(hub_reader, writer))

        return carry

    servers = [await asyncio.start_server(connected(port), host, port) for port in ports]
    ready.put(host)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def relay(line: Line, host: str, ports: list[int], ready: Any) -> None:
    """Listen on an address of loopback of its own, on the hub's ports, until the process is ended."""
    asyncio.run(_relay(line, host, ports, ready))
