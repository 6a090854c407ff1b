"""What rows say of each other: differences on the same prompts, and whether a model copies what it learnt from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sonarc.metrics.memorisation import Nearness, nearest, nearness
from sonarc.metrics.scoring import Row
from sonarc.study.design import ARC
from sonarc.study.result import Copying
from sonarc.study.scores import Judge, StudyDifference, StudyRow

COMPARED = (
    "fd", "fd_second", "adherence", "accuracy", "in_register", "in_key", "tempo", "recall", "coverage", "diversity",
)  # fmt: skip
LOWER = ("fd", "fd_second")

Scored = Mapping[str, tuple[StudyRow, Row]]
"""Rows by name, as they are told and as the scorer takes them."""


def differences(scored: Scored, judge: Judge, base_steps: Sequence[int]) -> Iterator[StudyDifference]:
    """ARC against the base at equal steps and at its most, each ablation against ARC: same prompts, same noise."""
    rows = [row for row, _ in scored.values()]
    for row in rows:
        if row.model == ARC:
            for steps in sorted({row.steps, max(base_steps)} & set(base_steps)):
                rivals = [r for r in rows if r.model == "base" and r.steps == steps]
                yield from _against_best(row, rivals, scored, judge)
        elif row.model not in ("real", "codec", "base"):
            same = [r for r in rows if (r.model, r.steps, r.training_seed) == (ARC, row.steps, row.training_seed)]
            yield from _against_best(row, same, scored, judge)


def _against_best(row: StudyRow, rivals: Sequence[StudyRow], scored: Scored, judge: Judge) -> Iterator[StudyDifference]:
    """Every column against the rival that is best in it."""
    for column in COMPARED:
        known = [rival for rival in rivals if getattr(rival, column) is not None]
        if not known:
            continue
        sign = -1 if column in LOWER else 1
        best = max(known, key=lambda rival: sign * getattr(rival, column))
        found = judge.difference(column, scored[row.name], scored[best.name])
        if found is not None:
            yield found


def copies(scored: Scored, judge: Judge, space_name: str) -> list[Copying]:
    """How near the clips of each model lie to train clips, beside how near real held-out ones do."""
    space = judge.scorer.reference.spaces[space_name]
    train_MK = space.pca(space.train_ME)
    real_N = nearest(space.real_NK, train_MK)
    found = [_copying("real", nearness(real_N, real_N))]
    for name, (_, row) in scored.items():
        if row.model in ("base", "generator"):
            near_N = nearest(space.pca(row.vectors[space.name]), train_MK)
            found.append(_copying(name, nearness(near_N, real_N)))
    return found


def _copying(row: str, found: Nearness) -> Copying:
    return Copying(row=row, median=found.median, high=found.high, beyond=found.beyond)
