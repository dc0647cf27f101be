"""Signing in with a key that stays at home: a challenge, its signature, and the session that comes of it.

What is signed names the portal's address, so that a portal that passes another's challenge on gets an answer that is of
no use there. Everything here lives in memory: a portal that is started again knows nobody.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lepton_pipelines.identity.signing import verified
from lepton_pipelines.portal.roles import Right, Role, rights_of

CHALLENGE_SECONDS = 120
SESSION_SECONDS = 8 * 3600
IDLE_SECONDS = 3600
_MOST = 10_000  # challenges, links or sessions at a time; the oldest go first

Clock = Callable[[], float]


def statement(address: str, name: str, organisation: str, roles: list[str], nonce: str) -> bytes:
    """Return the bytes that a key signs to sign in. roles: asked for; empty: all that the name has."""
    asked = ",".join(sorted(roles))
    return "\n".join(["lepton-portal-sign-in/v1", address, name, organisation, asked, nonce, ""]).encode()


@dataclass
class Session:
    """Someone who is signed in. key: that signed for it. csrf: what forms of this session carry."""

    name: str
    organisation: str
    key: bytes
    roles: frozenset[Role]
    csrf: str
    began: float
    seen: float

    @property
    def rights(self) -> frozenset[Right]:
        """What it may do."""
        return rights_of(self.roles)


@dataclass(frozen=True)
class _Kept:
    until: float
    session: Session


@dataclass
class Door:
    """Hands out challenges and keeps sessions. Tokens are kept as digests."""

    clock: Clock = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _challenges: dict[str, float] = field(default_factory=dict)
    _links: dict[str, _Kept] = field(default_factory=dict)
    _sessions: dict[str, Session] = field(default_factory=dict)

    def challenge(self) -> str:
        """Return a nonce that is good for one answer within two minutes."""
        nonce = secrets.token_hex(32)
        with self._lock:
            self._challenges[nonce] = self.clock() + CHALLENGE_SECONDS
            _bound(self._challenges)
        return nonce

    def answers(self, nonce: str, key: bytes, signature: bytes, signed: bytes) -> bool:
        """Tell whether a challenge of ours was answered with this key. It is used up either way."""
        with self._lock:
            until = self._challenges.pop(nonce, 0.0)
        return until >= self.clock() and verified(key, signature, signed)

    def open(self, name: str, organisation: str, key: bytes, roles: frozenset[Role]) -> Session:
        """Return a session that nobody holds yet."""
        now = self.clock()
        return Session(name, organisation, key, roles, secrets.token_urlsafe(32), now, now)

    def hand_out(self, session: Session) -> str:
        """Keep a session and return its token: the cookie."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(token)] = session
            _bound(self._sessions)
        return token

    def link(self, session: Session) -> str:
        """Return a ticket that opens the session in a browser, once, within two minutes."""
        ticket = secrets.token_urlsafe(32)
        with self._lock:
            self._links[_digest(ticket)] = _Kept(self.clock() + CHALLENGE_SECONDS, session)
            _bound(self._links)
        return ticket

    def behind(self, ticket: str, *, use: bool) -> Session | None:
        """Return the session of a ticket; None if it is used up or too old. use: use it up."""
        key = _digest(ticket)
        with self._lock:
            kept = self._links.pop(key, None) if use else self._links.get(key)
        return kept.session if kept is not None and kept.until >= self.clock() else None

    def session(self, token: str | None) -> Session | None:
        """Return the session of a cookie; None if there is none, or it has ended."""
        if not token:
            return None
        key, now = _digest(token), self.clock()
        with self._lock:
            found = self._sessions.get(key)
            if found is None:
                return None
            if now - found.began > SESSION_SECONDS or now - found.seen > IDLE_SECONDS:
                del self._sessions[key]
                return None
            found.seen = now
            return found

    def close(self, token: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_digest(token or ""), None)


def same(one: str, other: str) -> bool:
    """Compare two tokens in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _bound(kept: dict[str, object] | dict[str, float] | dict[str, _Kept] | dict[str, Session]) -> None:
    while len(kept) > _MOST:
        del kept[next(iter(kept))]
