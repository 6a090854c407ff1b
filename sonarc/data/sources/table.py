"""A table with a row a file: CSV, TSV, JSONL or Parquet, its columns called whatever they are."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sonarc.audio.refusal import Refused
from sonarc.contracts import store
from sonarc.contracts.config import ColumnsConfig, SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.errors import SourceError, StoreError
from sonarc.data.sources.folder import jsonl_rows
from sonarc.data.sources.listing import Row

ROWS_AT_ONCE = 4_096


def is_table(uri: str) -> bool:
    """Whether a source's location is a table's."""
    return posixpath.splitext(uri)[1].lower() in _READERS


def table_info(source: SourceConfig) -> Mapping[str, Any]:
    """What the filesystem knows of the table.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        fs, path = store.filesystem(source.uri)
        info: Mapping[str, Any] = fs.info(path)
        return info
    except (StoreError, OSError) as error:
        raise SourceError(
            f"The table of the source {source.name!r} at {source.uri} cannot be read: {error}",
            "Check its location and rights.",
        ) from error


def table_rows(source: SourceConfig) -> Iterator[Row]:
    """The rows of a table, with the fields that `source.columns` names.

    Raises:
        SourceError: it cannot be read, or has no column of paths or captions.
    """
    table_info(source)
    read = _READERS[posixpath.splitext(source.uri)[1].lower()]
    for row in read(source):
        yield row if isinstance(row.facts, Refused) else Row(row.place, _fields(row.facts, source.columns))


def csv_rows(uri: str, delimiter: str = ",") -> Iterator[Row]:
    """The rows of a CSV file, a header first; bytes that are no UTF-8 are halves of surrogate pairs in its texts."""
    name = posixpath.basename(uri)
    fs, path = store.filesystem(uri)
    with fs.open(path, "rb") as raw:
        text = io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, delimiter=delimiter, restkey="", strict=True)
        while True:
            place = f"{name}:{reader.line_num + 1}"
            try:
                facts = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # a cell beyond the limit, an open quote, a NUL
                yield Row(place, Refused(Reason.BAD_CAPTION, f"the row is not CSV: {error}"))
                continue
            place = f"{name}:{reader.line_num}"
            if "" in facts:
                yield Row(place, Refused(Reason.BAD_CAPTION, "the row has more cells than the header"))
                continue
            yield Row(place, facts)


def _csv(source: SourceConfig) -> Iterator[Row]:
    delimiter = "\t" if source.uri.lower().endswith(".tsv") else ","
    return _with_columns(source, csv_rows(source.uri, delimiter))


def _jsonl(source: SourceConfig) -> Iterator[Row]:
    return jsonl_rows(source.uri)


def _parquet(source: SourceConfig) -> Iterator[Row]:
    name, number = posixpath.basename(source.uri), 0
    fs, path = store.filesystem(source.uri)
    try:
        with fs.open(path, "rb") as file:
            table = pq.ParquetFile(file)
            wanted = [c for c in table.schema_arrow.names if c in _names(source.columns)]
            _check_columns(source, table.schema_arrow.names)
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=wanted):
                for facts in batch.to_pylist():
                    number += 1
                    yield Row(f"{name}:{number}", facts)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"The table of the source {source.name!r} is no Parquet file: {error}", "Write it again."
        ) from error


_READERS: dict[str, Callable[[SourceConfig], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _with_columns(source: SourceConfig, rows: Iterator[Row]) -> Iterator[Row]:
    checked = False
    for row in rows:
        if not checked and not isinstance(row.facts, Refused):
            _check_columns(source, list(row.facts))
            checked = True
        yield row


def _names(columns: ColumnsConfig) -> list[str]:
    single = columns.model_dump(exclude={"captions"})
    return [*single.values(), *columns.captions]


def _check_columns(source: SourceConfig, found: list[str]) -> None:
    columns = source.columns
    if columns.path not in found or not set(columns.captions) & set(found):
        told = ", ".join(map(repr, found[:20]))
        raise SourceError(
            f"The table of the source {source.name!r} lacks the column {columns.path!r} or captions in "
            f"{', '.join(map(repr, columns.captions))}; it has {told}.",
            "Say what its columns are called, in the source's columns.",
        )


def _fields(facts: Mapping[str, Any], columns: ColumnsConfig) -> Mapping[str, Any]:
    named = {ours: facts.get(theirs) for ours, theirs in columns.model_dump(exclude={"captions"}).items()}
    captions = [text for column in columns.captions for text in _listed(facts.get(column))]
    concept = _structure(named["concept"])
    stated = {name: value for name, value in named.items() if value not in (None, "")}
    return stated | {"captions": captions, "concept": concept}


def _listed(cell: Any) -> list[Any]:
    """The captions of a cell."""
    if isinstance(cell, str) and cell.startswith("["):
        try:
            parsed = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]  # a caption that begins with a bracket
        return parsed if isinstance(parsed, list) else [cell]
    if isinstance(cell, list):
        return cell
    return [] if cell in (None, "") else [cell]


def _structure(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return {"concept": cell} if cell else None
