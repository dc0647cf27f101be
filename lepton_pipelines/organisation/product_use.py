"""Keeps the terms of an organisation's data product where its rows are: before a run, and again at each tree.

The organisation believes nobody but its own copy of the ledger. A grant that is revoked in mid-run stops the run at its
next tree; what a clause refuses is noted in the ledger by the clause's name.
"""

import logging
from pathlib import Path

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.note import Verifier
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.market.errors import TermsRefused
from lepton_pipelines.market.guard import allowed, check_grant
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.terms import Use
from lepton_pipelines.organisation.hub_record import HubRecord
from lepton_pipelines.organisation.market_place import HubMarket, LocalMarket, history_below
from lepton_pipelines.organisation.recording import ledger_folder, manifest_of, use_of
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import Pipeline

_log = logging.getLogger("lepton.market")
UNKNOWN_LOG = Verifier("none", bytes(32))  # of a ledger that is not there yet: nothing is published in it
_Stamp = tuple[tuple[int, int], ...]


class ProductUse:
    """One run's use of one organisation's product.

    run: empty for a check without a run, which leaves nothing in the ledger. record: of a run at a hub.
    """

    def __init__(
        self, pipeline: Pipeline, organisation: Organisation, var: Path, run: str, record: HubRecord | None = None
    ) -> None:
        self.product = f"{organisation.organisation}/{organisation.product}"
        self.use: Use = use_of(pipeline, run)
        self.grant: str | None = None
        self._pipeline, self._name, self._var, self._run = pipeline, organisation.organisation, var, run
        self._record = record
        self._place: Place = LocalMarket(var, self._name) if record is None else HubMarket(record.home)
        self._read: tuple[_Stamp, History] | None = None

    def begin(self) -> None:
        """Find the grant under which the run may use the product. Raises TermsRefused, naming the clause."""
        try:
            if self._record is not None:
                self._record.ledger.enter()
            history = self._history() or History(UNKNOWN_LOG)
            self.grant = allowed(history, self._place.get, self.product, self.use)
        except TermsRefused as error:
            self._note(error)
            raise

    def check(self) -> None:
        """Look again whether the grant still stands. Raises TermsRefused if it does not."""
        history = self._history()
        if self.grant is None or history is None:
            return
        try:
            check_grant(history, self._place.get, self.product, self.grant, self.use)
        except TermsRefused as error:
            self._note(error)
            raise

    def say(self) -> None:
        """Say in the ledger of a run at a hub that it uses the product; once is enough."""
        history = self._history()
        if self.grant is None or history is None or self._record is None:
            return
        known = history.grants.by_id[self.product, self.grant]
        if self._run not in known.used_by:
            self._record.ledger.record(
                entries.GrantUsed,
                grant=self.grant,
                product=self.product,
                request=known.asked.request,
                run=self._run,
            )

    def _history(self) -> History | None:
        """Return what the organisation's own replica says; read anew only if its files have changed."""
        if self._record is not None:
            return self._record.ledger.history
        folder = ledger_folder(self._var, self._name)
        stamp = tuple(_stamp(folder / name) for name in ("journal", "checkpoint"))
        if self._read is None or self._read[0] != stamp:
            history = history_below(self._var, self._name)
            if history is None:
                return None
            self._read = (stamp, history)
        return self._read[1]

    def _note(self, refused: TermsRefused) -> None:
        """Note in the ledger that a clause refused the run; the refusal itself is what matters, and is raised."""
        if not self._run or self._history() is None:
            return
        told = {"run": self._run, "clause": refused.clause, "reason": f"the terms of {self.product}"}
        try:
            if self._record is not None:
                self._record.ledger.record(entries.PolicyRefused, manifest=self._record.manifest, **told)
            else:
                manifest = digest_of(manifest_of(self._pipeline, self._run))
                self._place.record(entries.PolicyRefused, manifest=manifest, **told)
        except UserError as error:
            _log.warning("%s: the refusal could not be noted in the ledger: %s", self.product, error)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
