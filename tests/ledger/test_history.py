"""The rules: who may say what, when, and how often."""

import pytest

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.envelope import Envelope
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.members import OPERATOR
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.predicate import PublicKey, fresh
from lepton_pipelines.ledger.statement import sign_entry

ORIGIN = "lepton.test/ledger"
A, B, C = "a" * 64, "b" * 64, "c" * 64
RUN = {"run": "r-1", "pipeline": "demo", "members": ["north", "valley"], "manifest": A, "spec": B, "code_version": "1"}
JOIN = {"run": "r-1", "manifest": A, "dataset": f"hmac-sha256:{C}"}
TREE = {"run": "r-1", "tree": 1, "model": A, "check": "passed"}
PRODUCT = {"product": "north/patients", "version": 1, "contract": A, "terms": B}
ASK = {"grant": "g-1", "product": "north/patients", "contract": A, "request": C, "purpose": "diagnosis"}
GIVE = ASK | {"to": "valley"}
USE = {"grant": "g-1", "product": "north/patients", "request": C, "run": "r-1"}


class Ledger:
    """A history, and the keys of north and valley, who are members, and of stranger, who is not."""

    def __init__(self):
        self.log = Signer.generate(ORIGIN)
        self.keys = {name: Signer.generate(name) for name in ("north", "valley", "stranger")}
        self.history = History(self.log.verifier)
        for name in ("north", "valley"):
            self.admit(name)

    def leaf(self, kind, by, /, signers=None, ledger=ORIGIN, **fields):
        key = self.log if by == OPERATOR else self.keys[by]
        common = fresh(by, key.verifier.key_id, ledger)
        return sign_entry(kind(**common, **fields), [key] if signers is None else signers)

    def say(self, kind, by, /, **fields):
        return self.history.take(self.leaf(kind, by, **fields))

    def admit(self, name, by=OPERATOR, key=None):
        key = key or self.keys[name]
        sponsor = self.log if by == OPERATOR else self.keys[by]
        self.say(
            entries.MemberAdmitted, by, signers=[sponsor, key], organisation=name, key=PublicKey.of(key.verifier.raw)
        )

    def run(self, trees=1):
        self.say(entries.RunOpened, "north", **RUN)
        for name in ("north", "valley"):
            self.say(entries.RunJoined, name, **JOIN)
        for tree in range(1, trees + 1):
            self.say(entries.TreeFinished, "north", **TREE | {"tree": tree})

    def finish(self, trees=1):
        self.say(entries.RunFinished, "north", run="r-1", manifest=A, trees=trees, model=B)


@pytest.fixture
def ledger():
    return Ledger()


def refused(ledger, reason, kind, by, /, **fields):
    before = ledger.history.size
    with pytest.raises(EntryRefused, match=reason):
        ledger.say(kind, by, **fields)
    assert ledger.history.size == before


def test_a_stranger_cannot_write(ledger):
    refused(ledger, "not a member", entries.RunOpened, "stranger", **RUN)


def test_an_entry_signed_with_anothers_key_is_refused(ledger):
    leaf = ledger.leaf(entries.RunOpened, "north", signers=[ledger.keys["valley"]], **RUN)
    with pytest.raises(EntryRefused, match="must be signed by north"):
        ledger.history.take(leaf)


def test_an_entry_that_names_anothers_key_as_the_authors_is_refused(ledger):
    common = fresh("north", ledger.keys["valley"].verifier.key_id, ORIGIN)
    with pytest.raises(EntryRefused, match="whose valid key is"):
        ledger.history.take(sign_entry(entries.RunOpened(**common, **RUN), [ledger.keys["valley"]]))


def test_a_forged_signature_is_refused(ledger):
    genuine = Envelope.unpack(ledger.leaf(entries.RunOpened, "north", **RUN))
    forged = Envelope(genuine.payload, dict.fromkeys(genuine.signatures, bytes(64)))
    with pytest.raises(EntryRefused, match="forged: the signature of north is wrong"):
        ledger.history.take(forged.pack())


def test_a_signature_more_than_needed_is_refused(ledger):
    leaf = ledger.leaf(entries.RunOpened, "north", signers=[ledger.keys["north"], ledger.keys["valley"]], **RUN)
    with pytest.raises(EntryRefused, match="and by no one else"):
        ledger.history.take(leaf)


def test_a_replayed_entry_is_refused(ledger):
    leaf = ledger.leaf(entries.RunOpened, "north", **RUN)
    ledger.history.take(leaf)
    with pytest.raises(EntryRefused, match="replay"):
        ledger.history.take(leaf)


def test_an_entry_of_another_ledger_is_refused(ledger):
    refused(ledger, "for another ledger, other/ledger", entries.RunOpened, "north", ledger="other/ledger", **RUN)


def test_the_operator_admits_and_revokes_and_nothing_else(ledger):
    refused(ledger, "operator cannot write run-opened", entries.RunOpened, OPERATOR, **RUN)


def test_a_member_can_sponsor_another(ledger):
    ledger.admit("stranger", by="north")
    assert set(ledger.history.members.by_name) == {"north", "valley", "stranger"}


def test_a_name_or_a_key_is_admitted_once(ledger):
    with pytest.raises(EntryRefused, match="member already"):
        ledger.admit("north", key=Signer.generate("north"))
    with pytest.raises(EntryRefused, match="was used before"):
        ledger.admit("stranger", key=Signer("stranger", ledger.keys["north"].key))


def test_nobody_is_admitted_without_showing_that_he_holds_the_key(ledger):
    key = PublicKey.of(ledger.keys["stranger"].verifier.raw)
    refused(
        ledger, "must be signed by", entries.MemberAdmitted, OPERATOR,
        signers=[ledger.log], organisation="stranger", key=key,
    )  # fmt: skip


def test_nobody_can_be_called_operator(ledger):
    with pytest.raises(EntryRefused, match="the log's operator"):
        ledger.admit(OPERATOR, key=Signer.generate(OPERATOR))


def test_after_rotation_the_old_key_is_worth_nothing_and_the_new_one_speaks(ledger):
    old, new = ledger.keys["north"], Signer.generate("north")
    ledger.say(entries.KeyRotated, "north", signers=[old, new], key=PublicKey.of(new.verifier.raw))
    refused(ledger, "whose valid key is", entries.RunOpened, "north", **RUN)
    ledger.keys["north"] = new
    ledger.say(entries.RunOpened, "north", **RUN)
    assert old.verifier in ledger.history.members.every_key()


def test_a_revoked_key_speaks_no_more_until_its_owner_is_admitted_anew(ledger):
    key = ledger.keys["valley"].verifier.key_id
    refused(ledger, "cannot revoke", entries.KeyRevoked, "north", organisation="valley", key=key, reason="spite")
    ledger.say(entries.KeyRevoked, OPERATOR, organisation="valley", key=key, reason="laptop lost")
    refused(ledger, "has no valid key", entries.RunJoined, "valley", **JOIN)
    ledger.keys["valley"] = Signer.generate("valley")
    ledger.admit("valley")
    ledger.say(entries.RunOpened, "north", **RUN)
    ledger.say(entries.RunJoined, "valley", **JOIN)


def test_a_whole_run_with_its_model_fits_the_rules(ledger):
    ledger.run(trees=2)
    ledger.finish(trees=2)
    ledger.say(entries.Evaluation, "north", run="r-1", model=B, metrics={"auc": 0.99}, rows=85)
    for version in (1, 2):
        ledger.say(entries.ModelPublished, "north", model="m", version=version, run="r-1", digest=B)
        ledger.say(entries.ModelPromoted, "north", model="m", version=version, alias="champion", digest=B)
    ledger.say(
        entries.ModelRolledBack, "north", model="m", version=1, before=2, alias="champion", digest=B, reason="worse"
    )
    run = ledger.history.runs.by_id["r-1"]
    assert (run.state, run.trees, run.model, sorted(run.joined)) == ("finished", 2, B, ["north", "valley"])
    assert ledger.history.runs.aliases == {("m", "champion"): 1}


def test_a_run_is_opened_once_by_and_among_members(ledger):
    refused(ledger, "names stranger", entries.RunOpened, "north", **RUN | {"members": ["north", "stranger"]})
    refused(ledger, "north is not a member of run", entries.RunOpened, "north", **RUN | {"members": ["valley"]})
    ledger.say(entries.RunOpened, "north", **RUN)
    refused(ledger, "there is a run r-1 already", entries.RunOpened, "north", **RUN)


def test_a_member_joins_once_under_the_manifest_of_the_run(ledger):
    refused(ledger, "no run r-1", entries.RunJoined, "valley", **JOIN)
    ledger.say(entries.RunOpened, "north", **RUN | {"disclosure_limit": 50})
    refused(ledger, "another manifest", entries.RunJoined, "valley", **JOIN | {"manifest": B})
    refused(ledger, "below the run's limit 50", entries.RunJoined, "valley", **JOIN | {"rows": 49})
    ledger.say(entries.RunJoined, "valley", **JOIN | {"rows": 50})
    refused(ledger, "joined run r-1 already", entries.RunJoined, "valley", **JOIN)


def test_no_tree_is_finished_before_every_member_has_joined(ledger):
    ledger.say(entries.RunOpened, "north", **RUN)
    ledger.say(entries.RunJoined, "north", **JOIN)
    refused(ledger, "valley did not join", entries.TreeFinished, "north", **TREE)


def test_trees_are_finished_in_order_by_members_for_members(ledger):
    ledger.run(trees=1)
    refused(ledger, "the next is 2, not 1", entries.TreeFinished, "north", **TREE)
    refused(ledger, "the next is 2, not 3", entries.TreeFinished, "north", **TREE | {"tree": 3})
    refused(ledger, "counts stranger", entries.TreeFinished, "north", **TREE | {"tree": 2, "sent": {"stranger": A}})


def test_a_suspended_run_must_be_resumed_and_an_ended_one_cannot(ledger):
    ledger.run()
    state = {"run": "r-1", "manifest": A, "trees": 1}
    ledger.say(entries.RunSuspended, "north", **state, missing=["valley"], reason="no answer")
    refused(ledger, "is suspended", entries.TreeFinished, "north", **TREE | {"tree": 2})
    refused(ledger, "has 1 trees, not 4", entries.RunResumed, "north", **state | {"trees": 4})
    ledger.say(entries.RunResumed, "north", **state)
    ledger.say(entries.RunAborted, "valley", **state, reason="digests differ")
    refused(ledger, "is aborted", entries.RunResumed, "north", **state)
    refused(ledger, "run r-1 is aborted", entries.ModelPublished, "north", model="m", version=1, run="r-1", digest=A)


def test_a_model_comes_from_a_finished_run_with_the_digest_it_was_published_with(ledger):
    ledger.run()
    version = {"model": "m", "version": 1}
    refused(ledger, "is open", entries.ModelPublished, "north", **version, run="r-1", digest=B)
    refused(ledger, "has not finished", entries.Evaluation, "north", run="r-1", model=B, metrics={})
    ledger.finish()
    ledger.say(entries.ModelPublished, "north", **version, run="r-1", digest=B)
    refused(ledger, "published already", entries.ModelPublished, "north", **version, run="r-1", digest=B)
    refused(ledger, "not published with this digest", entries.ModelPromoted, "north", **version, alias="c", digest=C)
    refused(ledger, "valley did not publish", entries.ModelPromoted, "valley", **version, alias="c", digest=B)


def test_a_policy_can_refuse_a_run_that_never_opened(ledger):
    ledger.say(entries.PolicyRefused, "valley", run="r-9", manifest=A, clause="max_depth", reason="12 is too deep")


def test_nobody_publishes_under_anothers_name(ledger):
    refused(ledger, "valley cannot speak for north/patients", entries.ProductPublished, "valley", **PRODUCT)


def test_a_product_is_published_once_and_its_versions_rise(ledger):
    ledger.say(entries.ProductPublished, "north", **PRODUCT)
    refused(ledger, "published already", entries.ProductPublished, "north", **PRODUCT)
    refused(ledger, "the next one is higher", entries.ProductChanged, "north", **PRODUCT)
    ledger.say(entries.ProductChanged, "north", **PRODUCT | {"version": 2})
    ledger.say(entries.ProductWithdrawn, "north", product="north/patients", contract=A, reason="ended")
    refused(ledger, "not on offer", entries.GrantAsked, "valley", **ASK)
    ledger.say(entries.ProductPublished, "north", **PRODUCT | {"version": 3})


@pytest.fixture
def granted(ledger):
    ledger.say(entries.ProductPublished, "north", **PRODUCT)
    ledger.say(entries.GrantAsked, "valley", **ASK)
    ledger.say(entries.GrantGiven, "north", **GIVE | {"runs": 1, "until": "2999-01-01T00:00:00Z"})
    ledger.say(entries.RunOpened, "north", **RUN)
    return ledger


def test_a_grant_is_used_as_often_as_it_says(granted):
    granted.say(entries.GrantUsed, "north", **USE)
    refused(granted, "in use by run r-1 already", entries.GrantUsed, "north", **USE)
    granted.say(entries.RunOpened, "north", **RUN | {"run": "r-2"})
    refused(granted, "for 1 runs", entries.GrantUsed, "north", **USE | {"run": "r-2"})


def test_a_revoked_grant_is_not_used(granted):
    granted.say(entries.GrantRevoked, "north", grant="g-1", product="north/patients", request=C, reason="ended")
    refused(granted, "is revoked, not given", entries.GrantUsed, "north", **USE)


def test_a_grant_for_a_contract_that_changed_is_not_used(granted):
    granted.say(entries.ProductChanged, "north", **PRODUCT | {"version": 2, "contract": B})
    refused(granted, "changed after grant g-1 was given", entries.GrantUsed, "north", **USE)


def test_a_grant_is_for_the_one_who_asked_in_the_words_in_which_he_asked(ledger):
    ledger.say(entries.ProductPublished, "north", **PRODUCT)
    refused(ledger, "nobody asked", entries.GrantGiven, "north", **GIVE)
    ledger.say(entries.GrantAsked, "valley", **ASK)
    refused(ledger, "asked by valley, not north", entries.GrantGiven, "north", **GIVE | {"to": "north"})
    refused(ledger, "another purpose", entries.GrantGiven, "north", **GIVE | {"purpose": "marketing"})
    refused(ledger, "in these words", entries.GrantGiven, "north", **GIVE | {"request": A})
    refused(ledger, "valley cannot speak", entries.GrantGiven, "valley", **GIVE)
    ledger.say(entries.GrantRefused, "north", grant="g-1", product="north/patients", request=C, reason="clause 2")
    refused(ledger, "is refused, not asked", entries.GrantGiven, "north", **GIVE)


def test_an_expired_grant_is_not_used(ledger):
    ledger.say(entries.ProductPublished, "north", **PRODUCT)
    ledger.say(entries.GrantAsked, "valley", **ASK)
    ledger.say(entries.GrantGiven, "north", **GIVE | {"until": "2026-01-01T00:00:00Z"})
    ledger.say(entries.RunOpened, "north", **RUN)
    refused(ledger, "ended at 2026-01-01", entries.GrantUsed, "north", **USE)
