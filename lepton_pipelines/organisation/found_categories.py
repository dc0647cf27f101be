"""Categories that members find together before a run, where the contract says `categories: found`.

Each member counts its own values where they are read and offers those that stand in enough of its rows; the union of
what is offered, sorted, takes the place of the list in the contract. A value that nobody offers is read as missing.
A watch for drift finds nothing: it takes the categories that the champion was trained with.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lepton_pipelines.boosting.edges import SMALLEST_BIN
from lepton_pipelines.compute.pinned import PinnedRows
from lepton_pipelines.data.sources import Piece, Source
from lepton_pipelines.data.values import count_categories
from lepton_pipelines.organisation.category_union import LONGEST, MOST_OFFERED, Entry, find_union
from lepton_pipelines.organisation.wire import gather
from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Sums

if TYPE_CHECKING:
    from distributed import Client

    from lepton_pipelines.organisation.run import OrganisationRun

Counts = dict[str, dict[str, int]]
"""Rows by category, by column."""

_MOST_SEEN = 100_000  # different values of a column, beyond which it is no category
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class CountCategories:
    """Builds counts of the columns whose categories are to be found, from the pieces of one worker."""

    source: Source

    def __call__(self, pieces: list[Piece]) -> Counts:
        """Read these columns alone and count. Raises UserError as `Source.blocks`, and for what is no category."""
        columns = self.source.contract.to_find
        counts: Counts = {column.name: {} for column in columns}
        for piece in pieces:
            for frame in self.source.blocks(piece, [column.name for column in columns]):
                for column in columns:
                    held = counts[column.name]
                    for text, rows in count_categories(frame[column.name], column).items():
                        held[text] = held.get(text, 0) + rows
                    if len(held) > _MOST_SEEN:
                        raise UserError(
                            f"{self.source.organisation}: {column.name} has more than {_MOST_SEEN} different values, "
                            "so it is no category. Say lepton.role: unused in the contract."
                        )
        return counts


def settle_categories(part: "OrganisationRun", client: "Client", source: Source) -> dict[str, list[str]]:
    """Return the categories of the columns whose lists the contract leaves open, the same at every member.

    Raises UserError if this organisation's values are no categories, or if nobody offers one.
    """
    contract = source.contract
    if not contract.to_find:
        return {}
    if not part.trains:
        return _of_champion(part, contract)
    counts = _count(part, client, source)
    found = agree_on_categories(part.sums, contract, counts, organisation=part.name, context=part.pipeline.digest())
    for name, known in found.items():
        others = sum(rows for text, rows in counts[name].items() if text not in known)
        told = f"; {others} of its rows have others, which are read as missing" if others else ""
        part.notice(f"{len(known)} categories of {name} were found by all together{told}")
    return found


def agree_on_categories(
    sums: Sums, contract: Contract, counts: Counts, *, organisation: str, context: bytes = b""
) -> dict[str, list[str]]:
    """Find the union with the other members. counts: of this member's rows.

    Raises UserError if a category is too long or there are too many, or if nobody offers any of a column's.
    """
    columns = contract.to_find
    offered = [
        (place, text)
        for place, column in enumerate(columns)
        for text, rows in counts[column.name].items()
        if rows >= SMALLEST_BIN
    ]
    _check_offered(contract, offered, organisation)
    union = find_union(sums, offered, context=context)
    found: dict[str, list[str]] = {}
    for place, column in enumerate(columns):
        found[column.name] = sorted((text for at, text in union if at == place), key=_order)
        if not found[column.name]:
            raise UserError(
                f"{column.name}: no organisation has {SMALLEST_BIN} rows of one category, so none is found. List the "
                "categories in the contract, or say lepton.role: unused."
            )
    return found


def _count(part: "OrganisationRun", client: "Client", source: Source) -> Counts:
    pieces = source.pieces()
    weights = [max(piece.rows, 0) or piece.file.size for piece in pieces]
    held = PinnedRows(client, CountCategories(source), pieces, weights, on_loss=part.notice)
    try:
        parts = held.ask(_itself)
    finally:
        held.close()
    counts: Counts = {column.name: {} for column in source.contract.to_find}
    for one in parts:
        for name, by_text in one.items():
            for text, rows in by_text.items():
                counts[name][text] = counts[name].get(text, 0) + rows
    return counts


def _itself(counts: Counts) -> Counts:
    return counts


def _check_offered(contract: Contract, offered: list[Entry], organisation: str) -> None:
    if len(offered) > MOST_OFFERED:
        raise UserError(
            f"{organisation}: {len(offered)} categories of {', '.join(c.name for c in contract.to_find)} have "
            f"{SMALLEST_BIN} rows, {MOST_OFFERED} are the most that are found. List them in the contract."
        )
    for place, text in offered:
        if len(text.encode(errors="replace")) > LONGEST or not _is_text(text):
            raise UserError(
                f"{organisation}: {contract.to_find[place].name} has a category of more than {LONGEST} bytes, or one "
                "that is no Unicode text; such are not found. List the categories in the contract."
            )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _order(text: str) -> tuple[int, int, str]:
    """Sort whole numbers by their size, before texts by their code points."""
    return (0, int(text), text) if _WHOLE.fullmatch(text) else (1, 0, text)


def _of_champion(part: "OrganisationRun", contract: Contract) -> dict[str, list[str]]:
    """Let the publisher say which categories the champion knows."""
    name = part.pipeline.model_name

    def say() -> bytes:
        champion = part.champion()
        return b"" if champion is None else json.dumps(champion.categories).encode()

    document = part.once("agreement/categories", say)
    told = gather(part.sums, "agreement/categories", member=part.name, members=part.pipeline.members, document=document)
    if not (said := told[part.pipeline.publisher]):
        raise UserError(f"{name} has no champion to watch. Train one, or make one with: lepton promote {name}")
    known: Mapping[str, list[str]] = json.loads(said)
    lacking = [column.name for column in contract.to_find if column.name not in known]
    if lacking:
        raise UserError(
            f"{name}'s champion knows no categories of {', '.join(lacking)}: it was trained with another contract. "
            "Train it again."
        )
    return {column.name: list(known[column.name]) for column in contract.to_find}
