"""Rows of a shareable product: fetched once, and only used if digest and licence are what the ledger's terms say."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lepton_pipelines.market.catalogue import Offer
from lepton_pipelines.market.errors import MarketRefused

BLOCK = 1 << 20
Open = Callable[[str], Any]
"""URL → a binary file object to read from."""


def fetch(offer: Offer, cache: Path, open_url: Open, *, licence: str | None = None, to: Path | None = None) -> Path:
    """Fetch a shareable product's file and return where it lies.

    cache: folder of what was fetched before; a file is called by its digest there. licence: what it must be, if given.
    to: a place to copy it to. Raises MarketRefused if it is not shareable, has another licence, or another digest.
    """
    shareable = offer.entry.terms.shareable
    return fetch_described(offer.id, offer.description, shareable, cache, open_url, licence=licence, to=to)


def fetch_described(
    product: str,
    description: dict[str, Any],
    shareable: bool,
    cache: Path,
    open_url: Open,
    *,
    licence: str | None = None,
    to: Path | None = None,
) -> Path:
    """Fetch a product's file by its Croissant description. shareable: whether the ledger says that it is."""
    files = description.get("distribution", [])
    if not shareable or not files or "contentUrl" not in files[0]:
        raise MarketRefused(
            f"{product} is not shareable: its rows never leave {product.split('/')[0]}. Train on them where they are: "
            f"lepton market request {product} --purpose …"
        )
    told = description.get("license")
    if licence is not None and told != licence:
        raise MarketRefused(f"{product} has the licence {told}, you asked for {licence}. Nothing was fetched.")
    url, digest = files[0]["contentUrl"], files[0]["sha256"]
    path: Path = cache / digest / (url.rstrip("/").rsplit("/", 1)[-1] or "rows")
    if not path.exists() or _digest(path) != digest:
        download(open_url, url, path, digest, product)
    if to is None:
        return path
    target = to / path.name if to.is_dir() else to
    shutil.copyfile(path, target)
    return target


def download(open_url: Open, url: str, path: Path, digest: str, product: str) -> None:
    """Fetch a file to `path`; it is there only if it has this digest. Raises MarketRefused if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    read = hashlib.sha256()
    with open_url(url) as source, tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            while block := source.read(BLOCK):
                read.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            if read.hexdigest() != digest:
                raise MarketRefused(
                    f"{product}: {url} has the digest {read.hexdigest()[:16]}…, the ledger says {digest[:16]}…. It was "
                    "changed since it was published, and is not kept. Ask its owner to publish the new version."
                )
            Path(file.name).replace(path)
        finally:
            Path(file.name).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
