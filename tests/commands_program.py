"""Commands of `lepton`, one after the other in one process: importing what computes takes longer than most of them.

python commands_program.py: reads a list of lists of arguments as JSON, and prints a line of JSON for each as it ends.
"""

import contextlib
import io
import json
import sys

from lepton_pipelines.cli.app import run_command_line


def main() -> None:
    for arguments in json.load(sys.stdin):
        out, err, code = io.StringIO(), io.StringIO(), None
        sys.argv = ["lepton", *arguments]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run_command_line()
            except SystemExit as end:
                code = end.code
        print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
