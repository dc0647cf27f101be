"""From what the ledger adds up to, to what is shown: organisations, products, requests, models, entries."""

import base64
import time
from typing import Any

from lepton_pipelines.ledger.documents import decode
from lepton_pipelines.ledger.errors import DocumentRefused, LedgerError
from lepton_pipelines.ledger.lineage import trace
from lepton_pipelines.ledger.note import cosigners
from lepton_pipelines.ledger.predicate import Predicate
from lepton_pipelines.ledger.proof import Proof
from lepton_pipelines.ledger.statement import read_entry
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.market import catalogue, models
from lepton_pipelines.market.algorithms import AlgorithmOffer
from lepton_pipelines.market.catalogue import Offer
from lepton_pipelines.market.compatibility import obstacles
from lepton_pipelines.market.models import ModelOffer
from lepton_pipelines.portal import messages
from lepton_pipelines.portal.lineage import lineage_of
from lepton_pipelines.portal.stand import Reading, Snapshot, Stand
from lepton_pipelines.spec.errors import UserError

_COMMON = {"ledger", "id", "time", "author"}


class NotThere(UserError):  # noqa: N818
    """What was asked for is not in the ledger."""


def organisations(stand: Stand) -> list[messages.Organisation]:
    """Return the ledger's members, by name, and how each stands."""
    snapshot = stand.snapshot()
    history, trusted = snapshot.history, stand.home.trusted()
    seen = seen_by(snapshot)
    return [
        messages.Organisation(
            name=name,
            key=None if member.key is None else member.key.key_id,
            admitted_at=member.admitted_at,
            cosigned=name in seen,
            own=name == stand.organisation,
            trusted=member.key is not None and trusted.get(name) == member.key.raw,
            products=sorted(
                each for each, one in history.grants.products.items() if one.owner == name and not one.withdrawn
            ),
            runs=sum(name in run.members for run in history.runs.by_id.values()),
            models=sum(one.published.author.organisation == name for one in history.runs.versions.values()),
            seconds_since_heard=None if stand.heard is None else stand.heard.ago(name),
        )
        for name, member in sorted(history.members.by_name.items())
    ]


def seen_by(snapshot: Snapshot) -> list[str]:
    """Return who has cosigned the newest head, by name."""
    if snapshot.view.note is None:
        return []
    return sorted(cosigners(snapshot.view.note, snapshot.history.members.every_key()))


def product(offer: Offer) -> messages.ProductDetail:
    """Return a product with its columns and terms."""
    columns = [
        messages.Column(
            name=each.name, role=each.role, kind=each.kind, unit=each.unit or None, description=each.description or None
        )
        for each in offer.contract.columns
    ]
    return messages.ProductDetail(
        **offer.summary(),
        owner=offer.entry.owner,
        description=str(offer.description.get("description", "")),
        index=offer.entry.index,
        terms=offer.terms.model_dump(mode="json", exclude_none=True),
        column_list=columns,
        croissant=offer.description,
    )


def compatibility(stand: Stand, products: list[str]) -> messages.Compatibility:
    """Say whether products can be trained on together, column by column."""
    market = stand.market()
    found = obstacles({name: catalogue.offer(market, name).contract for name in products})
    told = [messages.Obstacle(products=list(each.products), column=each.column, problem=each.problem) for each in found]
    return messages.Compatibility(compatible=not found, obstacles=told)


def requests(stand: Stand, product: str | None = None) -> list[messages.Asked]:
    """Return all requests, those that this organisation has to decide first, then the newest."""
    market = stand.market()
    grants = market.history().grants.by_id
    found = [
        messages.Asked(
            **one,
            to_decide=one["state"] == "asked" and one["product"].split("/")[0] == stand.organisation,
            index=grants[one["product"], one["grant"]].index,
        )
        for one in catalogue.usage(market, product)
    ]
    return sorted(found, key=lambda one: (not one.to_decide, -one.index))


def request(stand: Stand, product: str, number: str) -> messages.AskedDetail:
    """Return one request with its text. Raises MarketRefused if there is none."""
    market = stand.market()
    grant = catalogue.grant_of(market, product, number)
    one = next(each for each in requests(stand, product) if each.grant == number)
    return messages.AskedDetail(**one.model_dump(), **_text(market, grant.asked.request), time=grant.asked.time)


def _text(market: Reading, digest: str) -> dict[str, Any]:
    """Return what a request's document says, as far as it says it in the form that ours have."""
    try:
        text = decode(market.get(digest))
    except (DocumentRefused, ValueError, RecursionError):
        return {}
    if not isinstance(text, dict):
        return {}
    forms = {"algorithm": ("algorithm", str), "runs": ("runs_asked", int), "until": ("until_asked", str)}
    told = {name: text[key] for key, (name, form) in forms.items() if isinstance(text.get(key), form)}
    members = text.get("members")
    told["members"] = [str(each) for each in members] if isinstance(members, list) else []
    return {**told, "message": str(text.get("message") or "")}


def published(stand: Stand, text: str = "") -> list[messages.Model]:
    """Return every published version of every model, the newest first, whose listing holds all these words."""
    market = stand.market()
    history = market.history()
    offered = {(one.id, one.version): one for one in models.model_offers(market)}
    found = []
    for (name, number), version in history.runs.versions.items():
        offer = offered.get((f"{version.published.author.organisation}/{name}", number))
        found.append(_model(stand, name, number, offer))
    words = text.lower().split()
    shown = [one for one in found if all(word in _words(one) for word in words)]
    return sorted(shown, key=lambda one: -one.index)


def model(stand: Stand, name: str, number: int) -> messages.ModelDetail:
    """Return a version with its lineage. Raises NotThere if the ledger does not know it."""
    market = stand.market()
    history = market.history()
    version = history.runs.versions.get((name, number))
    if version is None:
        raise NotThere(f"the ledger does not know {name} v{number}.")
    offers = {(one.id, one.version): one for one in models.model_offers(market)}
    offer = offers.get((f"{version.published.author.organisation}/{name}", number))
    run = history.runs.by_id[version.published.run]
    return messages.ModelDetail(
        **_model(stand, name, number, offer).model_dump(),
        members=run.members,
        lineage=lineage_of(history, name, number),
        card=None if offer is None else offer.card.model_dump(mode="json", exclude_none=True),
    )


def algorithm(offer: AlgorithmOffer) -> messages.AlgorithmDetail:
    """Return an algorithm with everything that its card says."""
    card = offer.card
    return messages.AlgorithmDetail(
        **offer.summary(),
        description=card.description,
        entry_point=card.entry_point,
        distribution=card.distribution,
        requires=card.requires,
        file=card.file,
        size=card.size,
        sums=[messages.SummedVector(name=one.name, what=one.what, reveals=one.reveals) for one in card.sums],
        parameters=card.parameters,
        card=offer.card_digest,
    )


def ledger(stand: Stand, first: int | None, limit: int) -> messages.Ledger:
    """Return a stretch of the ledger. first: its first entry; None: the last `limit` ones."""
    snapshot = stand.snapshot()
    view = snapshot.view
    start = max(view.size - limit, 0) if first is None else first
    entries = [
        entry(index, read_entry(view.entry(index)).predicate) for index in range(start, min(view.size, start + limit))
    ]
    return messages.Ledger(
        origin=snapshot.history.ledger,
        size=view.size,
        root=view.root.hex(),
        cosigned_by=seen_by(snapshot),
        behind=stand.behind,
        entries=entries,
    )


def entry(index: int, predicate: Predicate) -> messages.Entry:
    """Return an entry as it is shown."""
    return messages.Entry(
        index=index,
        kind=predicate.KIND,
        time=predicate.time,
        author=predicate.author.organisation,
        what=predicate.model_dump(mode="json", exclude_none=True, exclude=_COMMON),
    )


def entry_at(stand: Stand, index: int) -> messages.Entry:
    """Return one entry. Raises NotThere if there is none of this number."""
    view = stand.snapshot().view
    if not 0 <= index < view.size:
        raise NotThere(f"there is no entry {index}: {view.size} entries count from 0.")
    return entry(index, read_entry(view.entry(index)).predicate)


def proof(stand: Stand, index: int) -> messages.ProofOfEntry:
    """Prove that an entry is in the ledger, under its newest head."""
    view = stand.snapshot().view
    if view.note is None or not 0 <= index < view.size:
        raise NotThere(f"there is no entry {index}: {view.size} entries count from 0.")
    hashes = view.inclusion_proof(index, view.size)
    leaf = view.entry(index)
    return messages.ProofOfEntry(
        index=index,
        size=view.size,
        leaf=base64.b64encode(leaf).decode(),
        hashes=[base64.b64encode(each).decode() for each in hashes],
        root=base64.b64encode(view.root).decode(),
        proof=str(Proof(leaf, index, tuple(hashes), view.note)),
    )


def verify(stand: Stand) -> messages.Verification:
    """Recompute every hash, signature and rule of the ledger's files, now."""
    started = time.monotonic()
    try:
        verified = verify_ledger(stand.ledger)
    except LedgerError as error:
        return messages.Verification(holds=False, seconds=time.monotonic() - started, problems=error.problems)
    return messages.Verification(
        holds=True,
        seconds=time.monotonic() - started,
        size=verified.head.size,
        proved=verified.proved,
        not_proved=verified.not_proved,
    )


def model_proof(stand: Stand, name: str, number: int) -> messages.ModelProof:
    """Recompute the ledger's files, and return what they prove of a version. Raises NotThere if there is none."""
    known = stand.snapshot().history.runs.versions.get((name, number))
    if known is None:
        raise NotThere(f"the ledger has no {name} v{number}.")
    lineage = trace(verify_ledger(stand.ledger), name, number, known.published.digest)
    publisher, digest = known.published.author.organisation, known.published.digest
    # The walk was begun at the ledger's own digest: no file was looked at, so the first step proves nothing.
    proved = [
        f"{publisher} published {name} v{number} with the digest {digest} (entry {known.index})",
        *lineage.proved[1:],
    ]
    unseen = "that the file which is served has this digest: lepton model verify looks, where it is served"
    return messages.ModelProof(proved=proved, not_proved=[*lineage.not_proved, unseen])


def _model(stand: Stand, name: str, number: int, offer: ModelOffer | None) -> messages.Model:
    history = stand.snapshot().history
    version = history.runs.versions[name, number]
    run = history.runs.by_id.get(version.published.run)
    scores: dict[str, Any] = {} if run is None else {k: v for _, one in run.evaluations for k, v in one.metrics.items()}
    return messages.Model(
        model=name,
        version=number,
        publisher=version.published.author.organisation,
        published=version.published.time,
        run=version.published.run,
        digest=version.published.digest,
        index=version.index,
        aliases=sorted(
            alias for (each, alias), holds in history.runs.aliases.items() if (each, holds) == (name, number)
        ),
        offer=None if offer is None else offer.id,
        title=None if offer is None else offer.card.title,
        licence=None if offer is None else offer.card.licence,
        scores=scores,
    )


def _words(one: messages.Model) -> str:
    return " ".join([one.model, one.publisher, one.run, one.title or "", one.licence or "", *one.aliases]).lower()
