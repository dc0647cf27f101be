"""`lepton ledger`: read, prove and verify a ledger from its files alone. Needs no server and no network.

Exit codes: 0 if everything held, 1 if something was found that does not hold, 2 for a mistake in how it was asked.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lepton_pipelines.ledger.policy import Policy
    from lepton_pipelines.ledger.predicate import Predicate
    from lepton_pipelines.ledger.verification import Verified

app = typer.Typer(
    name="ledger", help="Read, prove and verify a ledger from its files.", no_args_is_help=True, rich_markup_mode=None
)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A member's ledger.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="Whose signatures count; the ledger's own file unless given."),
]
_COMMON = {"ledger", "id", "time", "author"}


@app.command()
def show(
    directory: Directory,
    first: Annotated[int, typer.Option("--from", min=0, help="The first entry to show.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List what stands in a ledger. Checks that the files are whole, not the signatures: `verify` does."""
    from lepton_pipelines.ledger.errors import LedgerError
    from lepton_pipelines.ledger.statement import read_entry
    from lepton_pipelines.ledger.store import LedgerView

    view = LedgerView(directory)
    if view.head is None:
        raise LedgerError(f"{directory} holds no entries yet")
    end = min(view.size, first + limit)
    for index in range(first, end):
        predicate = read_entry(view.entry(index)).predicate
        if as_json:
            typer.echo(json.dumps({"index": index, "kind": predicate.KIND, **predicate.model_dump(mode="json")}))
        else:
            typer.echo(f"{index:>6}  {predicate.time}  {predicate.KIND:<18} {_summary(predicate)}")
    if not as_json:
        more = f", {view.size - end} more: --from {end}" if end < view.size else ""
        typer.echo(f"\n{view.head.origin}: {view.size} entries{more}; root {view.head.root.hex()}")


@app.command()
def prove(
    directory: Directory,
    index: Annotated[int, typer.Argument(min=0, help="The entry's number, as `show` tells it.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the proof; the screen unless given.")
    ] = None,
) -> None:
    """Write a proof that one entry is in the ledger: a file that can be verified without the ledger."""
    from lepton_pipelines.ledger.errors import LedgerError
    from lepton_pipelines.ledger.proof import Proof
    from lepton_pipelines.ledger.store import LedgerView

    view = LedgerView(directory)
    if view.note is None:
        raise LedgerError(f"{directory} holds no entries yet")
    proof = Proof(view.entry(index), index, tuple(view.inclusion_proof(index, view.size)), view.note)
    if output is None:
        typer.echo(str(proof), nl=False)
        return
    output.write_text(str(proof))
    typer.echo(
        f"{output} proves entry {index} of {view.size}. Check it with: lepton ledger verify {output} --policy FILE"
    )


@app.command()
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A ledger, a proof or an evidence file.", show_default=False)
    ],
    policy: PolicyFile = None,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Another member's copy to hold it against.", show_default=False)
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write evidence if something is wrong.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute everything in a ledger, a proof or an evidence file, and say what is proved and what is not."""
    from lepton_pipelines.ledger.errors import LedgerError
    from lepton_pipelines.ledger.policy import read_policy

    trusted = None if policy is None else read_policy(policy)
    if not path.exists():
        raise LedgerError(f"there is no {path}: name a ledger's folder, a .tlog-proof file or an evidence file")
    started = time.monotonic()
    try:
        proved, not_proved = _verify(path, trusted, against, evidence)
    except LedgerError as error:
        if as_json:
            typer.echo(json.dumps({"holds": False, "problems": error.problems}))
        else:
            typer.secho(f"✗ {path} does not hold\n  {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps({"holds": True, "proved": proved, "not_proved": not_proved}))
        return
    typer.echo(f"✓ {path} holds ({time.monotonic() - started:.1f} s)\n\nproved")
    typer.echo("".join(f"  ✓ {line}\n" for line in proved) + "\nnot proved")
    typer.echo("".join(f"  – {line}\n" for line in not_proved), nl=False)


def _verify(
    path: Path, policy: "Policy | None", against: Path | None, evidence: Path | None
) -> tuple[list[str], list[str]]:
    if path.is_dir():
        verified = _verify_ledger(path, policy, evidence)
        if against is not None:
            from lepton_pipelines.ledger.comparison import compare_copies
            from lepton_pipelines.ledger.store import LedgerView

            other = LedgerView(against)
            verified.proved.append(compare_copies(verified.view, other, verified.policy.log, evidence))
        return verified.proved, verified.not_proved
    if path.read_bytes()[:1] == b"{":
        from lepton_pipelines.ledger.evidence import check, load

        finding = check(load(path), None if policy is None else policy.log)
        return [finding.proved], [finding.not_proved]
    return _verify_proof(path, policy)


def _verify_ledger(path: Path, policy: "Policy | None", evidence: Path | None) -> "Verified":
    import sys

    from rich.console import Console
    from rich.progress import Progress

    from lepton_pipelines.ledger.verification import verify_ledger

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("verifying", total=None)
        return verify_ledger(
            path, policy=policy, evidence=evidence, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )


def _verify_proof(path: Path, policy: "Policy | None") -> tuple[list[str], list[str]]:
    from lepton_pipelines.ledger.errors import LedgerError
    from lepton_pipelines.ledger.proof import Proof
    from lepton_pipelines.ledger.statement import read_entry

    if policy is None:
        raise LedgerError(f"{path} needs a policy to be checked against: --policy FILE (a ledger's folder has one)")
    try:
        proof = Proof.parse(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path} is neither a proof nor an evidence file") from error
    head, cosigned = proof.check(policy)
    predicate = read_entry(proof.entry).predicate
    who = ", ".join(sorted(cosigned)) or "no member"
    return (
        [
            f"entry {proof.index} of {head.origin} is: {predicate.KIND} {_summary(predicate)} ({predicate.time})",
            f"it is under the head of {head.size} entries, which {who} cosigned",
        ],
        [
            f"that {predicate.author.organisation} signed it with a key that was valid then, and kept the rules: "
            "verify the whole ledger for that",
            "that what it says is true",
        ],
    )


def _summary(predicate: "Predicate") -> str:
    fields = predicate.model_dump(mode="json", exclude_none=True, exclude=_COMMON)
    return " ".join([predicate.author.organisation, *(f"{name}={_short(value)}" for name, value in fields.items())])


def _short(value: Any) -> str:
    if isinstance(value, str):
        _, _, digest = value.rpartition(":")
        return f"{digest[:12]}…" if len(digest) == 64 and digest.isalnum() else value
    if isinstance(value, list):
        return ",".join(map(_short, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(each)}" for key, each in value.items()) + "}"
    return str(value)
