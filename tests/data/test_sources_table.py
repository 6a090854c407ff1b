"""Tables with a row a file, whatever their columns are called."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import file_of, tone

from sonarc.contracts.config import ColumnsConfig, SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.errors import SourceError
from sonarc.data.sources import fingerprint, read_source

SOUND = file_of(tone(0.1))
COLUMNS = ColumnsConfig(path="file", captions=("text", "more"), licence="rights")
ROWS: list[dict[str, Any]] = [
    {"file": "a.wav", "text": "a kick, deep", "more": "boom", "group": "kit", "rights": "CC0-1.0"},
    {"file": "b.wav", "text": '["a hat", "tss"]', "more": "", "group": "", "rights": ""},
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> SourceConfig:
    """A folder with `a.wav` and `b.wav`, and a table of `rows` in a place of its own."""
    (folder / "audio").mkdir(exist_ok=True)
    for name in ("a.wav", "b.wav"):
        (folder / "audio" / name).write_bytes(SOUND)
    table = folder / f"table{kind}"
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif kind == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with table.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return SourceConfig(name="mine", uri=str(table), audio=str(folder / "audio"), columns=COLUMNS, licence="CC-BY-4.0")


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_says_the_same(tmp_path: Path, kind: str) -> None:
    listing = read_source(write(tmp_path, kind, ROWS))

    assert not listing.refused
    kick, hat = listing.files
    assert (kick.path, kick.captions, kick.group, kick.licence) == ("a.wav", ("a kick, deep", "boom"), "kit", "CC0-1.0")
    assert (hat.path, hat.captions, hat.group, hat.licence) == ("b.wav", ("a hat", "tss"), "mine/b.wav", "CC-BY-4.0")


def test_a_parquet_table_has_lists_and_structures(tmp_path: Path) -> None:
    row = {"file": "a.wav", "text": ["one", "two"], "concept": {"class": "kick"}, "unused": b"\0"}
    (kick,) = read_source(write(tmp_path, ".parquet", [row])).files

    assert (kick.captions, kick.concept) == (("one", "two"), '{"class":"kick"}')


def test_a_concept_in_a_cell_is_json_or_a_word(tmp_path: Path) -> None:
    rows = [{"file": "a.wav", "text": "x", "concept": '{"b":1}'}, {"file": "b.wav", "text": "y", "concept": "hat"}]

    assert [f.concept for f in read_source(write(tmp_path, ".csv", rows)).files] == ['{"b":1}', '{"concept":"hat"}']


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    for kind in (".csv", ".parquet"):
        source = write(tmp_path, kind, [{"datei": "a.wav", "text": "x"}])
        with pytest.raises(SourceError, match=r"lacks the column 'file'.*it has 'datei', 'text'") as caught:
            read_source(source)
        assert "columns" in str(caught.value.hint)


def test_bad_rows_are_refused_and_the_others_read(tmp_path: Path) -> None:
    source = write(tmp_path, ".csv", ROWS)
    with (tmp_path / "table.csv").open("ab") as file:
        file.write(b"../a.wav,out,,,\r\n")
        file.write(b"gone.wav,x,,,\r\n")
        file.write(b"bytes.wav,\xff\xfe,,,\r\n")
        file.write(b"cells.wav,x,,,,,surplus\r\n")
        file.write(b"http://example.com/a.wav,x,,,\r\n")
        file.write(b"long.wav," + b"x" * 200_000 + b",,,\r\n")
        file.write(b"=cmd|'/c calc'!A1,=1+1,,,\r\n")
        file.write(b",x,,,\r\n")

    listing = read_source(source)

    assert [file.path for file in listing.files] == ["a.wav", "b.wav"]
    reasons = [refusal.reason for refusal in listing.refused]
    assert reasons == [
        Reason.UNSAFE_PATH,
        Reason.MISSING,
        Reason.MISSING,
        Reason.BAD_CAPTION,
        Reason.UNSAFE_PATH,
        Reason.BAD_CAPTION,
        Reason.MISSING,
        Reason.MISSING,
    ]


def test_a_table_may_name_addresses_alone_and_its_change_is_noticed(tmp_path: Path) -> None:
    table = tmp_path / "only.csv"
    table.write_text("path,captions\nhttps://example.com/a.wav,a kick\n")
    source = SourceConfig(name="web", uri=str(table))
    before = fingerprint([source])

    (kick,) = read_source(source).files

    assert (kick.uri, kick.path, kick.url) == ("https://example.com/a.wav",) * 3
    table.write_text("path,captions\nhttps://example.com/b.wav,a kick\n")
    assert fingerprint([source]) != before


def test_a_table_that_is_missing_or_no_table_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.csv cannot be read"):
        read_source(SourceConfig(name="mine", uri=str(tmp_path / "gone.csv")))
    (tmp_path / "page.parquet").write_text("<html>")
    with pytest.raises(SourceError, match="no Parquet file"):
        read_source(SourceConfig(name="mine", uri=str(tmp_path / "page.parquet")))


@settings(max_examples=60)
@given(content=st.binary(max_size=300))
def test_any_bytes_in_a_csv_are_survived(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("in")
    (folder / "table.csv").write_bytes(b"path,captions\n" + content)
    listing = read_source(SourceConfig(name="mine", uri=str(folder / "table.csv")))
    assert not listing.files
