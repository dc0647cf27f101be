"""Who calls a hub: whom a connection belongs to, whether it may call, and when each was last heard."""

import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import grpc

from lepton_pipelines.identity.certificates import Certificate
from lepton_pipelines.identity.hub_home import AdmittedMember, HubHome
from lepton_pipelines.spec.errors import UserError


class Callers:
    """The organisations that a hub admitted, as they call. home: the hub's folder. clock: monotonic, in seconds."""

    def __init__(self, home: HubHome, clock: Callable[[], float]) -> None:
        self._home, self._clock = home, clock
        self._certificates: dict[bytes, Certificate] = {}
        self._members: dict[str, AdmittedMember] = {}
        self._members_read = -math.inf
        self._heard: dict[str, float] = {}

    def who(self, context: Any) -> str:
        """Return whom the connection belongs to, or refuse it with the reason. context: of a call."""
        (pem,) = context.auth_context().get("x509_pem_cert", [b""])
        certificate = self._certificates.get(pem)
        if certificate is None:
            try:
                certificate = self._certificates[pem] = Certificate.read(pem)
            except UserError as error:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
                raise
        member = self.member(certificate.name)
        if member is None or member.revoked or member.signing_key != certificate.signing_key:
            self._members_read = -math.inf  # who was admitted a moment ago need not wait
            member = self.member(certificate.name)
        if member is None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{certificate.name} was never admitted to this hub")
            raise PermissionError
        if member.revoked:
            reason = f"{member.name} was shut out by the hub's operator: {member.revoked}"
            context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
        if member.signing_key != certificate.signing_key:
            reason = f"this certificate of {member.name} is for an identity key that was replaced"
            context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
        if certificate.expires < dt.datetime.now(dt.UTC):
            reason = f"the certificate of {member.name} expired on {certificate.expires:%Y-%m-%d}"
            context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)
        self._heard[member.name] = self._clock()
        return member.name

    def seconds_since_heard(self) -> dict[str, float]:
        """Return how long ago each organisation called, of those that did since the hub was started."""
        now = self._clock()
        return {name: now - heard for name, heard in list(self._heard.items())}

    def member(self, name: str) -> AdmittedMember | None:
        """Return what the members' list says, at most a second old: `lepton hub admit` and `revoke` write to it."""
        now = self._clock()
        if now - self._members_read > 1.0:
            self._members = {member.name: member for member in self._home.members()}
            self._members_read = now
        return self._members.get(name)
