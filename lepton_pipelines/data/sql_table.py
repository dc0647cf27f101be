"""Rows of a database: a table or a query, read through SQLAlchemy in one transaction, some ten thousand at a time.

The database's own driver must be installed (`psycopg` for PostgreSQL; SQLite needs none). The password comes from the
environment; it stands in no file, message or record.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import read_secret
from lepton_pipelines.spec.organisation import Data, Sql

from .row_filter import RowFilter

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Connection

ROWS_A_BLOCK = 50_000


def sql_columns(data: Data, *, where: str) -> list[str]:
    """Return the names of the columns of the table or query. Raises UserError if the database cannot be read."""
    from sqlalchemy import text

    with _told_errors(data, where), _connected(data) as connection:
        _, rows = _origin(connection, data)
        return list(connection.execute(text(f"SELECT * FROM {rows} WHERE 1 = 0")).keys())  # noqa: S608 - its owner's own query


def read_sql(data: Data, contract: Contract, wanted: Sequence[str], *, where: str) -> "Iterator[pd.DataFrame]":
    """Read columns in blocks, in the order of the contract's key if it has one; of the rows that meet `data.filter`.

    wanted: the data's names. Yields frames indexed by the rows' numbers.
    Raises UserError if the database cannot be read.
    """
    from sqlalchemy import text

    keys = [data.columns.get(c.name, c.name) for c in contract.keys] if contract.has_unique_key else []
    with _told_errors(data, where), _connected(data) as connection:
        quote, rows = _origin(connection, data)
        # An order makes the digest of the rows the same when they are read again.
        order = f" ORDER BY {', '.join(map(quote, keys))}" if keys else ""
        met, parameters = RowFilter(data.filter).clause(quote)
        statement = f"SELECT {', '.join(map(quote, wanted))} FROM {rows}{met}{order}"  # noqa: S608 - names are quoted
        options = connection.execution_options(stream_results=True, max_row_buffer=ROWS_A_BLOCK)
        done = 0
        for block in options.execute(text(statement), parameters).partitions(ROWS_A_BLOCK):
            frame = _frame(block, wanted)
            frame.index += done
            done += len(frame)
            yield frame


def _origin(connection: "Connection", data: Data) -> tuple[Any, str]:
    """Return how the database quotes names, and what stands behind FROM."""
    sql = data.sql or Sql()
    quote = connection.dialect.identifier_preparer.quote
    if sql.query is not None:
        return quote, f"({sql.query.rstrip().rstrip(';')}) AS lepton_rows"
    return quote, ".".join(quote(part) for part in (sql.table or "").split("."))


@contextmanager
def _connected(data: Data) -> "Iterator[Connection]":
    from sqlalchemy import create_engine, make_url

    sql = data.sql or Sql()
    address = make_url(data.url)
    if sql.user is not None:
        address = address.set(username=read_secret(sql.user, field="data.sql.user"))
    if sql.password is not None:
        address = address.set(password=read_secret(sql.password, field="data.sql.password"))
    engine = create_engine(address)
    try:
        if engine.dialect.name not in {"sqlite", "duckdb"}:
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _told_errors(data: Data, where: str) -> Iterator[None]:
    from sqlalchemy import exc

    try:
        yield
    except exc.NoSuchModuleError as error:
        raise UserError(
            f"{where}: SQLAlchemy knows no such database ({error}). Correct data.url, or install its dialect."
        ) from None
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: the database's driver is not installed: pip install {error.name}.") from None
    except exc.DBAPIError as error:
        # The statement and its parameters stay out of the message; the driver's own words say what is wrong.
        words = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
        raise UserError(f"{where} cannot be read: {words}. Check data.url, data.sql and the rights.") from None
    except exc.ArgumentError as error:
        raise UserError(f"{where}: data.url is no database address: {error}.") from None


def _frame(rows: Sequence[Any], names: Sequence[str]) -> "pd.DataFrame":
    """Make a frame of rows as a driver gives them; whole numbers and decimals keep their kinds where they can."""
    import pandas as pd
    import pyarrow as pa

    columns = {}
    for place, name in enumerate(names):
        values = [row[place] for row in rows]
        try:
            column = pa.array(values)
        except pa.ArrowInvalid:
            column = pa.array([None if v is None else str(v) for v in values])
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        columns[name] = column.to_pandas(date_as_object=False)
    return pd.DataFrame(columns)
