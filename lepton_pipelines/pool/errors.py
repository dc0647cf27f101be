"""What the pool refuses; each message names the offer, the rule and the next step."""

from lepton_pipelines.spec.errors import UserError


class PoolRefused(UserError):  # noqa: N818
    """An offer, a reservation or some work cannot be taken as it is."""
