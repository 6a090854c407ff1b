"""A real server with two ingresses: limits across them, clients that leave, a stop under load, and the benchmark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from serving import control
from serving.bench import measure
from serving.keys import add_key
from serving.state import ServedModel, ServeState
from sonarc.contracts.config import ServeConfig

pytestmark = pytest.mark.slow

GENERATIONS = "/v1/audio/generations"
SHORT = {"prompt": "a kick drum", "seconds": 0.2, "seed": 1, "steps": 2}


@pytest.fixture(scope="module")
def server(
    served: tuple[ServedModel, ServedModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServeState, Path, dict[str, str], dict[str, str]]]:
    folder = tmp_path_factory.mktemp("runs")
    keys = folder / "keys.json"
    free, tight = add_key(keys, "free"), add_key(keys, "tight", requests_per_minute=4)
    config = ServeConfig(threads=1, ingress_replicas=2, max_batch=2, keys_file=str(keys))
    state = control.deploy(
        served[0].package_uri, served[0].package_sha256, config, folder, version="3", candidate=served[1]
    )
    yield state, folder, {"authorization": f"Bearer {free}"}, {"authorization": f"Bearer {tight}"}
    control.stop(folder)


def ask(address: str, headers: dict[str, str], timeout: float = 60.0, **body: object) -> httpx.Response:
    url = f"{address}{GENERATIONS}"
    return httpx.post(url, json=SHORT | body, headers=headers, timeout=timeout, trust_env=False)


def test_limits_hold_across_ingresses(server: tuple[ServeState, Path, dict[str, str], dict[str, str]]) -> None:
    state, _, free, tight = server
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: ask(state.address, tight), range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 8
    assert ask(state.address, free).status_code == 200
    assert ask(state.address, {}).status_code == 401


def test_client_that_leaves_frees_the_worker(server: tuple[ServeState, Path, dict[str, str], dict[str, str]]) -> None:
    state, _, free, _ = server
    before = ask(state.address, free).content
    for _ in range(3):
        with pytest.raises(httpx.TimeoutException):
            ask(state.address, free, timeout=0.3, steps=50, seconds=0.7, n=8)
    begun = time.monotonic()
    assert ask(state.address, free).content == before
    assert time.monotonic() - begun < 5.0
    metrics = httpx.get(f"{state.address}/metrics", trust_env=False).text
    assert 'code="client_gone"' in metrics


def test_candidate_answers_who_pins_it(server: tuple[ServeState, Path, dict[str, str], dict[str, str]]) -> None:
    state, _, free, _ = server
    assert ask(state.address, free, model="candidate").headers["x-sonarc-model"] == "sonarc/4"


def test_job_runs_and_is_followed(server: tuple[ServeState, Path, dict[str, str], dict[str, str]]) -> None:
    state, _, free, _ = server
    url = f"{state.address}{GENERATIONS}/jobs"
    job = httpx.post(url, json=SHORT | {"steps": 30}, headers=free, trust_env=False).json()
    with httpx.stream("GET", f"{url}/{job['id']}/events", headers=free, timeout=60, trust_env=False) as events:
        statuses = [line.removeprefix("event: ") for line in events.iter_lines() if line.startswith("event: ")]
    assert statuses[-1] == "succeeded"
    assert httpx.get(f"{url}/{job['id']}/audio/0", headers=free, trust_env=False).content[:4] == b"RIFF"


def test_stop_lets_what_was_admitted_end(server: tuple[ServeState, Path, dict[str, str], dict[str, str]]) -> None:
    state, folder, free, _ = server
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(ask, state.address, free, steps=50, seconds=0.7, seed=seed) for seed in range(4)]
        time.sleep(0.5)
        control.stop(folder)
        assert [answer.result().status_code for answer in asked] == [200] * 4


def test_benchmark_in_small(served: tuple[ServedModel, ServedModel]) -> None:
    sheet = measure(served[0].package_uri, seconds=2.0, soak_s=2.0, console=Console(quiet=True))
    rows = {row.name: row for row in sheet.rows}
    for name in ("overload_other_status", "switch_failed", "kill_lost_admitted"):
        assert rows[name].value == 0, rows[name]
    for name in ("overhead_ms", "throughput_fraction", "admitted_p99_s", "rss_growth"):
        assert rows[name].value >= 0 and rows[name].wanted is not None
