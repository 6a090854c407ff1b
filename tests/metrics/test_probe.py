"""The class probe and the check for copying, on sets with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from sonarc.contracts.errors import DataError
from sonarc.metrics.memorisation import nearest, nearness
from sonarc.metrics.probe import ClassProbe, class_of


def _clouds(count: int, seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    rng = np.random.default_rng(seed)
    names = ["flute", "drum", "harp"]
    labels = [names[n % 3] for n in range(count)]
    centres = np.eye(3, 8, dtype=np.float32) * 6
    vectors = np.stack([centres[names.index(label)] for label in labels]) + rng.standard_normal((count, 8))
    return {"a": vectors[:, :4].astype(np.float32), "b": vectors[:, 4:].astype(np.float32)}, labels


def test_a_probe_names_what_it_learnt_and_knows_what_it_never_did() -> None:
    probe = ClassProbe.fit(*_clouds(90, 0), ("a", "b"))
    vectors, labels = _clouds(60, 1)
    assert np.mean(probe.right(vectors, labels)) > 0.95
    wrong = ["flute" if label != "flute" else "drum" for label in labels]
    assert np.mean(probe.right(vectors, wrong)) < 0.4
    assert np.isnan(probe.right(vectors, ["kazoo"] * 60)).all()
    noise = {name: np.random.default_rng(2).standard_normal((300, 4)).astype(np.float32) for name in ("a", "b")}
    assert 0.1 < np.mean(probe.right(noise, ["harp"] * 300)) < 0.6


def test_a_class_with_few_clips_is_not_learnt() -> None:
    vectors, labels = _clouds(60, 0)
    labels[0] = "kazoo"
    assert "kazoo" not in ClassProbe.fit(vectors, labels, ("a",)).classes
    with pytest.raises(DataError, match="fewer than two"):
        ClassProbe.fit(vectors, ["flute"] * 60, ("a",))


@pytest.mark.parametrize(
    ("concept", "name"),
    [
        ('{"kind":"score","instrument":"harp"}', "harp"),
        ('{"kind":"recorded","category":"loop"}', "loop"),
        ('{"kind":"tone"}', "tone"),
        ("{}", ""),
    ],
)
def test_the_class_of_a_concept(concept: str, name: str) -> None:
    assert class_of(concept) == name


def test_copies_lie_nearer_than_new_clips_do() -> None:
    rng = np.random.default_rng(0)
    train, real = rng.standard_normal((500, 16)), rng.standard_normal((400, 16))
    real_N = nearest(real, train)
    assert nearness(real_N, real_N).beyond == pytest.approx(0.01, abs=0.005)
    new = nearness(nearest(rng.standard_normal((400, 16)), train), real_N)
    assert new.beyond < 0.05 and new.median == pytest.approx(np.median(real_N), abs=0.03)
    copies = nearness(nearest(train[:300] * 2 + 1e-3, train), real_N)
    assert copies.beyond == 1.0 and copies.median == pytest.approx(1.0, abs=1e-4)


def test_neighbours_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        nearest(np.zeros((3, 4)), np.zeros((2, 5)))
