"""The SDK's part for algorithms: offered, found, fetched, held against what is installed, allowed; never installed."""

from pathlib import Path
from typing import TYPE_CHECKING

from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.portal import messages

if TYPE_CHECKING:
    from lepton_pipelines.market.algorithms import AlgorithmOffer
    from lepton_pipelines.portal.client import Platform


class Algorithms:
    """Algorithms on offer. Installing one is the administrator's to do; nothing of it is run here."""

    def __init__(self, platform: "Platform") -> None:
        self._platform = platform

    def publish(self, file: str) -> messages.AlgorithmDetail:
        """Offer an algorithm. file: the name of its YAML file in the folder `offers` of the portal's home."""
        from lepton_pipelines.portal.publishing_api import PublishAlgorithm

        return self._platform.post("/algorithms", messages.AlgorithmDetail, PublishAlgorithm(file=file))

    def withdraw(self, algorithm: str, version: str, *, reason: str) -> None:
        """Offer a version no longer. Who has pulled it keeps it."""
        self._platform.tell(f"/algorithms/{algorithm}/{version}/withdraw", messages.Refusal(reason=reason))

    def search(self, text: str = "") -> list[messages.Algorithm]:
        """Find algorithms.

        >>> [(one.id, one.version) for one in platform.algorithms.search("average")]
        [('valley/averaging', '1.0')]
        """
        return self._platform.get("/algorithms", list[messages.Algorithm], text=text)

    def show(self, algorithm: str, version: str) -> messages.AlgorithmDetail:
        """Show an algorithm: what it sums and what that reveals.

        >>> [one.reveals for one in platform.algorithms.show("valley/averaging", "1.0").sums]
        ['their mean']
        """
        return self._platform.get(f"/algorithms/{algorithm}/{version}", messages.AlgorithmDetail)

    def pull(
        self,
        algorithm: str,
        version: str | None = None,
        *,
        licence: str | None = None,
        cache: Path | str = "algorithms",
    ) -> Path:
        """Fetch an algorithm's wheel to this machine, check its digest and its code, and return where it lies.

        version: unset, the one that was offered last. licence: refuse any other. cache: where a wheel is kept, so that
        it is fetched once. It is neither installed nor run.
        """
        from lepton_pipelines.data.storage import open_url, plain_errors
        from lepton_pipelines.market.algorithms import pull_algorithm
        from lepton_pipelines.spec.organisation import Storage

        with plain_errors(algorithm, algorithm, Storage()):
            found = self._offer(algorithm, version)
            return pull_algorithm(self._platform.document, found, Path(cache), open_url, licence=licence)

    def verify(self, algorithm: str, version: str | None = None) -> str:
        """Hold what is installed on this machine against an algorithm on offer; return the digest of its code.

        Raises UserError if it is not installed, or other code.
        """
        from lepton_pipelines.market.algorithms import verify_installed

        return verify_installed(self._offer(algorithm, version)).digest

    def use(self, algorithm: str, version: str | None = None, *, organisation: Path | str) -> bool:
        """Allow an installed algorithm in an organisation's own file, by the digest of its code; say if that is new.

        Raises UserError if it is not installed, or other code.
        """
        from lepton_pipelines.market.algorithms import use_algorithm

        return use_algorithm(self._offer(algorithm, version), Path(organisation))

    def _offer(self, algorithm: str, version: str | None) -> "AlgorithmOffer":
        """Return an algorithm on offer with its card, which is read by its digest."""
        from lepton_pipelines.market.algorithms import read_offer

        of_name = [one for one in self.search() if one.id == algorithm and version in (None, one.version)]
        if not of_name:
            raise MarketRefused(f"{algorithm} {version or ''}".rstrip() + " is not on offer.")
        newest = max(of_name, key=lambda one: one.index)
        told = self.show(algorithm, newest.version)
        return read_offer(
            self._platform.document, told.id, told.version, told.index, wheel=told.wheel, code=told.code, card=told.card
        )
