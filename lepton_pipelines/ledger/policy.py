"""Whose signatures count, as a file that other tools read too: C2SP `tlog-policy`.

A replica's policy pins the log's key from the day on which the replica was made, and lists the members' keys as the
ledger has them. Someone who trusts less brings a policy of their own to `lepton ledger verify`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton_pipelines.ledger.durable_file import write_durably
from lepton_pipelines.ledger.errors import LedgerDamaged, ProofRefused
from lepton_pipelines.ledger.note import COSIGNATURE, LOG_SIGNATURE, Verifier

FILE_NAME = "policy"


@dataclass
class Policy:
    """The log, witnesses by name, groups (name → how many of whom), and the group or witness that is the quorum."""

    log: Verifier
    witnesses: dict[str, Verifier] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    quorum: str = "none"

    def satisfied_by(self, cosigners: Sequence[str]) -> bool:
        """Tell whether these witnesses (by the names of their keys) make a quorum."""
        return self.quorum == "none" or self._reached(self.quorum, frozenset(cosigners))

    def __str__(self) -> str:
        """Write the policy file."""
        lines = [f"log {self.log.vkey(LOG_SIGNATURE)}"]
        lines += [f"witness {name} {key.vkey(COSIGNATURE)}" for name, key in self.witnesses.items()]
        for name, (needed, members) in self.groups.items():
            many = "all" if needed == len(members) else str(needed)
            lines.append(f"group {name} {many} {' '.join(members)}")
        return "".join(f"{line}\n" for line in [*lines, f"quorum {self.quorum}"])

    def _reached(self, name: str, cosigners: frozenset[str]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name].name in cosigners
        needed, members = self.groups[name]
        return sum(self._reached(member, cosigners) for member in members) >= needed

    @staticmethod
    def of(log: Verifier, members: Sequence[Verifier]) -> "Policy":
        """Make the policy under which every member must have cosigned."""
        if not members:
            return Policy(log)
        names = tuple(member.name for member in members)
        return Policy(log, {member.name: member for member in members}, {"members": (len(names), names)}, "members")

    @staticmethod
    def parse(text: str) -> "Policy":
        """Read a policy file with one log. Raises ProofRefused, naming the line, where it departs from the format."""
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            if words and not words[0].startswith("#"):
                reader.take(words, f"line {number} of the policy")
        if reader.log is None or reader.quorum is None:
            raise ProofRefused("the policy lacks its log line or its quorum line")
        return Policy(reader.log, reader.witnesses, reader.groups, reader.quorum)


def read_policy(path: Path) -> Policy:
    """Read a policy file. Raises LedgerDamaged, naming the file, if it is missing or malformed."""
    try:
        return Policy.parse(path.read_text())
    except (OSError, UnicodeDecodeError, ProofRefused) as error:
        raise LedgerDamaged(f"{path} cannot be used: {error}") from error


def write_policy(folder: Path, policy: Policy) -> None:
    """Keep the policy of the replica in this folder."""
    path = folder / FILE_NAME
    if not path.exists() or path.read_text() != str(policy):
        write_durably(path, str(policy).encode())


class _Reader:
    """What the lines read so far say."""

    def __init__(self) -> None:
        self.log: Verifier | None = None
        self.witnesses: dict[str, Verifier] = {}
        self.groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.quorum: str | None = None
        self._grouped: set[str] = set()

    def take(self, words: list[str], where: str) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1 and self.log is None:
                self.log = Verifier.from_vkey(vkey, LOG_SIGNATURE)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._name(name, where)
                self.witnesses[name] = Verifier.from_vkey(vkey, COSIGNATURE)
            case ["group", name, many, *members] if members:
                self._name(name, where)
                self.groups[name] = (self._many(many, len(members), where), tuple(members))
                self._group(members, where)
            case ["quorum", name] if self.quorum is None and (name == "none" or self._known(name)):
                self.quorum = name
            case _:
                raise ProofRefused(f"{where} is not understood: {' '.join(words)[:80]!r}")

    def _known(self, name: str) -> bool:
        return name in self.witnesses or name in self.groups

    def _name(self, name: str, where: str) -> None:
        if name == "none" or self._known(name):
            raise ProofRefused(f"{where}: the name {name!r} is taken")

    def _many(self, text: str, members: int, where: str) -> int:
        needed = {"all": members, "any": 1}.get(text) or (int(text) if text.isdecimal() else 0)
        if not 1 <= needed <= members:
            raise ProofRefused(f"{where}: {text!r} of {members} is no threshold")
        return needed

    def _group(self, members: list[str], where: str) -> None:
        for member in members:
            if not self._known(member) or member in self._grouped:
                raise ProofRefused(f"{where}: {member!r} is not defined above, or is in two groups")
            self._grouped.add(member)
