"""An alias that moves in the registry becomes what the server is told to serve."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serving.follow import Follower, resolve
from serving.state import Desired, Lineup, ServedModel, Source, read_desired, write_desired
from sonarc.contracts.config import ServeConfig
from sonarc.tracking.registry import Registry


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(
        tracking=f"sqlite:///{tmp_path}/mlflow.db",
        store=(tmp_path / "store").as_uri(),
        model="sonarc",
        alias="champion",
        candidate_alias="candidate",
    )


def test_moved_aliases_are_told_once_and_a_refused_one_is_not_tried_for_ever(
    tmp_path: Path, source: Source, served: tuple[ServedModel, ServedModel]
) -> None:
    registry = Registry(source.tracking, source.store)
    assert resolve(source) is None
    one, two = (registry.register("sonarc", each.package_uri) for each in served)
    registry.move("sonarc", "champion", one.version, "first")
    follower = Follower(tmp_path, source, 1.0, threading.Event())
    write_desired(tmp_path, Desired(attempt="a", served=served[1], source=source, config=ServeConfig()))

    follower.ask()
    told = read_desired(tmp_path)
    assert told is not None and told.attempt != "a" and told.source == source
    assert told.lineup == Lineup(champion=ServedModel.model_validate(one.model_dump()))

    registry.move("sonarc", "candidate", two.version, "to be tried")
    follower.ask()
    told = read_desired(tmp_path)
    assert told is not None and told.candidate is not None and told.candidate.version == two.version

    # The server goes on with what it had, and somebody else says so: the same answer changes nothing.
    write_desired(tmp_path, told.model_copy(update={"candidate": None, "attempt": "b"}))
    follower.ask()
    told = read_desired(tmp_path)
    assert told is not None and told.attempt == "b"

    registry.move("sonarc", "champion", two.version, "promoted")
    follower.ask()
    told = read_desired(tmp_path)
    assert told is not None and (told.served.version, told.candidate) == (two.version, None)
