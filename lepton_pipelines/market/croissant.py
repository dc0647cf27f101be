"""A product's description in MLCommons Croissant 1.1 (schema.org's JSON-LD): what others' tools read."""

from typing import Any

from lepton_pipelines.market.product import ProductTerms
from lepton_pipelines.spec.contract import Column, Contract

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
ROWS = "rows"
_TYPES = {"category": "sc:Text", "text": "sc:Text", "boolean": "sc:Boolean", "time": "sc:Date"}
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def describe(product: ProductTerms, contract: Contract) -> dict[str, Any]:
    """Return the Croissant description of a product: its columns and what they mean, no values and no rows.

    A shareable product names its file and its digest. Of the others there is nothing to fetch, and the description says
    so: their rows are a set of files without an address.
    """
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": product.id.replace("/", "-"),
        "alternateName": product.title,
        "description": product.description or product.title,
        "url": f"urn:lepton:product:{product.id}",
        "version": contract.version,
        "creator": {"@type": "sc:Organization", "name": product.organisation},
        "keywords": [*([product.domain] if product.domain else []), *product.keywords],
        "isLiveDataset": product.shareable is None,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": contract.name,
                "name": contract.name,
                "description": contract.description or product.title,
                "field": [_field(column, contract, product) for column in contract.columns if column.role != "unused"],
            }
        ],
    }
    if product.refreshed is not None:
        described["dateModified"] = product.refreshed.isoformat()
    if product.shareable is None:
        told = f"These rows never leave {product.organisation}; models are trained on them where they are."
        described["distribution"] = [
            {
                "@type": "cr:FileSet",
                "@id": ROWS,
                "name": ROWS,
                "description": told,
                "encodingFormat": "application/x-parquet",
                "includes": "*",
            }
        ]
    else:
        described["license"] = product.shareable.licence
        described["distribution"] = [
            {
                "@type": "cr:FileObject",
                "@id": ROWS,
                "name": ROWS,
                "contentUrl": product.shareable.url,
                "encodingFormat": _encoding(product.shareable.url),
                "sha256": product.shareable.digest,
            }
        ]
    return described


def _field(column: Column, contract: Contract, product: ProductTerms) -> dict[str, Any]:
    kind = _TYPES.get(column.kind, "sc:Integer" if column.integer else "sc:Float")
    rows = {"fileSet": {"@id": ROWS}} if product.shareable is None else {"fileObject": {"@id": ROWS}}
    return {
        "@type": "cr:Field",
        "@id": f"{contract.name}/{column.name}",
        "name": column.name,
        "description": column.description or column.name,
        "dataType": kind,
        "source": {**rows, "extract": {"column": column.name}},
    }


def _encoding(url: str) -> str:
    return "application/x-parquet" if url.endswith(".parquet") else "text/csv"
