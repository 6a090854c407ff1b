"""A real server of a tiny package: started, asked, swapped, stopped; nothing of it is left behind."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import soundfile
from tiny_package import SAMPLES, make_package

from serving import control
from serving.schema import MAX_BODY_BYTES
from serving.smoke import check_endpoint
from serving.state import ServeState, own_processes, read_state
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import ServingError
from sonarc.contracts.package import PackageManifest

Package = tuple[str, PackageManifest]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Package]:
    folder = tmp_path_factory.mktemp("packages")
    return make_package(folder, 0), make_package(folder, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("runs")
    yield folder
    control.stop(folder)


@pytest.fixture(scope="module")
def server(packages: tuple[Package, Package], runs: Path) -> Iterator[ServeState]:
    """The server of the first package, on another port than the one that is taken."""
    (uri, manifest), _ = packages
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = ServeConfig(port=taken.getsockname()[1], threads=1, max_queued=2, max_batch=2)
        state = control.deploy(uri, manifest.sha256(), config, runs, version="3")
        assert not state.address.endswith(f":{config.port}")
    yield state


def ask(state: ServeState, body: object = None, **options: object) -> httpx.Response:
    fields = {"prompt": "a kick drum", "seconds": 0.3, "seed": 1} | (body if isinstance(body, dict) else {})
    request: dict[str, object] = {"json": fields, "timeout": 60.0, "trust_env": False} | options
    if "content" in request:
        request.pop("json")
    return httpx.post(f"{state.address}/v1/audio/generations", **request)  # type: ignore[arg-type]


def get(state: ServeState, path: str) -> httpx.Response:
    return httpx.get(f"{state.address}{path}", timeout=30.0, trust_env=False)


def test_answer_is_the_asked_audio(server: ServeState) -> None:
    report = check_endpoint(server.address, seconds=0.5, package_sha256=server.package_sha256)
    assert report.seconds == pytest.approx(0.5, abs=1e-4)
    answer = ask(server, {"response_format": "flac"})
    audio_SA, rate = soundfile.read(io.BytesIO(answer.content))
    assert (audio_SA.shape, rate) == ((round(0.3 * 44_100), 2), 44_100)
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["x-sonarc-seed"] == "1"
    assert answer.headers["x-sonarc-model"] == "sonarc/3"
    assert answer.headers["x-sonarc-package"] == server.package_sha256
    assert float(answer.headers["x-sonarc-seconds"]) == pytest.approx(0.3, abs=1e-3)


def test_seed_gives_the_same_bytes_and_its_absence_another_each_time(server: ServeState) -> None:
    assert ask(server).content == ask(server).content
    free = [ask(server, {"seed": None}) for _ in range(2)]
    assert [a.status_code for a in free] == [200, 200]
    assert free[0].headers["x-sonarc-seed"] != free[1].headers["x-sonarc-seed"]
    again = ask(server, {"seed": int(free[0].headers["x-sonarc-seed"])})
    assert again.content == free[0].content


def test_other_routes_answer(server: ServeState) -> None:
    assert get(server, "/healthz").json() == {"status": "ok"}
    assert get(server, "/readyz").json()["package_sha256"] == server.package_sha256
    (model,) = get(server, "/v1/models").json()["data"]
    assert model["max_seconds"] == pytest.approx(SAMPLES / 44_100)
    document = get(server, "/openapi.json").json()
    assert {"/v1/audio/generations", "/v1/audio/speech", "/v1/models", "/metrics"} <= set(document["paths"])
    assert "sonarc_requests_total" in get(server, "/metrics").text
    page = get(server, "/")
    assert "<h1>Sonarc</h1>" in page.text and "://" not in page.text  # nothing is loaded from elsewhere


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"x" * (MAX_BODY_BYTES + 1), "headers": {"content-type": "application/json"}}, 413),
        ({"content": b"x" * 50_000_000, "headers": {"content-type": "application/json"}}, 413),
        ({"content": b"prompt=x", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 415),
        ({"json": {"prompt": "x", "seconds": 99}}, 422),
    ],
)
def test_refusals_have_one_shape(server: ServeState, options: dict[str, object], status: int) -> None:
    answer = ask(server, None, **options)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "field", "hint", "request_id"}
    assert answer.headers["x-request-id"] == error["request_id"]


def test_unknown_route_and_method_have_that_shape_too(server: ServeState) -> None:
    assert get(server, "/nothing").json()["error"]["code"] == "not_found"
    assert get(server, "/v1/audio/generations").json()["error"]["code"] == "method_not_allowed"


def test_full_queue_is_429_with_a_time_to_come_back(server: ServeState) -> None:
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda seed: ask(server, {"seed": seed, "steps": 50}), range(24)))
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "too_busy"


def test_nothing_listens_beyond_loopback(server: ServeState) -> None:
    listening = [
        connection.laddr.ip
        for process in own_processes(server.id)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert all(ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for ip in listening), listening


def test_same_package_keeps_the_server(server: ServeState, runs: Path, packages: tuple[Package, Package]) -> None:
    (uri, manifest), _ = packages
    assert control.deploy(uri, manifest.sha256(), server.config, runs, version="3") == server


def test_package_that_is_not_what_it_should_be_is_refused_and_the_old_one_stays(
    server: ServeState, runs: Path, packages: tuple[Package, Package]
) -> None:
    _, (uri, _) = packages
    for _ in range(2):  # a second attempt is judged anew
        with pytest.raises(ServingError, match="refused the package"):
            control.deploy(uri, "0" * 64, server.config, runs)
    assert get(server, "/readyz").json()["package_sha256"] == server.package_sha256


def test_other_package_is_swapped_in_while_requests_run(
    server: ServeState, runs: Path, packages: tuple[Package, Package]
) -> None:
    before = ask(server).content
    _, (uri, manifest) = packages
    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(control.deploy, uri, manifest.sha256(), server.config, runs, version="4")
        statuses = set()
        while not swapping.done():
            statuses.add(ask(server).status_code)
        state = swapping.result()
    assert statuses <= {200}
    assert (state.pid, state.package_sha256) == (server.pid, manifest.sha256())
    answer = ask(state)
    assert answer.headers["x-sonarc-model"] == "sonarc/4"
    assert answer.content != before


def test_stop_leaves_nothing(server: ServeState, runs: Path) -> None:
    state = read_state(runs)
    assert state is not None
    recorded = [process.pid for process in state.processes]
    assert control.stop(runs) >= len(recorded)
    assert own_processes(server.id) == []
    assert not [pid for pid in recorded if psutil.pid_exists(pid)]
    assert not Path(state.folder).exists()
    assert control.status(runs) is None
    assert control.stop(runs) == 0


def test_smoke_names_what_is_wrong() -> None:
    with pytest.raises(ServingError, match="did not answer"):
        check_endpoint("http://127.0.0.1:9", seconds=1.0, package_sha256="x")


def test_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="before it was ready"):
        control.deploy((tmp_path / "absent").as_uri(), "0" * 64, ServeConfig(threads=1), tmp_path)
    assert read_state(tmp_path) is None


@pytest.mark.slow
def test_supervisor_killed_outright_leaves_nothing_after_stop(
    packages: tuple[Package, Package], tmp_path: Path
) -> None:
    (uri, manifest), _ = packages
    state = control.deploy(uri, manifest.sha256(), ServeConfig(threads=1), tmp_path)
    psutil.Process(state.pid).kill()
    psutil.wait_procs([psutil.Process(state.pid)], timeout=10)
    assert control.status(tmp_path) is None
    control.stop(tmp_path)
    assert own_processes(state.id) == []
    assert read_state(tmp_path) is None
