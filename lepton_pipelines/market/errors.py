"""What the market refuses; each message names the product, the clause and the next step."""

from lepton_pipelines.spec.errors import UserError


class MarketRefused(UserError):  # noqa: N818
    """A product, a request or an answer cannot be taken as it is."""


class TermsRefused(UserError):  # noqa: N818
    """A use of a product that its terms do not allow. clause: which one, as in `purposes`."""

    def __init__(self, problem: str, clause: str) -> None:
        super().__init__(problem)
        self.clause = clause

    def __reduce__(self) -> tuple[type["TermsRefused"], tuple[str, str]]:  # type: ignore[override]
        """Keep the clause when the error travels between processes."""
        return type(self), (self.problems[0], self.clause)
