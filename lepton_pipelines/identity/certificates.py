"""TLS certificates: the hub's own authority, and what it issues to organisations for at most 90 days.

A certificate is for a connection. What an organisation states is signed with its Ed25519 key, which the certificate
names: a hub that issued itself a certificate in somebody's name could connect, and could not sign.
"""

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lepton_pipelines.spec.errors import UserError

HUB_NAME = "hub.lepton"  # what organisations ask for, wherever the hub is found: its own authority answers for it
LONGEST = dt.timedelta(days=90)
AUTHORITY = dt.timedelta(days=3650)
CLOCKS = dt.timedelta(days=2)  # certificates are valid from a little earlier: clocks differ
_KEY_PREFIX = "lepton:key:"


@dataclass(frozen=True)
class TlsKey:
    """A P-256 key for connections. (gRPC's TLS takes no Ed25519 keys.)"""

    private: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> "TlsKey":
        """Draw a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> "TlsKey":
        """Read a key. Raises UserError if it is not one of ours."""
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UserError("the TLS key is not an elliptic-curve key. Create a new one with: lepton org request")
        return cls(key)

    def pem(self) -> bytes:
        """Return the private key, for the owner's own disk only."""
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.private.private_bytes(encoding, form, serialization.NoEncryption())


def create_authority(key: TlsKey, *, now: dt.datetime) -> bytes:
    """Return the hub's authority as a self-signed certificate (PEM)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lepton hub authority")])
    usage = _usage(sign_certificates=True)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.private.public_key()), critical=False)
        .sign(key.private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def request_certificate(key: TlsKey, name: str) -> bytes:
    """Return a signing request for an organisation's TLS key (PEM): it holds public halves only."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key.private, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def issue(
    request: bytes,
    *,
    name: str,
    signing_key: bytes,
    authority: bytes,
    authority_key: TlsKey,
    now: dt.datetime,
    lifetime: dt.timedelta = LONGEST,
) -> bytes:
    """Certify a TLS key for an organisation (or, under HUB_NAME, for the hub).

    request: signing request (PEM). signing_key: the Ed25519 key that the holder signs statements with.
    Raises UserError if the request is not signed by its own key, or is for longer than 90 days.
    """
    if lifetime > LONGEST:
        raise UserError(f"certificates live {LONGEST.days} days at most, {lifetime.days} were asked for.")
    try:
        asked = x509.load_pem_x509_csr(request)
    except ValueError as error:
        raise UserError(f"{name}: the certificate request is not one ({error}).") from error
    if not asked.is_signature_valid:
        raise UserError(f"{name}: the certificate request is not signed by the key that it is for.")
    public = asked.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise UserError(f"{name}: the certificate request is for a key that TLS here does not take.")
    issuer = x509.load_pem_x509_certificate(authority)
    use = ExtendedKeyUsageOID.SERVER_AUTH if name == HUB_NAME else ExtendedKeyUsageOID.CLIENT_AUTH
    key_name = x509.UniformResourceIdentifier(_KEY_PREFIX + signing_key.hex())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), key_name]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.private.public_key()), critical=False
        )
        .sign(authority_key.private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Certificate:
    """What a certificate says."""

    name: str
    signing_key: bytes
    expires: dt.datetime
    fingerprint: str

    @classmethod
    def read(cls, pem: bytes) -> "Certificate":
        """Read a certificate. Raises UserError if it is not one of a Lepton hub."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            key = bytes.fromhex(next(uri for uri in uris if uri.startswith(_KEY_PREFIX)).removeprefix(_KEY_PREFIX))
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except (ValueError, StopIteration, x509.ExtensionNotFound) as error:
            raise UserError(f"this is no certificate of a Lepton hub ({error}).") from error
        digest = certificate.fingerprint(hashes.SHA256()).hex()
        return cls(str(name.value), key, certificate.not_valid_after_utc, digest)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
