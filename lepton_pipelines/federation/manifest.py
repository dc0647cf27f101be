"""The manifest: what every member signs before anything is added up.

It fixes who takes part, under which keys, on what specification, within which dimensions, and what happens when a
member is lost. Its digest salts every key of the run, so members with different manifests cannot add up.
"""

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lepton_pipelines.federation.encoding import canonical, digest
from lepton_pipelines.federation.secure_sum import WHOLE
from lepton_pipelines.spec.errors import UserError

PROTOCOLS = (1, 1)  # oldest and newest version of the protocol that this code speaks
MANIFEST_VERSION = 1
LARGEST_MANIFEST = 1 << 20
LONGEST_RUN = 120

Kind = Literal["training", "watch", "contribution"]
"""What a run is for: a model, a comparison of the rows as they are now with those that the champion saw, or a report
of what each one's rows add."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Member(_Strict):
    """One organisation: its name, its Ed25519 key (hex) and the data product it trains on."""

    name: Name
    key: Hex32
    product: str = Field(default="", max_length=200)


class Dimensions(_Strict):
    """What a run may need at most: limits on messages and memory follow from it."""

    largest_sum: int = Field(default=1 << 24, ge=1, le=1 << 30, description="values of the longest vector")
    sums: int = Field(default=1 << 20, ge=1, le=1 << 32, description="sums in the whole run")
    in_flight: int = Field(default=16, ge=1, le=256, description="sums under way at once")
    whole: int = Field(
        default=WHOLE,
        ge=0,
        le=1 << 22,
        description="bytes of all members' vectors together up to which everyone is shown all of them",
    )

    def travels_whole(self, members: int, size: int) -> bool:
        """Whether a sum of vectors of so many bytes is small enough for members to add it up themselves."""
        return members * size <= self.whole

    @property
    def largest_upload(self) -> int:
        """Bytes that a masked vector can have: two cells of eight bytes a value, and the zero words."""
        return 16 * self.largest_sum + 64 * 8


class Stage(_Strict):
    """A manifest that another one rests on, such as one that was gone on from: its run's id and its digest (hex)."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
    manifest: Hex32


class Manifest(_Strict):
    """What a run is. Compared, signed and pinned; see `Manifest.digest`."""

    version: Literal[1] = 1
    protocol: int = Field(default=1, ge=1)
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
    kind: Kind = "training"
    pipeline: str = Field(default="", max_length=200)
    hub: Hex32
    members: tuple[Member, ...]
    spec: Hex32
    contract: Hex32
    code: str = Field(max_length=100)
    algorithm: str = Field(default="boosting", max_length=100)
    parameters: dict[str, int | str | bool] = Field(default_factory=dict)
    privacy: dict[str, int | str | bool] = Field(default_factory=dict)
    dimensions: Dimensions = Dimensions()
    allow_two_parties: bool = False
    when_lost: Literal["suspend", "go_on"] = "suspend"
    minimum_members: int = Field(default=3, ge=2)
    continues: tuple[Stage, ...] = Field(default=(), max_length=64)
    contribution: bool = Field(default=False, description="its members signed for runs without one of them")
    series: Stage | None = Field(default=None, description="the whole run that this one leaves somebody out of")
    grace_seconds: int = Field(default=300, ge=1, le=7 * 86400)
    expires_seconds: int = Field(default=7 * 86400, ge=60, le=90 * 86400)
    created: int = Field(default=0, ge=0, description="seconds since 1970, by the proposer's clock; informative")

    @model_validator(mode="after")
    def _members_are_fit(self) -> Self:
        names = [member.name for member in self.members]
        if names != sorted(set(names)):
            raise ValueError("members are named once each and in order")
        if len({member.key for member in self.members}) != len(names):
            raise ValueError("two members have the same key")
        if len(names) < 2 or (len(names) < 3 and not self.allow_two_parties):
            raise ValueError(
                f"{len(names)} members are too few: each of two could subtract itself from the total. Add a third, or "
                "set allow_two_parties: true"
            )
        if self.when_lost == "go_on" and self.minimum_members < 3 and not self.allow_two_parties:
            raise ValueError("minimum_members below 3 needs allow_two_parties: true")
        if (self.kind == "contribution" or self.series is not None) and not self.contribution:
            raise ValueError("what each one's rows add is measured only where the members sign for it: contribution")
        if self.contribution and self.when_lost == "go_on":
            raise ValueError("members cannot sign for contribution reports and for going on without one of them")
        return self

    @property
    def root(self) -> str:
        """The id that the run began under; its own unless its members changed."""
        return self.continues[0].run if self.continues else self.run

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The members' names, in order."""
        return tuple(member.name for member in self.members)

    @cached_property
    def keys(self) -> dict[str, bytes]:
        """The members' public Ed25519 keys."""
        return {member.name: bytes.fromhex(member.key) for member in self.members}

    @property
    def products(self) -> dict[str, str]:
        """The members' data products, where they named one."""
        return {member.name: member.product for member in self.members if member.product}

    def encoded(self) -> bytes:
        """Return the canonical bytes."""
        return canonical(self._told())

    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: what members sign, and what salts the run's keys."""
        return digest("lepton/manifest/1", self._told())

    def _told(self) -> dict[str, Any]:
        """Return the fields that are written: those of contribution reports only where there is one to sign for."""
        return self.model_dump(exclude=set() if self.contribution else {"contribution", "series"})


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest as it travels.

    Raises UserError, saying what is wrong with it: too large, not canonical, a version or a field that this code does
    not know.
    """
    if len(data) > LARGEST_MANIFEST:
        raise UserError(f"the manifest has {len(data)} bytes, more than {LARGEST_MANIFEST}: it is refused unread.")
    try:
        fields: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the manifest is not JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise UserError("the manifest is not an object.")
    if fields.get("version") != MANIFEST_VERSION:
        raise UserError(
            f"the manifest has version {fields.get('version')!r}, this code reads version {MANIFEST_VERSION}. "
            "Bring the organisations to the same release."
        )
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'manifest'}: {p['msg']}" for p in error.errors())
        raise UserError(f"the manifest is refused: {problems}.") from error
    if manifest.encoded() != data:
        raise UserError("the manifest is not in its canonical encoding: two readers could take it for different ones.")
    return manifest


def choose_protocol(ours: tuple[int, int], theirs: tuple[int, int], *, we: str, they: str) -> int:
    """Return the newest version that both speak.

    ours, theirs: (oldest, newest). Raises UserError that names both if there is none.
    """
    newest = min(ours[1], theirs[1])
    if newest < max(ours[0], theirs[0]):
        older, release = (they, ours) if theirs[1] < ours[0] else (we, theirs)
        raise UserError(
            f"{they} speaks protocol {theirs[0]} to {theirs[1]}, {we} {ours[0]} to {ours[1]}: none in common. "
            f"Update {older} to a release that speaks {release[0]} or newer."
        )
    return newest
