"""The hub of a pipeline: where it is dialled, and what every member signs for of a run there."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from .fields import SpecModel, Text
from .training import XGBOOST, AnyTraining, Training

DEEPEST_PADDED = 10  # a tree there has 512 counted nodes; one level more would double every round's bytes


class Hub(SpecModel):
    """The relay that the organisations dial."""

    hub: Text = Field(
        pattern=r"^[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}$", title="Hub", description="Its address, hub.example.org:7443."
    )
    grace_seconds: int = Field(
        default=300,
        ge=1,
        le=7 * 86400,
        title="Grace time",
        description="Seconds that an organisation may be silent before the run is suspended; it can then be resumed. "
        "At least 6: one that computes shows every 5 that it lives.",
    )
    when_lost: Literal["suspend", "go_on"] = Field(
        default="suspend",
        title="When an organisation is lost",
        description="After the grace time: suspend the run, or go on without it and let it rejoin, which shows the "
        "others nearly its own sums (docs/security.md).",
    )
    minimum_members: int = Field(
        default=3,
        ge=2,
        title="Minimum members",
        description="With when_lost: go_on, the fewest organisations that go on; fewer suspend the run.",
    )
    pad_levels: bool = Field(
        default=False,
        title="Pad levels",
        description="Every tree's sums are as many and as long as the largest tree's: the hub sees nothing of it.",
    )

    def check(self, training: AnyTraining, members: Sequence[str], *, allow_two_parties: bool) -> None:
        """Raise PydanticCustomError for settings that do not fit the training or the number of members."""
        self._check_padding(training)
        self._check_when_lost(training, members, allow_two_parties=allow_two_parties)

    def _check_padding(self, training: AnyTraining) -> None:
        if not self.pad_levels:
            return
        if not isinstance(training, Training):
            raise PydanticCustomError("spec", "federation.pad_levels is for trees; with another algorithm take it out")
        if training.grow_policy == "lossguide" or not 1 <= training.max_depth <= DEEPEST_PADDED:
            raise PydanticCustomError(
                "spec",
                "federation.pad_levels needs grow_policy: depthwise and a max_depth of 1 to {most}: a tree is padded "
                "to the largest of its depth",
                {"most": DEEPEST_PADDED},
            )

    def _check_when_lost(self, training: AnyTraining, members: Sequence[str], *, allow_two_parties: bool) -> None:
        if self.when_lost == "suspend":
            if self.minimum_members != Hub.model_fields["minimum_members"].default:
                raise PydanticCustomError("spec", "federation.minimum_members needs when_lost: go_on")
            return
        if training.algorithm != XGBOOST:
            raise PydanticCustomError(
                "spec", "federation.when_lost: go_on is for trees; with another algorithm write when_lost: suspend"
            )
        if self.minimum_members < 3 and not allow_two_parties:
            raise PydanticCustomError(
                "spec", "federation.minimum_members below 3 lets two see each other's sums: write allow_two_parties"
            )
        if self.minimum_members >= len(members):
            raise PydanticCustomError(
                "spec",
                "federation.minimum_members is {told}, with {all} organisations none could be lost. Write when_lost: "
                "suspend, or a smaller number",
                {"told": self.minimum_members, "all": len(members)},
            )
