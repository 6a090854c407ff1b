"""Searches over PostgreSQL whose coordinator or server is killed: every trial counts once, and no secret is told."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import mlflow
import pytest
import tune_job
from coordinator import notes, searched
from postgres import Postgres, postgres
from ray_cluster import Cluster, cluster, until

from sonarc.contracts import store
from sonarc.contracts.errors import StoreError
from sonarc.contracts.result import StageRequest, read_result
from sonarc.tracking.runs import open_parent
from sonarc.tuning.storage import VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
TRIALS = 4
JOB_SECONDS = 400.0
_seeds = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture(scope="module")
def running(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv(VARIABLE, server.url)
        with cluster(tmp_path_factory.mktemp("cluster")) as found:
            yield found


@pytest.fixture
def request_(tmp_path: Path, running: Cluster, monkeypatch: pytest.MonkeyPatch) -> StageRequest:
    """A search of four trials, one at a time, tracked; its seed makes the study its own."""
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path / "cache"))
    settings = searched(f"tune.trials={TRIALS}", f"tune.seed={next(_seeds)}", "compute.tune_patience=2")
    tracking = open_parent(f"sqlite:///{tmp_path / 'mlflow.db'}", "tests", "search", {}, {})
    return tune_job.request_for(tmp_path, settings, tracking)


def test_a_killed_job_is_started_again_and_tells_no_secret(
    request_: StageRequest, running: Cluster, server: Postgres, tmp_path: Path
) -> None:
    first = tune_job.start(request_, tmp_path / "first.log", running.address, running.env)
    until(lambda: notes(tmp_path, "measured"), "a trial")
    (tmp_path / "hold").touch()
    held = _held(tmp_path)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    second = tune_job.start(request_, tmp_path / "second.log", running.address, running.env)
    begun = len(notes(tmp_path, "began"))
    until(lambda: len(notes(tmp_path, "began")) > begun, "the second to begin a trial")
    (tmp_path / "hold").unlink()  # whichever it is: the killed one comes again once it shows no sign of life
    assert second.wait(JOB_SECONDS) == 0, (tmp_path / "second.log").read_text()

    began, measured = Counter(notes(tmp_path, "began")), Counter(notes(tmp_path, "measured"))
    assert began.pop(f"began {held}") == 2 and set(began.values()) == {1}
    assert len(measured) == TRIALS and set(measured.values()) == {1}
    result = read_result(request_.folder())
    assert result.counts["trials"] == TRIALS and result.counts["failed"] == 0
    assert request_.tracking is not None
    runs = mlflow.MlflowClient(request_.tracking.uri).search_runs(["1"])
    below = [run.info.run_name for run in runs if run.data.tags.get("mlflow.parentRunId") == result.mlflow_run_id]
    assert sorted(below) == [f"trial-{n}" for n in range(TRIALS)]
    told = [file for file in tmp_path.rglob("*") if file.is_file() and server.password.encode() in file.read_bytes()]
    assert not told and server.password not in (running.folder / "head.log").read_text()


def test_two_jobs_share_one_study(request_: StageRequest, running: Cluster, tmp_path: Path) -> None:
    both = [
        tune_job.start(request_, tmp_path / f"{name}.log", running.address, running.env) for name in ("one", "other")
    ]
    assert [process.wait(JOB_SECONDS) for process in both] == [0, 0]
    measured = Counter(notes(tmp_path, "measured"))
    assert len(measured) == TRIALS and set(measured.values()) == {1}
    weights = read_result(request_.folder()).outputs["weights"]
    assert [trial["number"] for trial in store.read_json(weights.uri)["trials"]] == list(range(TRIALS))


def test_a_server_that_dies_ends_the_job_in_one_sentence_and_the_next_goes_on(
    request_: StageRequest, running: Cluster, server: Postgres, tmp_path: Path
) -> None:
    first = tune_job.start(request_, tmp_path / "first.log", running.address, running.env)
    until(lambda: notes(tmp_path, "measured"), "a trial")
    (tmp_path / "hold").touch()
    _held(tmp_path)
    server.stop()
    (tmp_path / "hold").unlink()
    assert first.wait(JOB_SECONDS) == StoreError.exit_code
    error = read_result(request_.folder()).error
    assert error is not None and "cannot be used" in error.message and server.password not in error.message
    server.start()
    second = tune_job.start(request_, tmp_path / "second.log", running.address, running.env)
    assert second.wait(JOB_SECONDS) == 0, (tmp_path / "second.log").read_text()
    assert read_result(request_.folder()).counts["failed"] == 0


def _held(folder: Path) -> str:
    """The trial that is held in its measurement."""

    def found() -> list[str]:
        return list(Counter(notes(folder, "began")) - Counter(_begun(notes(folder, "measured"))))

    time.sleep(1.0)  # for one that did not see the hold
    until(lambda: bool(found()), "a trial to be held")
    return found()[0].removeprefix("began ")


def _begun(measured: list[str]) -> list[str]:
    return [line.replace("measured", "began") for line in measured]
