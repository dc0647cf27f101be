"""What a member says about a sum before it sends anything: everybody must be about to add up the same thing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lepton_pipelines.federation.encoding import canonical
from lepton_pipelines.federation.envelope import Untrusted


@dataclass(frozen=True)
class Announcement:
    """One member's view of the next sum.

    number: position in the run, from 0. epoch: of the keys; a sum is attempted once in an epoch, so the two together
    are the attempt.
    shape: of the vector. bound: largest absolute value of a total. context: digest of the shared state.
    members: everyone who takes part, in order.
    """

    run: str
    number: int
    name: str
    shape: tuple[int, ...]
    bound: int
    context: bytes
    members: tuple[str, ...]
    epoch: int = 1

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes: what is compared, signed and bound into the masks' keys."""
        return canonical(
            {
                "run": self.run,
                "number": self.number,
                "name": self.name,
                "shape": list(self.shape),
                "bound": str(self.bound),
                "context": self.context.hex(),
                "members": list(self.members),
                "epoch": self.epoch,
            }
        )

    @property
    def values(self) -> int:
        """Number of values of the vector."""
        count = 1
        for length in self.shape:
            count *= length
        return count


def read_announcement(encoded: bytes, sender: str) -> Announcement:
    """Read a member's announcement back. Raises Untrusted if it is not one in canonical encoding."""
    try:
        fields = json.loads(encoded)
        announcement = Announcement(
            run=str(fields["run"]),
            number=int(fields["number"]),
            name=str(fields["name"]),
            shape=tuple(int(length) for length in fields["shape"]),
            bound=int(fields["bound"]),
            context=bytes.fromhex(fields["context"]),
            members=tuple(str(member) for member in fields["members"]),
            epoch=int(fields["epoch"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Untrusted(f"{sender}'s announcement is malformed ({error})") from error
    if announcement.encoded != encoded:
        raise Untrusted(f"{sender}'s announcement is not in its canonical encoding")
    return announcement


_FIELDS = {
    "name": "is about to add up",
    "shape": "has a vector of shape",
    "bound": "announced the bound",
    "context": "is at the state",
    "number": "is at sum number",
    "members": "believes the members are",
    "epoch": "is in key epoch",
    "run": "is in run",
}


def difference(announcements: Mapping[str, Announcement]) -> str | None:
    """Say which member differs from the others, and in what; None if all announced the same."""
    if len({announcement.encoded for announcement in announcements.values()}) <= 1:
        return None
    for field, says in _FIELDS.items():
        views = {member: getattr(announcement, field) for member, announcement in announcements.items()}
        ranking = Counter(views.values()).most_common()
        if len(ranking) == 1:
            continue
        name = next(iter(announcements.values())).name
        subject = "the members are not about to add up the same sum" if field == "name" else f"sum {name!r}"
        if ranking[0][1] > ranking[1][1]:
            usual = ranking[0][0]
            odd = [f"{member} {says} {_shown(view)}" for member, view in views.items() if view != usual]
            others = [member for member, view in views.items() if view == usual]
            return f"{subject}: {' and '.join(odd)}; {_listed(others)}: {_shown(usual)}"
        return f"{subject}: " + "; ".join(f"{member} {says} {_shown(view)}" for member, view in views.items())
    raise AssertionError("announcements differ in their encoding and in no field")


def _shown(view: object) -> str:
    if isinstance(view, bytes):
        return f"{view.hex()[:16]}…" if view else "(none)"
    if isinstance(view, tuple):
        return "(" + ", ".join(map(str, view)) + ")"
    return repr(view)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
