"""A data product: what its owner writes, and the three documents that are published of it. Never a row."""

from datetime import date
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from lepton_pipelines.ledger.predicate import DISCLOSURE_LIMIT
from lepton_pipelines.market.terms import Terms
from lepton_pipelines.spec.contract import Contract, parse_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import Name, SpecModel, Text
from lepton_pipelines.spec.yaml_file import read_model, read_yaml

# No control characters: what others wrote is printed on terminals and pages.
Line = Annotated[Text, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Paragraphs = Annotated[Text, Field(max_length=20_000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*$")]


class Shareable(SpecModel):
    """Where the rows themselves may be fetched, if they may be shown at all."""

    url: Text = Field(title="URL", description="File that anyone with a grant may read: a path, s3://, or https://.")
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(title="Digest", description="SHA-256 of the file.")
    licence: Line = Field(title="Licence", description="SPDX identifier, such as CC-BY-4.0.")


class ProductTerms(SpecModel):
    """A data product as its owner describes it to others, beside its contract."""

    product: Name = Field(title="Product", description="Its name; the organisation's stands before it.")
    organisation: Name = Field(title="Organisation", description="Whose it is.")
    title: Line = Field(title="Title", description="One line for people.")
    description: Paragraphs = Field(default="", title="Description", description="What the rows are, for people.")
    domain: Line | None = Field(default=None, title="Domain", description="Such as healthcare.")
    keywords: list[Line] = Field(default_factory=list, max_length=30, title="Keywords", description="For the search.")
    rows: int | None = Field(
        default=None, ge=0, title="Rows", description=f"How many, roughly; told from {DISCLOSURE_LIMIT} on."
    )
    refreshed: date | None = Field(default=None, title="Refreshed", description="When the rows were last renewed.")
    terms: Terms = Field(default_factory=Terms, title="Terms", description="Under what it may be used.")
    shareable: Shareable | None = Field(
        default=None, title="Shareable", description="Set if the rows may be fetched; else they never leave."
    )

    noun: ClassVar[str] = "field"

    @property
    def id(self) -> str:
        """The product's id: owner/name."""
        return f"{self.organisation}/{self.product}"

    @property
    def told_rows(self) -> int | None:
        """The number of rows as it may be told."""
        return self.rows if self.rows is not None and self.rows >= DISCLOSURE_LIMIT else None


class Product(ProductTerms):
    """A product as it lies at its owner's: the contract is a file."""

    contract: Text = Field(title="Contract", description="Its ODCS file.")


def read_product(path: Path | str) -> tuple[Product, dict[str, object], Contract]:
    """Read a product's file and its contract: as the owner wrote it, the contract's document, and what it says.

    Raises UserError with every problem as "file:line  field what".
    """
    path = Path(path)
    product = read_model(Product, path)
    place = path.resolve().parent / product.contract
    if not place.is_file():
        raise UserError(f"{path}: contract {place} does not exist. Correct contract.")
    document = contract_document(place)
    return product, document, parse_contract(document, name=place.name)


def contract_document(path: Path) -> dict[str, object]:
    """Read a contract's file as a document. Raises UserError if it is no YAML file."""
    return plain(read_yaml(path).data)


def plain(data: object) -> dict[str, object]:
    """Return JSON's types only of what a YAML file holds: dates become text."""
    import json

    plain: dict[str, object] = json.loads(json.dumps(data, default=str))
    return plain
