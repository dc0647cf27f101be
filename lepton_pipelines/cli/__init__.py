"""The `lepton` command.

Nothing heavy is imported before a command needs it: `lepton --help` answers at once.
"""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from lepton_pipelines.cli.app import run_command_line

    run_command_line()
