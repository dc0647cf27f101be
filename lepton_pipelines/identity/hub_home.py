"""The hub's own folder: its authority, its keys, and whom it admitted."""

import datetime as dt
import json
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.identity.certificates import (
    HUB_NAME,
    LONGEST,
    Certificate,
    TlsKey,
    create_authority,
    issue,
    request_certificate,
)
from lepton_pipelines.identity.onboarding import Admission, Request, compare_fingerprints, hub_fingerprint
from lepton_pipelines.identity.private_files import make_private_folder, read_private, write_private
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.spec.errors import UserError


@dataclass(frozen=True)
class AdmittedMember:
    """An organisation as the hub knows it."""

    name: str
    signing_key: bytes
    certificate: str
    expires: dt.datetime
    revoked: str


class HubHome:
    """The folder (0700) with authority.key, tls.key, signing.key (0600) and members.sqlite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    @classmethod
    def create(
        cls, folder: Path, address: str, *, kept_days: int | None = None, now: dt.datetime | None = None
    ) -> "HubHome":
        """Draw the hub's keys and its authority. Raises UserError if the folder has some already.

        address: host:port that organisations dial; it is written into admissions. kept_days: how long its log keeps
        runs that are over; None: for ever.
        """
        home = cls(make_private_folder(folder))
        authority_key = TlsKey.generate()
        write_private(folder / "authority.key", authority_key.pem())
        write_private(folder / "authority.pem", create_authority(authority_key, now=now or dt.datetime.now(dt.UTC)))
        write_private(folder / "signing.key", SigningKey.generate().private.private_bytes_raw())
        write_private(folder / "tls.key", TlsKey.generate().pem())
        write_private(folder / "hub.json", json.dumps({"address": address, "kept_days": kept_days}).encode())
        return home

    @property
    def address(self) -> str:
        """host:port that organisations dial."""
        return str(self._settings()["address"])

    @property
    def kept_days(self) -> int | None:
        """For how many days the log keeps runs that are over; None: for ever. Raises UserError if it is no number."""
        days = self._settings().get("kept_days")
        if days is not None and (not isinstance(days, int) or isinstance(days, bool) or days < 1):
            raise UserError(f"{self.folder / 'hub.json'}: kept_days is {days!r}; write a number of days, 1 or more.")
        return days

    @property
    def authority(self) -> bytes:
        """The authority's certificate (PEM)."""
        return read_private(self.folder / "authority.pem", what="the hub's authority")

    @property
    def fingerprint(self) -> str:
        """What the operator reads out to organisations."""
        return hub_fingerprint(self.signer().public.hex(), self.authority.decode())

    def signer(self) -> SigningKey:
        """Load the hub's identity key."""
        return SigningKey.from_seed(read_private(self.folder / "signing.key", what="the hub's identity key"))

    def tls(self, *, now: dt.datetime | None = None) -> tuple[bytes, bytes]:
        """Return the TLS key and a fresh certificate for it (PEM)."""
        key = TlsKey.from_pem(read_private(self.folder / "tls.key", what="the hub's TLS key"))
        certificate = self._issue(request_certificate(key, HUB_NAME), HUB_NAME, self.signer().public, now, LONGEST)
        return key.pem(), certificate

    def admit(
        self,
        request: Request,
        *,
        fingerprint: str,
        now: dt.datetime | None = None,
        lifetime: dt.timedelta = LONGEST,
    ) -> Admission:
        """Certify an organisation after its fingerprint was compared.

        An organisation that is known under another key was lost and is replaced: its old certificates are revoked.
        Raises UserError if the fingerprint is another.
        """
        compare_fingerprints(shown=request.fingerprint, told=fingerprint, whose=request.organisation)
        return self._certify(request, now=now, lifetime=lifetime)

    def renew(self, request: Request, *, now: dt.datetime | None = None) -> Admission:
        """Certify a new TLS key of an organisation that is admitted, under the identity key it was admitted with."""
        member = self.member(request.organisation)
        if member is None or member.revoked or member.signing_key.hex() != request.signing_key:
            raise UserError(
                f"{request.organisation} is not admitted with this key: it is not renewed, but admitted anew."
            )
        return self._certify(request, now=now, lifetime=LONGEST)

    def revoke(self, name: str, reason: str) -> None:
        """Shut an organisation out from its next call on. Raises UserError if it is not known."""
        with self._lock, self._members() as database:
            changed = database.execute("UPDATE members SET revoked = ? WHERE name = ?", (reason, name)).rowcount
        if not changed:
            raise UserError(f"{name} was never admitted: there is nothing to revoke.")

    def member(self, name: str) -> AdmittedMember | None:
        """Return what is known of an organisation."""
        return next((member for member in self.members() if member.name == name), None)

    def members(self) -> list[AdmittedMember]:
        """Return all organisations that were ever admitted."""
        with self._lock, self._members() as database:
            rows = database.execute(
                "SELECT name, signing_key, certificate, expires, revoked FROM members ORDER BY name"
            )
            return [
                AdmittedMember(name, bytes(key), certificate, dt.datetime.fromtimestamp(expires, dt.UTC), revoked)
                for name, key, certificate, expires, revoked in rows
            ]

    def _settings(self) -> dict[str, object]:
        path = self.folder / "hub.json"
        try:
            told: dict[str, object] = json.loads(read_private(path, what="the hub's settings"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not JSON ({error}). Mend it, or restore it from a backup.") from error
        return told

    def _certify(self, request: Request, *, now: dt.datetime | None, lifetime: dt.timedelta) -> Admission:
        key = bytes.fromhex(request.signing_key)
        csr = request.certificate_request.encode()
        pem = self._issue(csr, request.organisation, key, now, lifetime)
        certificate = Certificate.read(pem)
        with self._lock, self._members() as database:
            database.execute(
                "INSERT INTO members (name, signing_key, certificate, expires, revoked) VALUES (?, ?, ?, ?, '') "
                "ON CONFLICT (name) DO UPDATE SET signing_key = excluded.signing_key, revoked = '', "
                "certificate = excluded.certificate, expires = excluded.expires",
                (request.organisation, key, certificate.fingerprint, certificate.expires.timestamp()),
            )
        signer = self.signer()
        return Admission(
            organisation=request.organisation,
            signing_key=request.signing_key,
            address=self.address,
            hub_key=signer.public.hex(),
            authority=self.authority.decode(),
            certificate=pem.decode(),
        ).signed(signer)

    def _issue(
        self, request: bytes, name: str, signing_key: bytes, now: dt.datetime | None, lifetime: dt.timedelta
    ) -> bytes:
        authority_key = TlsKey.from_pem(read_private(self.folder / "authority.key", what="the authority's key"))
        return issue(
            request,
            name=name,
            signing_key=signing_key,
            authority=self.authority,
            authority_key=authority_key,
            now=now or dt.datetime.now(dt.UTC),
            lifetime=lifetime,
        )

    def _members(self) -> sqlite3.Connection:
        if self._database is None:
            path = self.folder / "members.sqlite"
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS members (name TEXT PRIMARY KEY, signing_key BLOB NOT NULL, "
                "certificate TEXT NOT NULL, expires REAL NOT NULL, revoked TEXT NOT NULL)"
            )
        return self._database

    def close(self) -> None:
        """Close the members' list."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
