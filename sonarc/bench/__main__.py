"""The benchmark runner; see `sonarc.bench`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sonarc.bench.regression import worse
from sonarc.bench.sheet import BenchSheet, read_sheet, write_sheet
from sonarc.contracts import store
from sonarc.contracts.config import CodecConfig
from sonarc.contracts.errors import DataError, SonarcError
from sonarc.contracts.result import StageResult

FOLDER = Path("bench")


@dataclass(frozen=True)
class Subject:
    """What is measured: the folder of runs, a dataset's and a package's location or none, and a codec."""

    runs: Path
    dataset: str
    codec: str
    package: str = ""


def _pipeline(subject: Subject) -> BenchSheet:
    from sonarc.bench.pipeline import measure

    return measure(subject.runs)


def _inference(_: Subject) -> BenchSheet:
    from sonarc.bench.inference import measure

    return measure()


def _train(_: Subject) -> BenchSheet:
    from sonarc.bench.training import measure

    return measure()


def _codec(subject: Subject) -> BenchSheet:
    from sonarc.bench.codec import measure

    return measure(subject.dataset or _last(subject.runs, "ingest", "dataset"), subject.codec)


def _data(_: Subject) -> BenchSheet:
    from sonarc.bench.data import measure

    return measure()


def _scale(_: Subject) -> BenchSheet:
    from sonarc.bench.scale import measure

    return measure()


def _edge(subject: Subject) -> BenchSheet:
    from sonarc.bench.edge import measure

    return measure(subject.package or last_package(subject.runs))


def _precision(subject: Subject) -> BenchSheet:
    from sonarc.bench.precision import measure

    return measure(subject.package or last_package(subject.runs))


TARGETS: dict[str, Callable[[Subject], BenchSheet]] = {
    "pipeline": _pipeline,
    "inference": _inference,
    "train": _train,
    "codec": _codec,
    "data": _data,
    "scale": _scale,
    "edge": _edge,
    "precision": _precision,
}
"""Name → what measures it."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 where `--check` finds a miss or a row got worse; else the error's own."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.bench", description="Measure, into bench/<target>.json.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument(
        "--check", action="store_true", help="measure nothing; exit 1 where a sheet misses what was wanted"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the sheets are (default: bench)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of pipeline runs (default: runs)")
    parser.add_argument("--dataset", default="", help="codec: location of a dataset (default: the last run's)")
    parser.add_argument("--codec", default=CodecConfig().uri, help="codec: the codec (default: %(default)s)")
    parser.add_argument(
        "--package", default="", help="edge, precision: location of a model package (default: the last run's)"
    )
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.targets) - set(TARGETS)):
        parser.error(f"there is no target {', '.join(unknown)}; use {', '.join(TARGETS)}")
    console = Console()
    try:
        if asked.check:
            return _check(asked.folder, asked.targets, console)
        regressed = False
        for name in asked.targets or TARGETS:
            sheet = TARGETS[name](Subject(asked.runs, asked.dataset, asked.codec, asked.package))
            console.print(table(sheet))
            regressed |= _compared(asked.folder / f"{sheet.name}.json", sheet, console)
            console.print(f"Wrote {write_sheet(asked.folder, sheet)}")
    except SonarcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return int(regressed)


def _compared(path: Path, sheet: BenchSheet, console: Console) -> bool:
    """Say which rows got worse than in the sheet that lies there; whether any did."""
    if not path.exists():
        return False
    found = worse(read_sheet(path), sheet)
    for one in found:
        console.print(
            f"{one.row.name} is {one.row.value:g} {one.row.unit}, {one.factor:.2f} times worse than "
            f"{one.expected:g}, which is {path} at this machine's speed",
            style="red",
        )
    return bool(found)


def _check(folder: Path, targets: list[str], console: Console) -> int:
    """Compare committed sheets with what was wanted."""
    paths = [folder / f"{name}.json" for name in targets] or sorted(
        path for path in folder.glob("*.json") if not path.name.endswith(".local.json")
    )
    if not paths:
        raise DataError(f"There is no benchmark in {folder}.", "Measure first: make bench.")
    missed = 0
    for path in paths:
        for row in (sheet := read_sheet(path)).missed():
            side = "above" if row.better == "lower" else "below"
            console.print(
                f"{sheet.name}: {row.name} is {row.value:g} {row.unit}, {side} the wanted {row.wanted:g}", style="red"
            )
            missed += 1
    if not missed:
        console.print(f"{len(paths)} benchmarks are as wanted.")
    return 1 if missed else 0


def table(sheet: BenchSheet) -> Table:
    """A sheet for the terminal; rows that miss what was wanted are red."""
    on = [f"{sheet.machine.cpu}, {sheet.machine.cores} cores", *filter(None, [sheet.machine.gpu])]
    table = Table(title=f"{sheet.name}: {', '.join(on)}", title_justify="left")
    for name in ("row", "value", "wanted", "best possible", "unit", "n", "spread"):
        table.add_column(name, justify="left" if name in ("row", "unit") else "right")
    for row in sheet.rows:
        numbers = ("" if x is None else f"{x:g}" for x in (row.value, row.wanted, row.floor))
        spread = "" if row.spread is None else f"{row.spread:g}"
        table.add_row(row.name, *numbers, row.unit, str(row.n), spread, style="" if row.met() else "red")
    return table


def last_package(runs: Path) -> str:
    """URI of the package that the last run promoted."""
    return _last(runs, "promote", "package")


def _last(runs: Path, stage: str, output: str) -> str:
    """URI of an output of a stage of the last run, in whatever store that was."""
    record = runs / "latest" / "stages" / f"{stage}.json"
    if not record.exists():
        raise DataError(f"The last run has no outcome of {stage}.", "Run the whole pipeline first: make run.")
    return StageResult.model_validate(store.read_json(str(record))["result"]).outputs[output].uri


if __name__ == "__main__":
    sys.exit(main())
