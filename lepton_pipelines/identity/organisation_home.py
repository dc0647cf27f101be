"""An organisation's own folder: its keys, its certificate, and the hub that it trusts. Nobody else reads it."""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.identity.certificates import Certificate, TlsKey, request_certificate
from lepton_pipelines.identity.onboarding import Admission, Request, compare_fingerprints, read_admission, read_request
from lepton_pipelines.identity.private_files import make_private_folder, read_private, write_private
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.spec.errors import UserError


@dataclass(frozen=True)
class Credentials:
    """What a connection to the hub needs, in memory."""

    organisation: str
    address: str
    authority: bytes
    certificate: bytes
    tls_key: bytes
    hub_key: bytes
    expires: dt.datetime

    def __repr__(self) -> str:
        """Show no key."""
        return f"Credentials({self.organisation} at {self.address}, until {self.expires:%Y-%m-%d})"


@dataclass(frozen=True)
class OrganisationHome:
    """The folder (0700) with signing.key, tls.key (0600), admission.json and the runs."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, organisation: str) -> "OrganisationHome":
        """Draw the organisation's keys. Raises UserError if the folder has some already."""
        home = cls(make_private_folder(folder))
        key = SigningKey.generate()
        write_private(home.folder / "signing.key", key.private.private_bytes_raw())
        write_private(home.folder / "organisation.json", json.dumps({"organisation": organisation}).encode())
        write_private(home.folder / "tls.key", TlsKey.generate().pem())
        return home

    @property
    def organisation(self) -> str:
        """The organisation's name."""
        data = read_private(self.folder / "organisation.json", what="the organisation's name")
        return str(json.loads(data)["organisation"])

    def signer(self) -> SigningKey:
        """Load the identity key."""
        return SigningKey.from_seed(read_private(self.folder / "signing.key", what="the identity key"))

    def request(self) -> Request:
        """Return what goes to a hub's operator: public halves only, signed."""
        signer = self.signer()
        tls = TlsKey.from_pem(read_private(self.folder / "tls.key", what="the TLS key"))
        pem = request_certificate(tls, self.organisation).decode()
        request = Request(organisation=self.organisation, signing_key=signer.public.hex(), certificate_request=pem)
        return request.signed(signer)

    def accept(self, data: bytes, *, fingerprint: str) -> Admission:
        """Take a hub's admission, after its fingerprint was compared.

        Raises UserError if the fingerprint is another, or the certificate is not for this organisation's keys.
        """
        admission = read_admission(data)
        compare_fingerprints(shown=admission.fingerprint, told=fingerprint, whose="the hub")
        self._keep(admission)
        return admission

    def renew(self, data: bytes) -> Admission:
        """Take a new certificate from the hub that is trusted already."""
        admission, known = read_admission(data), self.admission()
        if (admission.hub_key, admission.authority) != (known.hub_key, known.authority):
            raise UserError("the renewed certificate comes with another hub's keys. Ask the operator, and accept anew.")
        self._keep(admission)
        return admission

    def _keep(self, admission: Admission) -> None:
        certificate = Certificate.read(admission.certificate.encode())
        mine = self.signer().public
        if (certificate.name, certificate.signing_key) != (self.organisation, mine):
            raise UserError(
                f"the certificate is for {certificate.name} with another identity key than this home has. "
                "Send the hub a request from this home: lepton org request"
            )
        write_private(self.folder / "admission.json", admission.model_dump_json().encode(), replace=True)

    def admission(self) -> Admission:
        """Return the hub's admission. Raises UserError if there is none yet."""
        if not (self.folder / "admission.json").exists():
            raise UserError(
                f"{self.organisation} is not admitted to a hub yet. Send the file that `lepton org request` writes to "
                "the hub's operator, and take the answer in with: lepton org accept"
            )
        return read_admission(read_private(self.folder / "admission.json", what="the hub's admission"))

    def trust(self, data: bytes, *, fingerprint: str) -> Request:
        """Take another organisation's key, after its fingerprint was compared with that organisation itself.

        data: the request file that it wrote. A hub could show keys of its own making: that is why people compare.
        """
        request = read_request(data)
        compare_fingerprints(shown=request.fingerprint, told=fingerprint, whose=request.organisation)
        known = {name: key.hex() for name, key in self.trusted().items()}
        known[request.organisation] = request.signing_key
        write_private(self.folder / "trusted.json", json.dumps(known, indent=1).encode(), replace=True)
        return request

    def trusted(self) -> dict[str, bytes]:
        """Return the keys of other organisations that were compared here."""
        path = self.folder / "trusted.json"
        if not path.exists():
            return {}
        known: dict[str, str] = json.loads(read_private(path, what="the list of trusted organisations"))
        return {name: bytes.fromhex(key) for name, key in known.items()}

    def credentials(self, *, now: dt.datetime | None = None) -> Credentials:
        """Return what a connection needs. Raises UserError if the certificate has expired."""
        admission = self.admission()
        certificate = Certificate.read(admission.certificate.encode())
        if certificate.expires < (now or dt.datetime.now(dt.UTC)):
            raise UserError(
                f"{self.organisation}'s certificate expired on {certificate.expires:%Y-%m-%d}. Ask for a new one: "
                "lepton org request, then lepton hub admit at the hub, then lepton org accept"
            )
        return Credentials(
            organisation=self.organisation,
            address=admission.address,
            authority=admission.authority.encode(),
            certificate=admission.certificate.encode(),
            tls_key=read_private(self.folder / "tls.key", what="the TLS key"),
            hub_key=bytes.fromhex(admission.hub_key),
            expires=certificate.expires,
        )

    def run_folder(self, run: str) -> Path:
        """Return the folder of one run: its journal and its checkpoints."""
        return make_private_folder(make_private_folder(self.folder / "runs") / run)
