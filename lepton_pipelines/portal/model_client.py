"""The SDK's part for models: published in one's own name, found, verified, pulled into the own registry."""

from typing import TYPE_CHECKING

from lepton_pipelines.portal import messages

if TYPE_CHECKING:
    from lepton_pipelines.portal.client import Platform


class Models:
    """Published models, on offer or not."""

    def __init__(self, platform: "Platform") -> None:
        self._platform = platform

    def publish(
        self, model: str, version: int, *, licence: str, title: str, description: str = ""
    ) -> messages.ModelDetail:
        """Offer a version of the organisation's own registry, which it has published in the ledger."""
        from lepton_pipelines.portal.publishing_api import PublishModel

        told = PublishModel(model=model, version=version, licence=licence, title=title, description=description)
        return self._platform.post("/models", messages.ModelDetail, told)

    def withdraw(self, model: str, version: int, *, reason: str) -> None:
        """Offer a version of one's own no longer. Who has pulled it keeps it."""
        self._platform.tell(f"/models/{model}/{version}/withdraw", messages.Refusal(reason=reason))

    def search(self, text: str = "") -> list[messages.Model]:
        """Find versions, the newest first.

        >>> [(one.model, one.version) for one in platform.models.search("breast")]
        [('breast-cancer', 1)]
        """
        return self._platform.get("/models", list[messages.Model], text=text)

    def show(self, model: str, version: int) -> messages.ModelDetail:
        """Show a version with its lineage.

        >>> sorted({node.kind for node in platform.models.show("breast-cancer", 1).lineage.nodes})
        ['alias', 'member', 'model', 'offer', 'product', 'run', 'score']
        """
        return self._platform.get(f"/models/{model}/{version}", messages.ModelDetail)

    def verify(self, model: str, version: int) -> messages.ModelProof:
        """Have the portal recompute its whole copy of the ledger, and say what it proves of a version.

        >>> platform.models.verify("breast-cancer", 1).proved[0].split(" with the digest ")[0]
        'north published breast-cancer v1'
        """
        return self._platform.post(f"/models/{model}/{version}/verify", messages.ModelProof)

    def pull(
        self, model: str, version: int | None = None, *, licence: str | None = None, use: bool = False
    ) -> messages.PulledModel:
        """Verify a model on offer and register it in the MLflow of the portal's organisation, ready to serve.

        model: OWNER/NAME. version: unset, the newest on offer. licence: refuse any other. use: make it the champion of
        its name there. Pulled again, it is the same version.

        >>> platform.models.pull("north/breast-cancer", licence="CC-BY-4.0").origin
        'north/breast-cancer/1'
        """
        from lepton_pipelines.portal.fetching_api import PullModel

        told = PullModel(version=version, licence=licence, use=use)
        return self._platform.post(f"/models/{model}/pull", messages.PulledModel, told)
