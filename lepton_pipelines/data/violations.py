"""What breaks the contract: counted, named by up to five row keys, added up over pieces.

Values of columns that the contract flags as personal never stand here; nor do row keys, if a key is personal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from lepton_pipelines.spec.contract import Column, Contract
from lepton_pipelines.spec.errors import UserError

from .keys import UInt64Array

# How many keys and values a message names.
NAMED = 5

# Keys are held back for finding duplicates across pieces up to so many; beyond, a fixed sample of them by hash.
_KEYS_HELD = 4_000_000

_ALL = np.uint64(np.iinfo(np.uint64).max)


@dataclass(frozen=True)
class Violation:
    """One rule that some rows of one column break.

    rule: type, range, category, required, finite, time or duplicate. keys, values: up to five, in the order of the
    rows. fatal: no row can be set aside for it.
    """

    column: str
    rule: str
    count: int
    keys: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def __add__(self, other: "Violation") -> "Violation":
        """Add the counts; the first keys and values stay."""
        return replace(
            self,
            count=self.count + other.count,
            keys=(*self.keys, *other.keys)[:NAMED],
            values=tuple(dict.fromkeys((*self.values, *other.values)))[:NAMED],
        )


@dataclass(frozen=True)
class KeySample:
    """The hashes of the keys seen so far: all, or beyond some millions those below a limit.

    hashes: uint64, sorted. below: hashes above it were left out.
    """

    hashes: UInt64Array = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    below: int = int(_ALL)

    def __add__(self, other: "KeySample") -> "KeySample":
        """Merge, and lower the limit until the sample fits."""
        return KeySample.merged((self, other))

    @staticmethod
    def merged(samples: "Iterable[KeySample]") -> "KeySample":
        """Merge many at once: what adding them one after the other gives, sorted once."""
        parts = list(samples)
        below = min((part.below for part in parts), default=int(_ALL))
        hashes = np.concatenate([np.empty(0, np.uint64), *(part.hashes for part in parts)])
        if below < int(_ALL):
            hashes = hashes[hashes <= np.uint64(below)]
        while len(hashes) > _KEYS_HELD:
            below //= 2
            hashes = hashes[hashes <= np.uint64(below)]
        hashes.sort(kind="stable")  # merges what is sorted already
        return KeySample(hashes, below)

    @property
    def duplicates(self) -> int:
        """How many rows of the sample have a key that another row has, too."""
        if len(self.hashes) < 2:
            return 0
        same = self.hashes[1:] == self.hashes[:-1]
        return int(np.count_nonzero(np.append(same, False) | np.insert(same, 0, False)))


@dataclass(frozen=True)
class Violations:
    """What checking some rows found.

    rows: how many were checked. rejected: how many break a rule that holds for single rows.
    missing: missing values by column. inexact: whole numbers by column that float32 rounds.
    label_range: smallest and largest label of the rows that break no rule.
    """

    rows: int = 0
    rejected: int = 0
    found: tuple[Violation, ...] = ()
    missing: tuple[tuple[str, int], ...] = ()
    inexact: tuple[tuple[str, int], ...] = ()
    label_range: tuple[float, float] | None = None
    keys: KeySample = field(default_factory=KeySample)

    def __add__(self, other: "Violations") -> "Violations":
        """Add what was found in other rows."""
        return Violations.together((self, other))

    @staticmethod
    def together(parts: "Iterable[Violations]") -> "Violations":
        """Add up what was found in many parts of the rows, in their order."""
        every = list(parts)
        merged: dict[tuple[str, str], Violation] = {}
        for violation in (violation for part in every for violation in part.found):
            key = (violation.column, violation.rule)
            merged[key] = merged[key] + violation if key in merged else violation
        ranges = [part.label_range for part in every if part.label_range is not None]
        return Violations(
            rows=sum(part.rows for part in every),
            rejected=sum(part.rejected for part in every),
            found=tuple(merged.values()),
            missing=_added(part.missing for part in every),
            inexact=_added(part.inexact for part in every),
            label_range=(min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else None,
            keys=KeySample.merged(part.keys for part in every),
        )

    def __radd__(self, other: "int | Violations") -> "Violations":
        """Let `sum` begin with 0."""
        return self if isinstance(other, int) else other + self

    @property
    def kept(self) -> int:
        """How many rows break no rule that holds for single rows."""
        return self.rows - self.rejected

    def problems(self, contract: Contract, *, organisation: str, on_violation: str) -> list[str]:
        """Return one message for everything that refuses these rows, all of an organisation's pieces added up.

        With on_violation "quarantine" rows that break a rule refuse nothing; that too few are left still does.
        """
        told = []
        if on_violation == "refuse":
            told += [_row_problem(v, contract, organisation) for v in self.found]
        told += self._table_problems(contract, organisation, on_violation)
        return told

    def refuse(self, contract: Contract, *, organisation: str, on_violation: str) -> None:
        """Raise UserError with all problems, if there are any."""
        if problems := self.problems(contract, organisation=organisation, on_violation=on_violation):
            raise UserError(problems)

    def warnings(self, contract: Contract, *, organisation: str) -> list[str]:
        """Return what does not refuse the rows but should be known."""
        told = [
            f'{organisation}: {count} values of column "{name}" are whole numbers beyond 16,777,216, which float32 '
            "rounds. Scale the column, or make it a category."
            for name, count in self.inexact
        ]
        told += [
            f'{organisation}: column "{name}" is missing throughout: its trees will learn it from the others.'
            for name, count in self.missing
            if count == self.rows and self.rows and not contract.column(name).required
        ]
        if self.rejected:
            told.append(f"{organisation}: {self.rejected} of {self.rows} rows break the contract.")
        return told

    def _table_problems(self, contract: Contract, organisation: str, on_violation: str) -> list[str]:
        told = []
        # Keys that stand twice within a piece are violations of rows; here they are found across pieces.
        known = sum(v.count for v in self.found if v.rule == "duplicate")
        if (across := self.keys.duplicates - known) > 0:
            names = _keys_named(contract)
            least = "" if self.keys.below == int(_ALL) else "at least "
            told.append(
                f"{organisation}: {least}{across} rows have a {names} that another row has, too. "
                f"Take the copies out, or drop primaryKey in contract {contract.id}."
            )
        if self.kept < contract.minimum_rows:
            after = f" after {self.rejected} were set aside" if self.rejected and on_violation == "quarantine" else ""
            told.append(
                f"{organisation}: has {self.kept} rows{after}, the contract wants at least {contract.minimum_rows}. "
                f"Add rows, or lower lepton.minimum_rows in contract {contract.id}."
            )
        for name, count in self.missing:
            column = contract.column(name)
            if self.rows and count / self.rows > column.allowed_missing:
                told.append(
                    f'{organisation}: column "{name}" is missing in {count / self.rows:.1%} of {self.rows} rows, '
                    f"the contract allows {column.allowed_missing:.1%}. Fill it, or raise lepton.allowed_missing."
                )
        if contract.label is not None and self.kept and self.label_range is not None:
            low, high = self.label_range
            if low == high:
                shown = _label_shown(contract.label, low)
                told.append(
                    f"{organisation}: every row has the label {contract.label.name} = {shown}. "
                    "A model needs rows with another label, too: add some, or check the label's column."
                )
        return told


def _added(parts: Iterable[Iterable[tuple[str, int]]]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for name, count in (each for part in parts for each in part):
        counts[name] = counts.get(name, 0) + count
    return tuple(counts.items())


def _row_problem(violation: Violation, contract: Contract, organisation: str) -> str:
    if violation.rule == "duplicate":
        named = _rows_named(violation, contract)
        return (
            f"{organisation}: {_rows(violation.count)} a {_keys_named(contract)} that another row has, too{named}. "
            "Take the copies out or set on_violation: quarantine."
        )
    column = contract.column(violation.column)
    what = "label" if column.role == "label" else f'"{column.name}"'
    shown = " " + _listed(violation.values) if violation.values else ""
    rule = {
        "type": f"has{shown} in {what}, the contract wants {_kind(column)}",
        "range": f"has {what}{shown}, the contract allows {_range(column)}",
        "time": f"has {what}{shown}, the contract allows {_range(column)}",
        "category": f"has {what}{shown}, the contract allows {_listed(column.categories, most=12)}",
        "finite": f"has an infinite value in {what}",
        "required": f"has no {what}, which the contract requires",
    }[violation.rule]
    if violation.count != 1:
        rule = "have" + rule.removeprefix("has")
    rows = "1 row" if violation.count == 1 else f"{violation.count} rows"
    return f"{organisation}: {rows} {rule}{_rows_named(violation, contract)}. Fix them or set on_violation: quarantine."


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"


def _kind(column: Column) -> str:
    if column.kind == "number":
        return "a whole number" if column.integer else "a number"
    return {"boolean": "true or false", "time": "a time (ISO 8601, all with a zone or none)"}.get(column.kind, "a text")


def _range(column: Column) -> str:
    low, high = (
        (column.earliest, column.latest) if column.kind == "time" else (_plain(column.minimum), _plain(column.maximum))
    )
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"{low} and more" if low is not None else f"{high} and less"


def _plain(number: float | None) -> str | None:
    return None if number is None else f"{number:g}"


def _rows_named(violation: Violation, contract: Contract) -> str:
    if not violation.keys:
        return ""
    by = _keys_named(contract) if contract.keys and not any(c.personal for c in contract.keys) else "number"
    more = ", …" if violation.count > len(violation.keys) else ""
    rows = "row" if violation.count == 1 else "rows"
    return f" ({rows} with {by} {', '.join(violation.keys)}{more})"


def _keys_named(contract: Contract) -> str:
    return " and ".join(c.name for c in contract.keys)


def _listed(values: Iterable[str], *, most: int = NAMED) -> str:
    values = list(values)
    if not values:
        return ""
    if len(values) > most:
        return ", ".join(values[:most]) + ", …"
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def _label_shown(column: Column, code: float) -> str:
    if column.personal:
        return "(personal)"
    return column.categories[int(code)] if column.categories else f"{code:g}"
