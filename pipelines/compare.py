"""`sonarc compare` and `sonarc votes`: runs by name or MLflow id onto one page, and back what listeners say of them."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sonarc.contracts import store
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.result import TrackingRef
from sonarc.contracts.votes import read_votes
from sonarc.report.compare import Compared, write_comparison
from sonarc.report.summary import read_summary
from sonarc.tracking.finished import SAMPLES, SUMMARY, download
from sonarc.tracking.listening import Tally, record_votes
from sonarc.tracking.runs import flatten

_MLFLOW_ID = re.compile(r"[0-9a-f]{32}")


def compare(names: Sequence[str], runs: Path, tracking: str, target: Path) -> Path:
    """Write the page that compares runs.

    Args:
        names: folders of `runs` by name (`latest` is one), or MLflow ids of pipeline runs.
        tracking: MLflow's tracking URI, for those.
        target: the file to write.

    Raises:
        ConfigError: no such run. TrackingError: MLflow does not have it, or is away.
    """
    with TemporaryDirectory(prefix="sonarc-") as scratch:
        found = [_find(name, runs, tracking, Path(scratch)) for name in names]
        write_comparison(found, target)
    return target


def _find(name: str, runs: Path, tracking: str, scratch: Path) -> Compared:
    folder = runs / name
    if (folder / SUMMARY).is_file():
        settings = flatten(store.read_json(str((folder / "config.json").resolve())))
        return _compared(folder.resolve(), settings, _tracked_as(folder))
    if _MLFLOW_ID.fullmatch(name):
        run = download(tracking, name, scratch)
        return _compared(run.folder, dict(run.settings), run.run_id)
    known = sorted(path.parent.name for path in runs.glob(f"*/{SUMMARY}"))
    raise ConfigError(
        f"There is no finished run {name!r} in {runs}.",
        f"Name one of {', '.join(known[-5:]) or '(none)'}, `latest`, or the MLflow id of a pipeline run.",
    )


def _compared(folder: Path, settings: dict[str, str], mlflow_run_id: str | None) -> Compared:
    samples = folder / SAMPLES
    return Compared(read_summary(str(folder / SUMMARY)), settings, samples if samples.is_dir() else None, mlflow_run_id)


def _tracked_as(folder: Path) -> str | None:
    """The MLflow run that a local run reported to."""
    note = folder / "run.json"
    if not note.is_file():
        return None
    tracking = store.read_json(str(note.resolve()))["parameters"]["tracking"]
    return TrackingRef.model_validate_json(tracking).parent_run_id if tracking else None


def vote(files: Sequence[Path], tracking: str) -> list[tuple[str, str, Tally]]:
    """Tell MLflow the votes in some files; returns for each pair both runs and what all its sessions say."""
    pairs: dict[tuple[str, str], Tally] = {}
    for votes in [read_votes(path) for path in files]:  # all are checked before any is told
        pairs[votes.a.run, votes.b.run] = record_votes(tracking, votes, int(time.time() * 1000))
    return [(a, b, counted) for (a, b), counted in pairs.items()]
