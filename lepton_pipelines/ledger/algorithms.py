"""Algorithms on offer, as the entries so far made them."""

from dataclasses import dataclass

from lepton_pipelines.ledger.entries import AlgorithmOffered, AlgorithmWithdrawn
from lepton_pipelines.ledger.errors import EntryRefused


@dataclass
class Release:
    """A version of an algorithm. index: of the entry that offered it last."""

    offered: AlgorithmOffered
    index: int
    withdrawn: bool = False


class Algorithms:
    """What is on offer. A version that was offered once is the same wheel for ever, withdrawn or not."""

    def __init__(self) -> None:
        self.releases: dict[tuple[str, str], Release] = {}

    def offer(self, index: int, offered: AlgorithmOffered) -> None:
        """Offer a version; once more gives it a new card."""
        _own(offered.offer, offered.author.organisation)
        known = self.releases.get((offered.offer, offered.version))
        if known is not None and (known.offered.wheel, known.offered.code) != (offered.wheel, offered.code):
            raise EntryRefused(
                f"{offered.offer} {offered.version} was offered with the wheel {known.offered.wheel[:16]}…: "
                "another wheel is another version"
            )
        self.releases[offered.offer, offered.version] = Release(offered, index)

    def withdraw(self, withdrawn: AlgorithmWithdrawn) -> None:
        """Offer a version no longer."""
        _own(withdrawn.offer, withdrawn.author.organisation)
        known = self.releases.get((withdrawn.offer, withdrawn.version))
        if known is None or known.withdrawn or known.offered.wheel != withdrawn.wheel:
            raise EntryRefused(f"{withdrawn.offer} {withdrawn.version} is not on offer")
        known.withdrawn = True


def _own(offer: str, author: str) -> None:
    if offer.split("/")[0] != author:
        raise EntryRefused(f"{author} cannot speak for {offer}: only {offer.split('/')[0]} can")
