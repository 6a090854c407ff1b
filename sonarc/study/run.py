"""The study, part after part. Every part is kept, so that a stopped study goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property, partial

import numpy as np
import torch

from sonarc.contracts import store
from sonarc.contracts.hashing import sha256_json
from sonarc.metrics.scoring import STATED, Row
from sonarc.runtime.generate import Sampling
from sonarc.runtime.sampled import SampledCheckpoint
from sonarc.study.comparing import copies, differences
from sonarc.study.design import ARC, StudyDesign
from sonarc.study.heard import Heard
from sonarc.study.material import Material
from sonarc.study.result import Choice, Copying, StudyResult, TrainingLine
from sonarc.study.scores import Entry, Judge, StudyRow
from sonarc.study.timing import Timing, Way, timings
from sonarc.study.trainings import Trained, Trainings


@dataclass
class Study:
    """A study in the making.

    Attributes:
        material: what its rows are made of and judged by.
    """

    material: Material
    rows: dict[str, tuple[StudyRow, Row]] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    copying: list[Copying] = field(default_factory=list)
    lines: list[TrainingLine] = field(default_factory=list)
    timings: tuple[Timing, ...] = ()

    def run(self) -> Iterator[StudyResult]:
        """Every part in turn; what is known so far after each."""
        torch.set_num_threads(self.material.threads)
        design = self.design
        base = self._trained(self.trainings.base(design.config))
        yield from self._real_rows()
        # What the main question needs comes first.
        main = [steps for steps in design.base_steps if steps in design.ablation_steps]
        yield from self._base_rows(base, main)
        configs = design.arms()
        arms = [(arm, seed) for seed in design.training_seeds for arm in configs]
        yield from self._arm_rows(base, arms[:1])
        yield from self._base_rows(base, [steps for steps in design.base_steps if steps not in main])
        yield from self._arm_rows(base, arms[1:])
        self.copying = copies(self.rows, self.material.test, design.config.evaluate.spaces[0])
        self._time(base, self.trainings.arm(ARC, configs[ARC], design.training_seeds[0], base))
        yield self.result(done=True)

    def attempt(self, name: str, design: StudyDesign) -> list[StudyRow]:
        """Train ARC with other settings, and score it on validation: how settings are chosen."""
        torch.set_num_threads(self.material.threads)
        base = self.trainings.base(self.design.config)
        trained = self.trainings.arm(name, design.config.arc, design.training_seeds[0], base)
        return [self._validated(name, trained, Sampling("generator", steps)) for steps in design.ablation_steps]

    def result(self, *, done: bool = False) -> StudyResult:
        """What is known so far."""
        return StudyResult(
            design=self.design.model_dump(mode="json"),
            design_sha256=self.design.sha256(),
            done=done,
            trainings=tuple(self.lines),
            choices=tuple(self.choices),
            rows=tuple(self._timed(row) for row, _ in self.rows.values()),
            differences=tuple(differences(self.rows, self.material.test, self.design.base_steps)),
            copying=tuple(self.copying),
            timings=self.timings,
        )

    @property
    def design(self) -> StudyDesign:
        """What it sets out to do."""
        return self.material.design

    @cached_property
    def trainings(self) -> Trainings:
        """Trains, or finds what is trained."""
        place, made = store.join(self.material.folder, "trainings"), self.material.made
        return Trainings(place, made.dataset_uri, made.latents_uri, made.latents_sha256, self.material.tell)

    def _trained(self, trained: Trained) -> Trained:
        self.lines.append(
            TrainingLine(
                name=trained.name, iterations=trained.iterations, seconds=trained.seconds, sha256=trained.sha256
            )
        )
        return trained

    def _real_rows(self) -> Iterator[StudyResult]:
        """Train clips against held-out ones as the floor of distances, held-out ones' agreement, and the codec."""
        judge, n = self.material.test, self.design.clips
        keys, _, heard = self.material.train
        some = np.sort(np.random.default_rng(self.design.sampling_seed).permutation(len(keys))[:n])
        floor = Entry("real", 0, 1.0, Heard({name: vectors[some] for name, vectors in heard.vectors.items()}))
        row = judge.row(floor, keys=[keys[i] for i in some])
        scored = judge.scored(floor, row)
        held_out = Entry("real", 0, 1.0, judge.real)
        agreement = judge.scored(held_out, judge.row(held_out))
        own = ("adherence", *STATED)
        spans = {name: span for name, span in agreement.intervals.items() if name in own}
        update = {name: getattr(agreement, name) for name in own} | {"intervals": {**scored.intervals, **spans}}
        scored = scored.model_copy(update=update)
        self.rows[scored.name] = (scored, row)
        identity = {
            "codec": self.material.codec.sha256,
            "rebuilt": judge.tasks.keys,
            "dataset": self.material.dataset_sha256,
        }
        rebuilt = Entry(
            "codec",
            0,
            1.0,
            self.material.listener("codec").clips(identity, partial(self.material.rebuilt, judge.tasks)),
        )
        self._keep(rebuilt, judge)
        yield self.result()

    def _arm_rows(self, base: Trained, arms: Sequence[tuple[str, int]]) -> Iterator[StudyResult]:
        configs = self.design.arms()
        for arm, seed in arms:
            trained = self._trained(self.trainings.arm(arm, configs[arm], seed, base))
            for steps in self.design.steps_of(arm):
                self._test_row(arm, trained, Sampling("generator", steps), seed)
                yield self.result()

    def _base_rows(self, base: Trained, among: Sequence[int]) -> Iterator[StudyResult]:
        for steps in among:
            tried = [self._validated("base", base, Sampling("base", steps, cfg)) for cfg in self.design.guidance]
            chosen = {1.0}
            for column in ("fd", "fd_second"):
                best = min(tried, key=lambda row: getattr(row, column))
                self.choices.append(
                    Choice(
                        what=f"guidance of base@{steps} by {column}",
                        chosen=f"{best.cfg:g}",
                        tried={f"{row.cfg:g}": getattr(row, column) for row in tried},
                    )
                )
                chosen.add(best.cfg)
            for cfg in sorted(chosen):
                self._test_row("base", base, Sampling("base", steps, cfg), 0)
                yield self.result()

    def _validated(self, model: str, trained: Trained, sampling: Sampling) -> StudyRow:
        entry = self._sampled(model, trained, sampling, self.material.valid, 0)
        return self.material.valid.scored(entry, self.material.valid.row(entry))

    def _test_row(self, model: str, trained: Trained, sampling: Sampling, seed: int) -> None:
        self._keep(self._sampled(model, trained, sampling, self.material.test, seed), self.material.test)

    def _keep(self, entry: Entry, judge: Judge) -> None:
        row = judge.row(entry)
        scored = judge.scored(entry, row)
        self.rows[scored.name] = (scored, row)

    def _sampled(self, model: str, trained: Trained, sampling: Sampling, judge: Judge, seed: int) -> Entry:
        tasks = judge.tasks
        identity = {
            "checkpoint": trained.sha256,
            "codec": self.material.codec.sha256,
            "sampling": [sampling.kind, sampling.steps, sampling.cfg],
        }

        guidance = f" cfg {sampling.cfg:g}" if sampling.cfg != 1 else ""
        heard = self.material.listener(f"{model}@{sampling.steps}{guidance}").made(
            identity,
            lambda: self._model(trained.uri).under(sampling),
            tasks,
            prompts=min(self.design.diversity_prompts, len(tasks)),
            answers=self.design.diversity_samples,
        )
        return Entry(model, sampling.steps, sampling.cfg, heard, trained.iterations, seed, tuple(tasks.seeds[:1]))

    def _model(self, uri: str) -> SampledCheckpoint:
        if uri not in self._loaded:
            self._loaded.clear()  # one at a time
            self._loaded[uri] = SampledCheckpoint(
                uri, self.material.codec, [*self.material.test.tasks.prompts, *self.material.valid.tasks.prompts]
            )
        return self._loaded[uri]

    @cached_property
    def _loaded(self) -> dict[str, SampledCheckpoint]:
        return {}

    def _time(self, base: Trained, arc: Trained) -> None:
        design = self.design
        samplings = [
            *(Sampling("base", steps, cfg) for steps in design.base_steps for cfg in (1.0, max(design.guidance))),
            *(Sampling("generator", steps) for steps in design.arc_steps),
        ]
        models = {"base": base, "generator": arc}
        named = {
            "codec": self.material.codec.sha256,
            "base": base.sha256,
            "arc": arc.sha256,
            "samplings": [astuple(s) for s in samplings],
        }
        place = store.join(self.material.folder, "timings", f"{sha256_json(named)[:16]}.json")
        if not store.exists(place):
            loaded = {
                kind: SampledCheckpoint(trained.uri, self.material.codec, self.material.test.tasks.prompts)
                for kind, trained in models.items()
            }
            ways = {_way(s): partial(loaded[s.kind].under, s) for s in samplings}
            found = timings(ways, self.material.test.tasks, lambda n, total: self.material.tell("timing", n, total, ""))
            store.write_json(place, [timing.model_dump(mode="json") for timing in found])
        self.timings = tuple(Timing.model_validate(line) for line in store.read_json(place))

    def _timed(self, row: StudyRow) -> StudyRow:
        """The row with the seconds of its sampling, once they are measured."""
        way = ("base" if row.model == "base" else "generator", row.steps, row.cfg != 1)
        seconds = next((t.seconds for t in self.timings if (t.kind, t.steps, t.guided) == way), None)
        return row.model_copy(update={"seconds": seconds})


def _way(sampling: Sampling) -> Way:
    return sampling.kind, sampling.steps, sampling.cfg != 1
