"""The sheet of scale, on a model so small that only its rows mean something."""

from __future__ import annotations

import pytest

from sonarc.bench.scale import ScaleSize, measure

SMALL = ("dit.width=32", "dit.depth=4", "dit.heads=2", "dit.cond_width=32", "audio.samples=65536")


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_row_is_measured() -> None:
    sheet = measure(ScaleSize(SMALL, batch=8, clips=24, steps=2, rounds=2, kills=1))
    found = {row.name: row for row in sheet.rows}
    assert found["train_overhead"].wanted == 0.05
    assert found["ddp_efficiency_2"].floor is not None
    assert all(found[f"resume_seconds_{name}"].value > 0 for name in ("worker", "driver", "raylet"))
    assert all(found[f"start_seconds.{name}"].value > 0 for name in ("bare", "ray", "pair"))
