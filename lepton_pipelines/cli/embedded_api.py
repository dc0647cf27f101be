"""Prefect's API as a process that ends with the one that started it.

    python -m lepton_pipelines.cli.embedded_api PORT

Its standard input is a pipe that nothing is written to: when it closes, the starter is gone, however it ended.
"""

import os
import signal
import sys
import threading

import uvicorn


def end_with_starter() -> None:
    """Ask this process to stop as soon as standard input is closed."""
    # Not through sys.stdin: the interpreter could not take the lock of a reader that still waits when it ends.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve on loopback until asked to stop, or until the starter is gone."""
    threading.Thread(target=end_with_starter, name="end-with-starter", daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    main()
