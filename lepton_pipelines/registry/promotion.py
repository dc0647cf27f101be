"""Who is champion: moving the aliases of a registered model, with the reason on record, and back again.

A new version is `challenger`. Gates or a person make it `champion`; then it is no longer challenger, and it
remembers which version it replaced, so that a rollback finds its way back, over deleted versions too.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from lepton_pipelines.registry.gates import GateResult, passed
from lepton_pipelines.registry.publishing import CHALLENGER, MODEL_DIGEST_TAG, RUN_ID_TAG
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"

GATES_TAG = "lepton.gates"
OUTCOME_TAG = "lepton.outcome"
REASON_TAG = "lepton.reason"
DECIDED_BY_TAG = "lepton.decided_by"
DECIDED_AT_TAG = "lepton.decided_at"
REPLACES_TAG = "lepton.replaces"

Outcome = Literal["champion", "challenger", "waiting", "refused", "rolled back"]


@dataclass(frozen=True)
class Version:
    """A version of a registered model. run_id: of our run. digest: SHA-256 of the model file, hex."""

    number: str
    run_id: str
    digest: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Decision:
    """What became of a version, and why. champion: the version that is champion now, None if there is none."""

    model: str
    version: str
    outcome: Outcome
    champion: str | None
    reason: str

    @property
    def sentence(self) -> str:
        """The decision as one line: v2 → challenger: AUC +0.000, …, champion stays v1."""
        if self.outcome == "champion":
            return f"v{self.version} → champion: {self.reason}"
        stays = f"champion stays v{self.champion}" if self.champion else "there is no champion yet"
        waiting = ", waits for a person's decision" if self.outcome == "waiting" else ""
        target = "challenger" if self.outcome == "waiting" else self.outcome
        return f"v{self.version} → {target}{waiting}: {self.reason}, {stays}"


def holder(tracking: Tracking, model: str, alias: str) -> Version | None:
    """Return the version that holds an alias; None if none does, or if the version that did was deleted."""
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    try:
        number = client.get_registered_model(model).aliases.get(alias)
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return None if number is None else _version(client, model, str(number))


def read_version(tracking: Tracking, model: str, number: str) -> Version:
    """Return a version of a registered model. Raises UserError, with the versions that exist, if there is none."""
    return _existing(tracking.client(), model, number)


def settle(
    tracking: Tracking,
    model: str,
    version: str,
    results: Sequence[GateResult],
    *,
    promote: Literal["automatically", "ask"] = "automatically",
) -> Decision:
    """Decide on a published version from its gates, and move the aliases accordingly.

    Gates that all passed make it champion, or leave it challenger until a person decides (`promote: ask`). A
    failed gate leaves it challenger. Reasons and gates are recorded as tags of the version. Settling a version
    again that is champion, or that a person refused or rolled back, changes nothing.
    """
    client = tracking.client()
    found = _existing(client, model, version)
    champion = holder(tracking, model, CHAMPION)
    if champion is not None and champion.number == version:
        return Decision(model, version, "champion", version, found.tags.get(REASON_TAG, "it was promoted before"))
    if found.tags.get(OUTCOME_TAG) in ("refused", "rolled back"):
        outcome: Outcome = "refused" if found.tags[OUTCOME_TAG] == "refused" else "rolled back"
        reason = found.tags.get(REASON_TAG, "decided before")
        return Decision(model, version, outcome, _number(champion), reason)
    client.set_model_version_tag(model, version, GATES_TAG, json.dumps([asdict(one) for one in results]))
    if not passed(list(results)):
        reason = "; ".join(one.message.rstrip(".") for one in results if not one.passed)
        return _record(client, model, version, "challenger", _number(champion), reason, "gates")
    reason = _why_passed(results)
    if promote == "ask":
        return _record(client, model, version, "waiting", _number(champion), reason, "gates")
    return _make_champion(client, model, found, champion, reason, "gates")


def _why_passed(results: Sequence[GateResult]) -> str:
    improvements = [one.message.rstrip(".") for one in results if one.kind == "champion"]
    if improvements:
        return "; ".join(improvements)
    return f"all {len(results)} gates passed" if results else "no gates are set"


def promote(tracking: Tracking, model: str, version: str, *, reason: str, by: str) -> Decision:
    """Make a version champion because a person says so. by: who. Raises UserError if there is no such version."""
    client = tracking.client()
    found = _existing(client, model, version)
    champion = holder(tracking, model, CHAMPION)
    if champion is not None and champion.number == version:
        return Decision(model, version, "champion", version, "it is champion already")
    return _make_champion(client, model, found, champion, reason, by)


def refuse(tracking: Tracking, model: str, version: str, *, reason: str, by: str) -> Decision:
    """Record that a person refused a challenger; it stays in the registry but is challenger no longer.

    Raises UserError if there is no such version, or if it is champion: that one is rolled back, not refused.
    """
    client = tracking.client()
    _existing(client, model, version)
    champion = holder(tracking, model, CHAMPION)
    if champion is not None and champion.number == version:
        raise UserError(f"{model} v{version} is champion. To take it back: lepton rollback {model}")
    _drop_alias(client, model, CHALLENGER, version)
    return _record(client, model, version, "refused", _number(champion), reason, by)


def rollback(tracking: Tracking, model: str, *, reason: str, by: str) -> Decision:
    """Make the previous champion champion again.

    Goes back from version to version by what each replaced, over those that were deleted since. Raises UserError
    if there is no champion or nothing to go back to.
    """
    client = tracking.client()
    champion = holder(tracking, model, CHAMPION)
    if champion is None:
        raise UserError(f"{model} has no champion to roll back. Make one with: lepton promote {model} --version N")
    previous = _previous(client, model, champion)
    if previous is None:
        raise UserError(
            f"{model} v{champion.number} replaced no version that still exists. Choose another one with: "
            f"lepton promote {model} --version N"
        )
    client.set_registered_model_alias(model, CHAMPION, previous.number)
    _record(client, model, champion.number, "rolled back", previous.number, reason, by)
    # The version keeps what it replaced when it was promoted: a second rollback goes further back, not forth.
    return _record(client, model, previous.number, "champion", previous.number, f"rolled back: {reason}", by)


def _previous(client: "MlflowClient", model: str, champion: Version) -> Version | None:
    """Follow what each champion replaced until a version is found that exists."""
    for number in champion.tags.get(REPLACES_TAG, "").split():
        found = _version(client, model, number)
        if found is not None:
            return found
    return None


def _make_champion(
    client: "MlflowClient", model: str, found: Version, champion: Version | None, reason: str, by: str
) -> Decision:
    """Move the alias. A champion remembers all versions that led to it, newest first: any may be deleted later."""
    line = "" if champion is None else f"{champion.number} {champion.tags.get(REPLACES_TAG, '')}".strip()
    line = " ".join(number for number in line.split() if number != found.number)
    client.set_model_version_tag(model, found.number, REPLACES_TAG, line)
    client.set_registered_model_alias(model, CHAMPION, found.number)
    _drop_alias(client, model, CHALLENGER, found.number)
    return _record(client, model, found.number, "champion", found.number, reason, by)


def _record(
    client: "MlflowClient", model: str, version: str, outcome: Outcome, champion: str | None, reason: str, by: str
) -> Decision:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    tags = {OUTCOME_TAG: outcome, REASON_TAG: reason, DECIDED_BY_TAG: by, DECIDED_AT_TAG: now}
    for name, value in tags.items():
        client.set_model_version_tag(model, version, name, value)
    return Decision(model, version, outcome, champion, reason)


def _drop_alias(client: "MlflowClient", model: str, alias: str, version: str) -> None:
    """Take an alias away, if it is this version that holds it."""
    if str(client.get_registered_model(model).aliases.get(alias)) == version:
        client.delete_registered_model_alias(model, alias)


def _number(version: Version | None) -> str | None:
    return None if version is None else version.number


def _existing(client: "MlflowClient", model: str, number: str) -> Version:
    found = _version(client, model, number)
    if found is None:
        numbers = sorted((int(one.version) for one in client.search_model_versions(f"name = '{model}'")), reverse=True)
        known = f"It has {', '.join(f'v{one}' for one in numbers[:10])}." if numbers else "It has none."
        raise UserError(f"The registry has no version {number} of {model!r}. {known}")
    return found


def _version(client: "MlflowClient", model: str, number: str) -> Version | None:
    from mlflow.exceptions import MlflowException

    try:
        found: Any = client.get_model_version(model, number)
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    tags = dict(found.tags)
    return Version(str(found.version), tags.get(RUN_ID_TAG, ""), tags.get(MODEL_DIGEST_TAG, ""), tags)
