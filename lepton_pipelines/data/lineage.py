"""What rows a model was trained on, as one digest: of what was read, not of where it lay."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def piece_digest(frame: "pd.DataFrame") -> bytes:
    """Return the SHA-256 of some rows: the columns' names, kinds and values, in the order of rows and columns.

    frame: as a source reads it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.Table.from_pandas(frame, preserve_index=False)
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        values = _canonical(values)
        digest.update(f"{name}\0{values.type}\0{len(values)}\0".encode())
        digest.update(f"{values.null_count}\0".encode())
        if values.null_count:
            digest.update(pc.cast(values.is_null(), pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_large_string(values.type):
            texts = values.fill_null("")  # the mask above tells a missing text from an empty one
            digest.update(pc.binary_length(texts).to_numpy(zero_copy_only=False).tobytes())
            digest.update("".join(texts.to_pylist()).encode())
        else:
            values = values.fill_null(0) if values.null_count else values
            digest.update(values.to_numpy(zero_copy_only=False).data)
    return digest.digest()


def dataset_digest(pieces: Iterable[bytes]) -> str:
    """Return the digest of a whole data set from its pieces' digests, in whatever order they come, as hex."""
    digest = hashlib.sha256(b"lepton/dataset/1")
    for piece in sorted(pieces):
        digest.update(piece)
    return digest.hexdigest()


def _canonical(values: Any) -> Any:
    """One Arrow type for each kind, so that another writer's choice of width changes nothing."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pa.types.is_boolean(kind):
        target = pa.uint8()
    elif pa.types.is_integer(kind):
        target = pa.int64()
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        target = pa.float64()
    elif pa.types.is_temporal(kind):
        values = values.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        target = pa.int64()
    else:
        target = pa.large_string()
    return values.cast(target, safe=False)
