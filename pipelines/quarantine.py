"""`sonarc quarantine`: what ingest refused, why, and which files."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from components.launch import StageRecord
from sonarc.contracts import store
from sonarc.contracts.dataset import QUARANTINE_SCHEMA, Reason, read_dataset
from sonarc.contracts.errors import ConfigError, DataError
from sonarc.contracts.hashing import sha256_bytes

MEANING: dict[Reason, str] = {
    Reason.EMPTY: "nothing in it",
    Reason.NOT_AUDIO: "no audio format that is known",
    Reason.CORRUPT: "audio that cannot be decoded",
    Reason.CRASHED: "decoding it ended its process, or took too long",
    Reason.TRUNCATED: "its header promises more than there is",
    Reason.TOO_LARGE: "more than data.max_source_samples or data.fetch.max_bytes allow",
    Reason.BAD_RATE: "a sample rate that no converter has",
    Reason.BAD_CHANNELS: "no channels, or more than 7.1 has",
    Reason.NON_FINITE: "samples that are NaN or infinite",
    Reason.SILENT: "quieter than data.silence_dbfs",
    Reason.CLIPPED: "more of it cut off at its peak than data.max_clipped",
    Reason.NARROW: "resampled up from a rate without the band of data.min_bandwidth_hz",
    Reason.TOO_SHORT: "shorter than data.min_seconds of sound",
    Reason.DUPLICATE: "the same bytes as another file",
    Reason.NEAR_DUPLICATE: "the same sound as an earlier file's, by data.near_duplicate",
    Reason.NO_CAPTION: "audio that no row names",
    Reason.BAD_CAPTION: "a row or a caption that is no plain text",
    Reason.MISSING: "a row whose file is not there",
    Reason.UNSAFE_PATH: "a path that leads out of its folder",
    Reason.BLOCKED: "an address that is not public HTTPS",
    Reason.UNREACHABLE: "an address that does not answer as it should",
}


def latest_dataset(runs: Path) -> str:
    """The dataset of the last run.

    Raises:
        ConfigError: there is none.
    """
    record = runs / "latest" / "stages" / "ingest.json"
    if not record.exists():
        raise ConfigError(f"No run below {runs} has got as far as a dataset.", "Name one with --dataset.")
    return StageRecord.model_validate_json(record.read_text()).result.outputs["dataset"].uri


def read_quarantine(dataset_uri: str) -> pa.Table:
    """The table of what a dataset refused.

    Raises:
        DataError: it is not the one that the manifest names.
    """
    data = store.read_bytes(store.join(dataset_uri, "quarantine.parquet"))
    if sha256_bytes(data) != read_dataset(dataset_uri).quarantine_sha256:
        raise DataError(f"quarantine.parquet of {dataset_uri} is not the one its manifest names.", "Ingest again.")
    return pq.read_table(io.BytesIO(data), schema=QUARANTINE_SCHEMA)


def show(dataset_uri: str, *, reason: str = "", source: str = "", examples: int = 3, as_json: bool = False) -> None:
    """Print counts by reason with examples, or every refusal as a line of JSON.

    Raises:
        ConfigError: no reason has that name.
    """
    if reason and reason not in list(Reason):
        raise ConfigError(f"There is no reason {reason!r}.", f"Use one of {', '.join(sorted(Reason))}.")
    rows = [
        row
        for row in read_quarantine(dataset_uri).to_pylist()
        if reason in ("", row["reason"]) and source in ("", row["source"])
    ]
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    console, manifest = Console(), read_dataset(dataset_uri)
    if not rows:
        console.print(f"Nothing like that was refused; the dataset has {manifest.clips:,} clips.")
        return
    counts = Counter(row["reason"] for row in rows)
    table = Table("reason", "inputs", "meaning", "for example", title=f"{len(rows):,} refused inputs", box=None)
    for name, count in counts.most_common():
        some = [row for row in rows if row["reason"] == name][:examples]
        told = "\n".join(f"{row['source']}/{row['path']}: {row['detail']}" for row in some)
        table.add_row(name, f"{count:,}", MEANING[Reason(name)], told)
    console.print(table, markup=False)
    console.print(
        f"{manifest.clips:,} clips were taken. The whole table: {dataset_uri}/quarantine.parquet", style="dim"
    )
