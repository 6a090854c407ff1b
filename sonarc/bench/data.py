"""Target `data`: ingest against its limit, lhotse and the number of clips; the loader against the steps it feeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from sonarc.bench.ingesting import MemorySize, SpeedSize, memory_rows, speed_rows
from sonarc.bench.loading import LoaderSize, loader_rows
from sonarc.bench.sheet import BenchSheet
from sonarc.contracts.machine import this_machine
from sonarc.contracts.result import recorded_versions


@dataclass(frozen=True)
class DataSize:
    """On how much each part is measured."""

    speed: SpeedSize = field(default_factory=SpeedSize)
    memory: MemorySize = field(default_factory=MemorySize)
    loader: LoaderSize = field(default_factory=LoaderSize)


def measure(size: DataSize | None = None) -> BenchSheet:
    """The sheet `data`; lhotse, which ingest is compared with, comes with `pip install sonarc[bench]`."""
    size = size or DataSize()
    with TemporaryDirectory(prefix="sonarc-bench-") as place:
        folders = {name: Path(place) / name for name in ("speed", "memory", "loader")}
        for folder in folders.values():
            folder.mkdir()
        rows = [
            *speed_rows(folders["speed"], size.speed),
            *memory_rows(folders["memory"], size.memory),
            *loader_rows(folders["loader"], size.loader),
        ]
    return BenchSheet(
        name="data",
        machine=this_machine(),
        versions=recorded_versions() | ({"lhotse": version("lhotse")} if find_spec("lhotse") else {}),
        command="make bench-data",
        rows=tuple(rows),
    )
