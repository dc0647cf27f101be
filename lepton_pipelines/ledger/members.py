"""Who is a member, by which key, and whose signatures an entry needs."""

from dataclasses import dataclass, field

from lepton_pipelines.ledger.entries import KeyRevoked, KeyRotated, MemberAdmitted
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.note import Verifier
from lepton_pipelines.ledger.statement import Entry

OPERATOR = "operator"


@dataclass
class Member:
    """An organisation in the ledger. key: None once it was revoked and no new one was admitted."""

    name: str
    key: Verifier | None
    admitted_at: int
    earlier: list[tuple[int, Verifier]] = field(default_factory=list)


class Members:
    """The members as the entries so far made them. The log's operator may admit and revoke, nothing else."""

    def __init__(self, operator: Verifier) -> None:
        self.operator = Verifier(OPERATOR, operator.raw)
        self.by_name: dict[str, Member] = {}
        self._used_keys: set[bytes] = {operator.raw}

    def key_of(self, name: str) -> Verifier:
        """Return the key by which an author signs now. Raises EntryRefused if it has none."""
        if name == OPERATOR:
            return self.operator
        member = self.by_name.get(name)
        if member is None:
            raise EntryRefused(f"{name} is not a member of this ledger: it has to be admitted first")
        if member.key is None:
            raise EntryRefused(f"{name} has no valid key: its last one was revoked; it has to be admitted anew")
        return member.key

    def verifiers(self) -> list[Verifier]:
        """Return the keys that are valid now, in the order of the members' names."""
        return [member.key for _, member in sorted(self.by_name.items()) if member.key is not None]

    def every_key(self) -> list[Verifier]:
        """Return every key that was ever valid: what cosignatures on earlier heads are checked against."""
        earlier = [key for member in self.by_name.values() for _, key in member.earlier]
        return self.verifiers() + earlier

    def required_signers(self, entry: Entry) -> list[Verifier]:
        """Return whose signatures this entry must have, no more and no fewer. Raises EntryRefused if none can do."""
        predicate = entry.predicate
        author = self.key_of(predicate.author.organisation)
        if predicate.author.key != author.key_id:
            raise EntryRefused(
                f"the entry names the key {predicate.author.key[:24]}… for {predicate.author.organisation}, "
                f"whose valid key is {author.key_id[:24]}…"
            )
        if isinstance(predicate, MemberAdmitted):
            return [author, Verifier(predicate.organisation, predicate.key.raw)]
        if isinstance(predicate, KeyRotated):
            return [author, Verifier(predicate.author.organisation, predicate.key.raw)]
        if author is self.operator and not isinstance(predicate, KeyRevoked):
            raise EntryRefused(f"the log's operator cannot write {predicate.KIND} entries: members do")
        return [author]

    def admit(self, index: int, predicate: MemberAdmitted) -> None:
        """Take a new member, or a new key for one whose key was revoked."""
        name = predicate.organisation
        if name == OPERATOR:
            raise EntryRefused(f"no organisation can be called {OPERATOR!r}: that is the log's operator")
        member = self.by_name.get(name)
        if member is not None and member.key is not None:
            raise EntryRefused(f"{name} is a member already: a new key is taken on by rotation")
        key = self._new_key(name, predicate.key.raw)
        if member is None:
            self.by_name[name] = Member(name, key, index)
        else:
            member.key = key

    def rotate(self, index: int, predicate: KeyRotated) -> None:
        """Replace a member's key."""
        name = predicate.author.organisation
        if name == OPERATOR:
            raise EntryRefused("the log's own key cannot be rotated: it is what makes the log this log")
        member = self.by_name[name]
        old = self.key_of(name)
        key = self._new_key(name, predicate.key.raw)
        member.earlier.append((index, old))
        member.key = key

    def revoke(self, index: int, predicate: KeyRevoked) -> None:
        """Take a member's key away."""
        if predicate.author.organisation not in (OPERATOR, predicate.organisation):
            raise EntryRefused(f"{predicate.author.organisation} cannot revoke a key of {predicate.organisation}")
        key = self.key_of(predicate.organisation)
        if predicate.organisation == OPERATOR or key.key_id != predicate.key:
            raise EntryRefused(f"{predicate.key[:24]}… is not the valid key of {predicate.organisation}")
        member = self.by_name[predicate.organisation]
        member.earlier.append((index, key))
        member.key = None

    def _new_key(self, name: str, raw: bytes) -> Verifier:
        if raw in self._used_keys:
            raise EntryRefused(f"the key for {name} was used before: every key belongs to one member, once")
        self._used_keys.add(raw)
        return Verifier(name, raw)
