"""The error that is the user's to mend: shown as plain text, never with a traceback."""

from collections.abc import Sequence


class UserError(Exception):
    """Something a user can put right: says what is wrong, where, and what to do next.

    problems: one message or several; all that could be found are reported together, one a line.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["UserError"], tuple[list[str]]]:
        """Keep the list of problems when the error travels between an organisation's own processes."""
        return type(self), (self.problems,)
