"""Keys at home, requests and admissions, certificates."""

import datetime as dt
import json

import pytest

from lepton_pipelines.identity.certificates import Certificate
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.onboarding import read_admission, read_request
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.identity.signing import SigningKey, verified
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def hub(tmp_path):
    home = HubHome.create(tmp_path / "hub", "hub.example.org:7443")
    yield home
    home.close()


@pytest.fixture
def north(tmp_path):
    return OrganisationHome.create(tmp_path / "north", "north")


def admit(hub, home, **settings):
    request = home.request()
    admission = hub.admit(request, fingerprint=request.fingerprint, **settings)
    home.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
    return admission


def test_nothing_that_leaves_a_home_holds_a_private_key(hub, north):
    admission = admit(hub, north)
    sent = north.request().model_dump_json() + admission.model_dump_json()
    assert "PRIVATE" not in sent
    for home in (north.folder, hub.folder):
        for key in home.glob("*.key"):
            data = key.read_bytes()
            assert data.hex() not in sent and data.decode("latin-1") not in sent
            assert key.stat().st_mode & 0o777 == 0o600
        assert home.stat().st_mode & 0o777 == 0o700


def test_a_fingerprint_that_was_told_otherwise_stops_the_onboarding(hub, north):
    request = north.request()
    with pytest.raises(UserError, match=r"(?s)the fingerprint of north is.*These keys differ"):
        hub.admit(request, fingerprint="0000 1111")
    told = request.fingerprint.upper().replace(" ", ":")
    admission = hub.admit(request, fingerprint=told)
    with pytest.raises(UserError, match="the fingerprint of the hub is"):
        north.accept(admission.model_dump_json().encode(), fingerprint=request.fingerprint)


def test_a_request_or_admission_that_was_altered_on_its_way_is_refused(hub, north):
    request = json.loads(north.request().model_dump_json())
    request["organisation"] = "south"
    with pytest.raises(UserError, match="the request of south is not signed by its own key"):
        read_request(json.dumps(request).encode())
    admission = json.loads(admit(hub, north).model_dump_json())
    admission["address"] = "elsewhere:1"
    with pytest.raises(UserError, match="not signed by the hub that it names"):
        read_admission(json.dumps(admission).encode())
    for data in (b"", b"{}", b"[1]", b"\x80\x04.", b"x" * 100_000):
        with pytest.raises(UserError):
            read_request(data)


def test_certificates_live_90_days_at_most_and_an_expired_one_says_what_to_do(hub, north):
    with pytest.raises(UserError, match="certificates live 90 days at most, 91 were asked for"):
        admit(hub, north, lifetime=dt.timedelta(days=91))
    now = dt.datetime.now(dt.UTC)
    admission = admit(hub, north)
    certificate = Certificate.read(admission.certificate.encode())
    assert certificate.name == "north" and certificate.signing_key == north.signer().public
    assert dt.timedelta(days=89) < certificate.expires - now <= dt.timedelta(days=90, seconds=5)
    with pytest.raises(UserError, match=r"north's certificate expired on .* Ask for a new one: lepton org request"):
        north.credentials(now=now + dt.timedelta(days=91))


def test_keys_are_not_overwritten_and_not_read_when_others_can(hub, north):
    with pytest.raises(UserError, match="exists already"):
        OrganisationHome.create(north.folder, "north")
    (north.folder / "signing.key").chmod(0o644)
    with pytest.raises(UserError, match=r"can be read by others \(mode 644\). Run: chmod 600"):
        north.signer()
    (north.folder / "signing.key").unlink()
    with pytest.raises(UserError, match="the identity key is missing"):
        north.signer()
    assert "private" not in repr(SigningKey.generate()).replace("Ed25519PrivateKey", "").replace("private=", "")


def test_an_admission_for_another_home_is_not_accepted(hub, north, tmp_path):
    again = OrganisationHome.create(tmp_path / "again", "north")
    request = again.request()
    admission = hub.admit(request, fingerprint=request.fingerprint)
    with pytest.raises(UserError, match="with another identity key than this home has"):
        north.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)


def test_who_is_revoked_is_not_renewed_and_may_be_admitted_anew(hub, north):
    admit(hub, north)
    hub.revoke("north", "left the consortium")
    assert hub.member("north").revoked == "left the consortium"
    with pytest.raises(UserError, match="north is not admitted with this key"):
        hub.renew(north.request())
    admit(hub, north)
    assert hub.member("north").revoked == ""
    with pytest.raises(UserError, match="nobody was never admitted"):
        hub.revoke("nobody", "x")


def test_other_organisations_keys_are_trusted_after_their_fingerprint_was_compared(north, tmp_path):
    valley = OrganisationHome.create(tmp_path / "valley", "valley")
    request = valley.request()
    with pytest.raises(UserError, match="the fingerprint of valley is"):
        north.trust(request.model_dump_json().encode(), fingerprint="12")
    north.trust(request.model_dump_json().encode(), fingerprint=request.fingerprint)
    assert north.trusted() == {"valley": valley.signer().public}


def test_a_signature_is_for_one_statement_of_one_key():
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"statement")
    assert verified(key.public, signature, b"statement")
    assert not verified(key.public, signature, b"another")
    assert not verified(other.public, signature, b"statement")
    assert not verified(b"short", signature, b"statement")
    assert not verified(key.public, b"", b"statement")
