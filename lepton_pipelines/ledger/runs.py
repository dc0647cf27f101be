"""Runs and the models that came of them, as the entries so far made them."""

from dataclasses import dataclass, field

from lepton_pipelines.ledger.entries import (
    Evaluation,
    ModelOffered,
    ModelPromoted,
    ModelPublished,
    ModelRolledBack,
    ModelWithdrawn,
    PolicyRefused,
    RunAborted,
    RunFinished,
    RunJoined,
    RunOpened,
    RunResumed,
    RunSuspended,
    TreeFinished,
)
from lepton_pipelines.ledger.errors import EntryRefused


@dataclass
class Run:
    """A run. state: open, suspended, aborted or finished; `index` is where it was opened, `ended_at` where it ended."""

    opened: RunOpened
    index: int
    state: str = "open"
    joined: dict[str, tuple[int, RunJoined]] = field(default_factory=dict)
    trees: int = 0
    model: str | None = None
    ended_at: int | None = None
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)

    @property
    def members(self) -> list[str]:
        """Who takes part, in alphabetical order."""
        return self.opened.members


@dataclass
class Version:
    """A published version of a model."""

    published: ModelPublished
    index: int


class Runs:
    """What was trained by whom, under what, and what became of it."""

    def __init__(self) -> None:
        self.by_id: dict[str, Run] = {}
        self.versions: dict[tuple[str, int], Version] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.offers: dict[tuple[str, int], tuple[int, ModelOffered]] = {}

    def open(self, index: int, opened: RunOpened, members: set[str]) -> None:
        """Begin a run among members."""
        if opened.run in self.by_id:
            raise EntryRefused(f"there is a run {opened.run} already")
        self._member(opened.author.organisation, opened)
        strangers = [name for name in opened.members if name not in members]
        if strangers:
            raise EntryRefused(f"run {opened.run} names {', '.join(strangers)}, not admitted to this ledger")
        self.by_id[opened.run] = Run(opened, index)

    def join(self, index: int, joined: RunJoined) -> None:
        """Note that a member takes part, by its own word."""
        run = self._run(joined.run, joined.manifest, "open")
        name = joined.author.organisation
        self._member(name, run.opened)
        if name in run.joined:
            raise EntryRefused(f"{name} has joined run {joined.run} already")
        if joined.rows is not None and joined.rows < run.opened.disclosure_limit:
            raise EntryRefused(f"{name} tells {joined.rows} rows, below the run's limit {run.opened.disclosure_limit}")
        run.joined[name] = (index, joined)

    def finish_tree(self, tree: TreeFinished) -> None:
        """Note a tree, in order."""
        run = self._going(tree.run)
        self._member(tree.author.organisation, run.opened)
        if tree.tree != run.trees + 1:
            raise EntryRefused(f"run {tree.run} has {run.trees} trees: the next is {run.trees + 1}, not {tree.tree}")
        strangers = sorted(set(tree.sent) - set(run.opened.members))
        if strangers:
            raise EntryRefused(f"tree {tree.tree} of run {tree.run} counts {', '.join(strangers)}, not its members")
        run.trees, run.model = tree.tree, tree.model

    def change_state(self, index: int, entry: RunSuspended | RunResumed | RunAborted | RunFinished) -> None:
        """Suspend, resume, abort or finish a run."""
        run = self._run(entry.run, entry.manifest, "suspended" if isinstance(entry, RunResumed) else "")
        self._member(entry.author.organisation, run.opened)
        if entry.trees != run.trees and run.trees:
            raise EntryRefused(f"run {entry.run} has {run.trees} trees, not {entry.trees}")
        if isinstance(entry, RunFinished):
            self._going(entry.run)
            run.state, run.model, run.trees = "finished", entry.model, entry.trees
        else:
            run.state = {RunSuspended: "suspended", RunResumed: "open", RunAborted: "aborted"}[type(entry)]
        if run.state in ("finished", "aborted"):
            run.ended_at = index

    def evaluate(self, index: int, evaluation: Evaluation) -> None:
        """Note a score of the run's model."""
        run = self._known(evaluation.run)
        self._member(evaluation.author.organisation, run.opened)
        if run.state != "finished" or evaluation.model != run.model:
            raise EntryRefused(f"run {evaluation.run} has not finished with the model that was evaluated")
        if evaluation.rows is not None and evaluation.rows < run.opened.disclosure_limit:
            raise EntryRefused(f"{evaluation.rows} rows are below the limit {run.opened.disclosure_limit} of the run")
        run.evaluations.append((index, evaluation))

    def publish(self, index: int, published: ModelPublished) -> None:
        """Note a version. A number is given anew only to the model of another run, as after a registry was emptied."""
        run = self._known(published.run)
        self._member(published.author.organisation, run.opened)
        if run.state != "finished":
            raise EntryRefused(f"run {published.run} is {run.state}: a model comes from a finished run")
        known = self.versions.get((published.model, published.version))
        if known is not None and known.published.run == published.run:
            raise EntryRefused(f"{published.model} v{published.version} of run {published.run} is published already")
        if known is not None and known.published.author.organisation != published.author.organisation:
            raise EntryRefused(
                f"{published.model} v{published.version} is {known.published.author.organisation}'s, "
                f"{published.author.organisation} needs a name of its own"
            )
        self.versions[published.model, published.version] = Version(published, index)

    def promote(self, entry: ModelPromoted | ModelRolledBack) -> None:
        """Move an alias to a version that is published, with the digest that it was published with."""
        version = self.versions.get((entry.model, entry.version))
        if version is None or version.published.digest != entry.digest:
            raise EntryRefused(f"{entry.model} v{entry.version} was not published with this digest")
        if version.published.author.organisation != entry.author.organisation:
            raise EntryRefused(f"{entry.author.organisation} did not publish {entry.model} v{entry.version}")
        if isinstance(entry, ModelRolledBack) and self.aliases.get((entry.model, entry.alias)) != entry.before:
            raise EntryRefused(f"{entry.alias} of {entry.model} is not at v{entry.before}")
        self.aliases[entry.model, entry.alias] = entry.version

    def offer(self, index: int, offered: ModelOffered) -> None:
        """Offer a version that its author published, with that digest; once more gives it a new card."""
        owner, model = offered.offer.split("/")
        self._offers_own(owner, offered.author.organisation, offered.offer)
        version = self.versions.get((model, offered.version))
        if version is None or version.published.author.organisation != owner:
            raise EntryRefused(f"{owner} has not published {model} v{offered.version} in this ledger")
        if version.published.digest != offered.digest:
            raise EntryRefused(f"{model} v{offered.version} was not published with this digest")
        self.offers[offered.offer, offered.version] = (index, offered)

    def withdraw(self, withdrawn: ModelWithdrawn) -> None:
        """Offer a version no longer."""
        self._offers_own(withdrawn.offer.split("/")[0], withdrawn.author.organisation, withdrawn.offer)
        _, offered = self.offers.get((withdrawn.offer, withdrawn.version), (0, None))
        if offered is None or offered.digest != withdrawn.digest:
            raise EntryRefused(f"{withdrawn.offer} v{withdrawn.version} is not on offer")
        del self.offers[withdrawn.offer, withdrawn.version]

    def refuse(self, refused: PolicyRefused) -> None:
        """Note that a policy refused a run; a run that is in the ledger must be the same one."""
        if refused.run in self.by_id:
            self._run(refused.run, refused.manifest, "")

    def members_of(self, run: str) -> tuple[str, ...]:
        """Return the members of a run that goes on. Raises EntryRefused if there is none of this name."""
        known = self._known(run)
        if known.state not in ("open", "suspended"):
            raise EntryRefused(f"run {run} is {known.state}")
        return tuple(known.opened.members)

    def _offers_own(self, owner: str, author: str, offer: str) -> None:
        if owner != author:
            raise EntryRefused(f"{author} cannot speak for {offer}: only {owner} can")

    def _known(self, name: str) -> Run:
        run = self.by_id.get(name)
        if run is None:
            raise EntryRefused(f"there is no run {name} in the ledger: it has to be opened first")
        return run

    def _run(self, name: str, manifest: str, state: str) -> Run:
        run = self._known(name)
        if manifest != run.opened.manifest:
            raise EntryRefused(f"run {name} was opened with another manifest")
        if run.state in ("finished", "aborted") or (state and run.state != state):
            raise EntryRefused(f"run {name} is {run.state}")
        return run

    def _going(self, name: str) -> Run:
        run = self._known(name)
        if run.state != "open":
            raise EntryRefused(f"run {name} is {run.state}")
        missing = [member for member in run.opened.members if member not in run.joined]
        if missing:
            raise EntryRefused(f"run {name} cannot go on: {', '.join(missing)} did not join")
        return run

    def _member(self, name: str, opened: RunOpened) -> None:
        if name not in opened.members:
            raise EntryRefused(f"{name} is not a member of run {opened.run}")
