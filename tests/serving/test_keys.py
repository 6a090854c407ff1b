"""Keys and limits: who gets in, how often, and what a revoked key gets."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from endpoint import Endpoint, refused, running
from typer.testing import CliRunner

from pipelines.cli import app
from serving.errors import ApiError
from serving.keys import KeyRing, add_key, keys_path, read_keys, revoke_key
from serving.limits import Limiter
from serving.state import ServedModel
from serving.work import Denied, Ticket
from sonarc.contracts.errors import ServingError

Served = tuple[ServedModel, ServedModel]


def ticket(key: str = "a", clips: int = 1, **limits: float) -> Ticket:
    return Ticket(key, clips, **({"per_minute": 0, "concurrent": 0, "lease_s": 10, "pinned": False} | limits))  # type: ignore[arg-type]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_file_keeps_only_hashes_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secrets = [add_key(path, name) for name in ("studio", "web")]
    text = path.read_text()
    assert not any(secret in text or secret.split("-", 1)[1] in text for secret in secrets)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing(path)
    assert [ring.identify(secret).id for secret in secrets] == ["studio", "web"]


def test_revoked_and_added_keys_count_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret = add_key(path, "studio")
    ring = KeyRing(path)
    assert ring.identify(secret).id == "studio"
    other = add_key(path, "web")
    revoke_key(path, "studio")
    with pytest.raises(ApiError) as caught:
        ring.identify(secret)
    assert caught.value.status == 401
    assert ring.identify(other).id == "web"


@pytest.mark.parametrize("content", ["", "{}x", '{"schema": "other"}', '{"schema": "sonarc.keys/1", "keys": [{}]}'])
def test_unreadable_file_lets_nobody_in(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    secret = add_key(path, "studio")
    ring = KeyRing(path)
    path.write_text(content)
    with pytest.raises(ApiError) as caught:
        ring.identify(secret)
    assert caught.value.status == 503
    with pytest.raises(ServingError, match=r"keys\.json"):
        read_keys(path)


def test_names_are_distinct_and_plain(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "studio")
    for name in ("studio", "", "a b", "x" * 41):
        with pytest.raises(ServingError):
            add_key(path, name)
    with pytest.raises(ServingError, match="no key 'web'"):
        revoke_key(path, "web")


def test_environment_names_the_file_where_the_settings_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONARC_SERVE_KEYS", raising=False)
    assert keys_path("") is None
    monkeypatch.setenv("SONARC_SERVE_KEYS", str(tmp_path / "a"))
    assert keys_path("") == tmp_path / "a"
    assert keys_path(str(tmp_path / "b")) == tmp_path / "b"


def test_bucket_refills_and_counts_clips() -> None:
    now = 0.0
    limiter = Limiter(lambda: now)
    assert limiter.admit(ticket(clips=50, per_minute=60)) == 0
    assert limiter.admit(ticket(clips=10, per_minute=60)) == 0
    denied = limiter.admit(ticket(clips=5, per_minute=60))
    assert denied == Denied("rate", 5)
    assert limiter.admit(ticket("b", per_minute=60)) == 0  # another key's bucket is its own
    now = 5.0
    assert limiter.admit(ticket(clips=5, per_minute=60)) == 0
    now = 1e6
    assert limiter.admit(ticket(clips=99, per_minute=60)) == 0  # more than a minute's worth costs the minute


def test_leases_are_given_back_or_end_by_themselves() -> None:
    now = 0.0
    limiter = Limiter(lambda: now)
    first, second = (limiter.admit(ticket(concurrent=2)) for _ in range(2))
    assert isinstance(first, int) and isinstance(second, int)
    assert limiter.admit(ticket(concurrent=2)) == Denied("concurrency")
    limiter.release(first)
    assert isinstance(limiter.admit(ticket(concurrent=2)), int)
    now = 11.0
    assert isinstance(limiter.admit(ticket(concurrent=1)), int)  # their holders died


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    free = add_key(path, "free", requests_per_minute=0, concurrent_requests=0)
    return path, free, add_key(path, "tight", requests_per_minute=3, concurrent_requests=1)


@pytest.fixture(scope="module")
async def endpoint(served: Served, keys: tuple[Path, str, str]) -> AsyncIterator[Endpoint]:
    async with running(served[0], keys=keys[0], requests_per_minute=1) as endpoint:
        yield endpoint


@pytest.mark.anyio
async def test_missing_or_wrong_key_is_401_on_every_route_but_the_probes(
    endpoint: Endpoint, keys: tuple[Path, str, str]
) -> None:
    for headers in ({}, bearer("wrong"), bearer(""), {"authorization": keys[1]}, {"x-api-key": keys[1] + "x"}):
        error = await endpoint.ask(headers=headers)
        refused(error, 401, "unauthorized")
        assert error.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/v1/audio/generations/jobs/x", "/v1/audio/generations/jobs/x/events"):
        refused(await endpoint.client.get(path), 401)
    for path in ("/v1/audio/speech", "/v1/sound-generation", "/v1/audio/generations/jobs"):
        refused(await endpoint.client.post(path, json={}), 401)
    for path in ("/healthz", "/readyz"):
        assert (await endpoint.client.get(path)).status_code == 200


@pytest.mark.anyio
async def test_right_key_gets_in_in_every_form(endpoint: Endpoint, keys: tuple[Path, str, str]) -> None:
    for headers in (bearer(keys[1]), {"x-api-key": keys[1]}, {"xi-api-key": keys[1]}):
        assert (await endpoint.ask(headers=headers)).status_code == 200


@pytest.mark.anyio
async def test_limits_are_the_keys_own(endpoint: Endpoint, keys: tuple[Path, str, str]) -> None:
    tight = bearer(keys[2])
    first, second = await asyncio.gather(*(endpoint.ask({"steps": 20}, headers=tight) for _ in range(2)))
    assert {first.status_code, second.status_code} == {200, 429}
    refused(first if first.status_code == 429 else second, 429, "concurrency_limit")
    await endpoint.settled()
    assert (await endpoint.ask(headers=tight)).status_code == 200
    await endpoint.settled()
    denied = await endpoint.ask({"n": 2}, headers=tight)
    refused(denied, 429, "rate_limit")
    assert 1 <= int(denied.headers["retry-after"]) <= 60
    assert (await endpoint.ask(headers=bearer(keys[1]))).status_code == 200


def test_commands_make_list_and_revoke(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    run = CliRunner()
    secret = run.invoke(app, ["keys", "add", "studio", "--file", path, "--per-minute", "60"]).stdout.strip()
    assert KeyRing(Path(path)).identify(secret).requests_per_minute == 60
    listed = run.invoke(app, ["keys", "list", "--file", path]).stdout
    assert "studio" in listed and "60" in listed and secret not in listed
    assert run.invoke(app, ["keys", "revoke", "studio", "--file", path]).exit_code == 0
    assert run.invoke(app, ["keys", "revoke", "studio", "--file", path]).exit_code == ServingError.exit_code
