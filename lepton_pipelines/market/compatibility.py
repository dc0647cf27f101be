"""Which products can be trained on together, and what is in the way, column by column."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from lepton_pipelines.spec.contract import Column, Contract


@dataclass(frozen=True)
class Obstacle:
    """What keeps two products apart. column: None where it is the table as a whole."""

    products: tuple[str, str]
    column: str | None
    problem: str


def obstacles(contracts: Mapping[str, Contract]) -> list[Obstacle]:
    """Compare every two products' contracts. contracts: by product id. Returns nothing if all go together."""
    found = []
    for (one, mine), (other, theirs) in combinations(sorted(contracts.items()), 2):
        names = (one, other)
        here, there = (
            {each.name: each for each in contract.columns if each.role != "unused"} for contract in (mine, theirs)
        )
        for name in sorted(here.keys() | there.keys()):
            if name not in here or name not in there:
                lacks, has = (one, there[name]) if name not in here else (other, here[name])
                found.append(Obstacle(names, name, f"{lacks} has no such column ({has.role}, {_kind(has)})"))
            else:
                found += [Obstacle(names, name, problem) for problem in differences(here[name], there[name])]
        if (
            not any(each.column for each in found if each.products == names)
            and mine.feature_names != theirs.feature_names
        ):
            found.append(Obstacle(names, None, "the features stand in another order; write them in the same"))
    return found


def differences(mine: Column, theirs: Column) -> list[str]:
    """Say in what two columns of one name differ that matters to a model."""
    problems = []
    for what, one, other in (
        ("role", mine.role, theirs.role),
        ("type", _kind(mine), _kind(theirs)),
        ("unit", mine.unit or "none", theirs.unit or "none"),
    ):
        if one != other:
            problems.append(f"{what} {one} and {other}")
    if mine.find_categories != theirs.find_categories:
        problems.append("categories are found by one and listed by the other")
    elif mine.kind == theirs.kind == "category" and mine.categories != theirs.categories:
        only = sorted(set(mine.categories) ^ set(theirs.categories))
        problems.append(f"categories differ by {', '.join(only[:5])}" if only else "categories stand in another order")
    return problems


def _kind(column: Column) -> str:
    return "whole number" if column.kind == "number" and column.integer else column.kind
