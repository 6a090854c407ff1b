"""Checkpoints are written while the training goes on, and hold what it was when they were begun."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from sonarc.checkpoint import claim_attempt, load_checkpoint
from sonarc.contracts.checkpoint import newest
from sonarc.contracts.errors import CheckpointError, StoreError
from sonarc.training import saving
from sonarc.training.saving import KEEP, Saver


def begin(saver: Saver, step: int, weight: torch.Tensor) -> None:
    saver.save(
        kind="base", step=step, position=step, model={"w": weight}, state={"opt": {"m": weight}}, config={},
        config_sha256="x", lineage={},
    )  # fmt: skip


def test_a_checkpoint_holds_what_was_there_when_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, written = threading.Event(), saving.save_checkpoint

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert gate.wait(10)
        return written(*args, **kwargs)

    monkeypatch.setattr(saving, "save_checkpoint", slow)
    place = tmp_path.as_uri()
    saver, weight = Saver(place, claim_attempt(place)), torch.zeros(3)
    begin(saver, 1, weight)
    weight += 1.0  # the training goes on
    assert newest(place) is None
    gate.set()
    saver.finish()

    found = newest(place)
    assert found is not None
    stored = load_checkpoint(found[0])
    assert stored.model["w"].tolist() == stored.state["opt"]["m"].tolist() == [0.0, 0.0, 0.0]


def test_they_come_in_order_and_few_stay(tmp_path: Path) -> None:
    place = tmp_path.as_uri()
    saver = Saver(place, claim_attempt(place))
    for step in range(1, 6):
        begin(saver, step, torch.full((2,), float(step)))
    saver.finish()

    found = newest(place)
    assert found is not None and found[1].step == 5
    assert len(list(tmp_path.glob("step-*"))) == KEEP


def test_what_fails_behind_its_back_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path.as_uri()
    saver = Saver(place, claim_attempt(place))
    claim_attempt(place)  # another attempt takes over
    begin(saver, 1, torch.zeros(1))
    with pytest.raises(CheckpointError, match="has taken over"):
        begin(saver, 2, torch.zeros(1))

    def full(*args: Any, **kwargs: Any) -> Any:
        raise StoreError("The disk is full.", "Free some space.")

    monkeypatch.setattr(saving, "save_checkpoint", full)
    begin(saver, 3, torch.zeros(1))
    with pytest.raises(StoreError, match="disk is full"):
        saver.finish()
    saver.finish()  # said once
