"""A line a run, as `lepton hub status` and `lepton org status` show them: where it stands, and whose turn it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

LATEST = 20
_OVER = ("finished", "aborted", "continued")


def show_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print runs, oldest first: all that are under way, and the latest of the others.

    runs: each with its `run`, `state`, and the `line` that is shown of it.
    """
    over = [one["run"] for one in runs if one["state"] in _OVER]
    left_out = set(over[:-LATEST])
    if left_out:
        typer.echo(f"  {len(left_out)} earlier runs are over (--json shows all)")
    for one in runs:
        if one["run"] not in left_out:
            typer.echo(f"  run {one['run']}: {one['line']}")


def standing(state: str, *, reason: str, lost: Sequence[str], successor: str) -> str:
    """Say where a run stands that is not going on. lost: for whom a suspended one waits. successor: what went on."""
    if state == "suspended":
        return f"suspended: waits for {', '.join(lost) or 'its members'}"
    if state == "continued":
        return f"continued as run {successor}"
    if state == "aborted":
        return f"aborted: {reason}" if reason else "aborted"
    return state


def going_on(one: Mapping[str, Any]) -> str:
    """Say where a run stands that is under way. one: as `lepton org status --json` has it."""
    late = one["seconds_since_seen_of_missing"]
    if one["status"] == "inviting":
        return f"inviting: waiting for {', '.join(late)} to sign" if late else "inviting"
    at = f"sum {one['sum']}{', ' + one['step'] if one['step'] else ''}; {one['bytes'] / 1e6:.1f} MB so far"
    if not late:
        return f"running, {at}"
    waited = ", ".join(
        f"{name} (not seen yet)" if seconds is None else f"{name} (last seen {seconds} s ago)"
        for name, seconds in late.items()
    )
    return f"running, {at}; waiting for {waited}, then suspended in {one['seconds_left']} s"
