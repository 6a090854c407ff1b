"""The study, part after part. Every part is kept, so that a stopped study goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property, partial

import numpy as np
import torch

from sonarc.codec.oobleck import OobleckCodec
from sonarc.codec.package import load_codec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts import store
from sonarc.contracts.dataset import Split, read_dataset
from sonarc.contracts.hashing import sha256_json
from sonarc.contracts.reference import MANIFEST, ReferenceManifest
from sonarc.data.latents import load_latents
from sonarc.data.reader import read_index
from sonarc.metrics.embedders import load_audio_text, load_embedder
from sonarc.metrics.embedders.interface import Audio
from sonarc.metrics.listening import Ears
from sonarc.metrics.probe import ClassProbe, class_of
from sonarc.metrics.reference import Reference, load_reference, pin_reference
from sonarc.metrics.scoring import STATED, Row, Scorer
from sonarc.metrics.tasks import Tasks, held_out_tasks
from sonarc.runtime.generate import Sampling
from sonarc.runtime.sampled import SampledCheckpoint
from sonarc.study.comparing import copies, differences
from sonarc.study.design import ARC, StudyDesign
from sonarc.study.heard import Heard, Listener
from sonarc.study.result import Choice, Copying, StudyResult, TrainingLine
from sonarc.study.scores import Entry, Judge, StudyRow
from sonarc.study.timing import Timing, Way, timings
from sonarc.study.trainings import Tell, Trained, Trainings

DECODED_TOGETHER = 64


@dataclass(frozen=True)
class Made:
    """What the data stages left.

    Attributes:
        latents_sha256: hash of the latents' manifest.
    """

    dataset_uri: str
    latents_uri: str
    latents_sha256: str


@dataclass
class Study:
    """A study in the making.

    Attributes:
        folder: URI of what it keeps.
        tell: hears how far each part is.
        threads: CPU threads.
    """

    design: StudyDesign
    made: Made
    folder: str
    tell: Tell
    threads: int = 2
    rows: dict[str, tuple[StudyRow, Row]] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    copying: list[Copying] = field(default_factory=list)
    lines: list[TrainingLine] = field(default_factory=list)
    timings: tuple[Timing, ...] = ()

    def run(self) -> Iterator[StudyResult]:
        """Every part in turn; what is known so far after each."""
        torch.set_num_threads(self.threads)
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
        self.copying = copies(self.rows, self.test, design.config.evaluate.spaces[0])
        self._time(base, self.trainings.arm(ARC, configs[ARC], design.training_seeds[0], base))
        yield self.result(done=True)

    def attempt(self, name: str, design: StudyDesign) -> list[StudyRow]:
        """Train ARC with other settings, and score it on validation: how settings are chosen."""
        torch.set_num_threads(self.threads)
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
            differences=tuple(differences(self.rows, self.test, self.design.base_steps)),
            copying=tuple(self.copying),
            timings=self.timings,
        )

    @cached_property
    def trainings(self) -> Trainings:
        """Trains, or finds what is trained."""
        place = store.join(self.folder, "trainings")
        return Trainings(place, self.made.dataset_uri, self.made.latents_uri, self.made.latents_sha256, self.tell)

    @cached_property
    def codec(self) -> SpectralCodec | OobleckCodec:
        """The codec of the study."""
        return load_codec(self.design.config.codec.uri)

    @cached_property
    def ears(self) -> Ears:
        """Everything that listens."""
        evaluate, audio = self.design.config.evaluate, self.design.config.audio
        embedders = [load_embedder(name, threads=self.threads) for name in evaluate.embedders]
        return Ears(embedders, load_audio_text(evaluate.clap, threads=self.threads), audio.samples, audio.sample_rate)

    def listener(self, what: str) -> Listener:
        """Hears sets of clips under that title."""
        return Listener(store.join(self.folder, "heard"), self.ears, lambda n, total: self.tell(what, n, total, ""))

    @cached_property
    def dataset_sha256(self) -> str:
        """Hash of the dataset."""
        return read_dataset(self.made.dataset_uri).sha256()

    @cached_property
    def train(self) -> tuple[list[str], list[str], Heard]:
        """Keys, classes and vectors of train clips."""
        return self._real("train", self.design.train_clips)

    @cached_property
    def probe(self) -> ClassProbe:
        """Names the class of a clip."""
        _, classes, heard = self.train
        return ClassProbe.fit(heard.vectors, classes, self.design.config.evaluate.spaces)

    @cached_property
    def test(self) -> Judge:
        """Scores on the test split."""
        return self._judge("test", self.design.clips)

    @cached_property
    def valid(self) -> Judge:
        """Scores on the validation split."""
        return self._judge("valid", self.design.valid_clips)

    def _real(self, split: Split, most: int | None = None) -> tuple[list[str], list[str], Heard]:
        table = read_index(self.made.dataset_uri, split).select(["key", "concept"]).to_pylist()
        if most is not None and len(table) > most:
            chosen = np.random.default_rng(self.design.sampling_seed).choice(len(table), most, replace=False)
            table = [table[n] for n in sorted(chosen)]
        keys = [row["key"] for row in table]
        heard = self.listener(f"real {split} clips").real(self.made.dataset_uri, self.dataset_sha256, keys)
        return keys, [class_of(row["concept"]) for row in table], heard

    def _judge(self, split: Split, clips: int) -> Judge:
        keys, _, heard = self._real(split)
        tasks = held_out_tasks(self.made.dataset_uri, split, clips, self.design.sampling_seed)
        at = {key: n for n, key in enumerate(keys)}
        behind = [at[key] for key in tasks.keys]
        evaluate = self.design.config.evaluate
        scorer = Scorer(
            self._reference(split, keys, heard),
            evaluate.spaces,
            self.ears.clap.sha256,
            self.design.bootstrap,
            self.design.sampling_seed,
        )
        real = Heard({name: vectors[behind] for name, vectors in heard.vectors.items()})
        return Judge(scorer, self.ears.clap, self.probe, tasks, real, self.design.config.data.loudness_lufs)

    def _reference(self, split: Split, keys: Sequence[str], heard: Heard) -> Reference:
        train_keys, _, train = self.train
        dataset = read_dataset(self.made.dataset_uri)
        manifest = ReferenceManifest(
            name=f"study-{split}",
            dataset_sha256=dataset.sha256(),
            split=split,
            sample_rate=dataset.sample_rate,
            samples=dataset.samples,
            keys=tuple(keys),
            train_keys=tuple(train_keys),
            spaces=(),
            embeddings_sha256="",
        )
        named = {"set": manifest.sha256(), **{e.name: e.sha256 for e in self.ears.embedders}}
        uri = store.join(self.folder, "references", f"{split}-{sha256_json(named)[:12]}")
        if store.exists(store.join(uri, MANIFEST)):
            return load_reference(uri)
        vectors = {e.name: (e, heard.vectors[e.name], train.vectors[e.name]) for e in self.ears.embedders}
        return pin_reference(uri, manifest, vectors)

    def _trained(self, trained: Trained) -> Trained:
        self.lines.append(
            TrainingLine(
                name=trained.name, iterations=trained.iterations, seconds=trained.seconds, sha256=trained.sha256
            )
        )
        return trained

    def _real_rows(self) -> Iterator[StudyResult]:
        """Train clips against held-out ones as the floor of distances, held-out ones' agreement, and the codec."""
        judge, n = self.test, self.design.clips
        keys, _, heard = self.train
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
        identity = {"codec": self.codec.sha256, "rebuilt": judge.tasks.keys, "dataset": self.dataset_sha256}
        rebuilt = Entry("codec", 0, 1.0, self.listener("codec").clips(identity, partial(self._rebuilt, judge.tasks)))
        self._keep(rebuilt, judge)
        yield self.result()

    def _rebuilt(self, tasks: Tasks) -> list[Audio]:
        latents = load_latents(
            self.made.latents_uri, self.made.dataset_uri, "test", encoder_sha256=self.codec.encoder_sha256
        )
        at = {key: n for n, key in enumerate(latents.keys)}
        rows = [at[key] for key in tasks.keys]
        z_NCT = torch.from_numpy(latents.latents_NCT[rows])
        with torch.inference_mode():
            parts = [self.codec.decode(z_BCT.float()).numpy() for z_BCT in torch.split(z_NCT, DECODED_TOGETHER)]
        rate = self.codec.sample_rate
        lengths = [round(seconds * rate) for seconds in tasks.seconds]
        return [np.ascontiguousarray(a[:, :n]) for a, n in zip((a for p in parts for a in p), lengths, strict=True)]

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
        entry = self._sampled(model, trained, sampling, self.valid, 0)
        return self.valid.scored(entry, self.valid.row(entry))

    def _test_row(self, model: str, trained: Trained, sampling: Sampling, seed: int) -> None:
        self._keep(self._sampled(model, trained, sampling, self.test, seed), self.test)

    def _keep(self, entry: Entry, judge: Judge) -> None:
        row = judge.row(entry)
        scored = judge.scored(entry, row)
        self.rows[scored.name] = (scored, row)

    def _sampled(self, model: str, trained: Trained, sampling: Sampling, judge: Judge, seed: int) -> Entry:
        tasks = judge.tasks
        identity = {
            "checkpoint": trained.sha256,
            "codec": self.codec.sha256,
            "sampling": [sampling.kind, sampling.steps, sampling.cfg],
        }

        guidance = f" cfg {sampling.cfg:g}" if sampling.cfg != 1 else ""
        heard = self.listener(f"{model}@{sampling.steps}{guidance}").made(
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
                uri, self.codec, [*self.test.tasks.prompts, *self.valid.tasks.prompts]
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
            "codec": self.codec.sha256,
            "base": base.sha256,
            "arc": arc.sha256,
            "samplings": [astuple(s) for s in samplings],
        }
        place = store.join(self.folder, "timings", f"{sha256_json(named)[:16]}.json")
        if not store.exists(place):
            loaded = {
                kind: SampledCheckpoint(trained.uri, self.codec, self.test.tasks.prompts)
                for kind, trained in models.items()
            }
            ways = {_way(s): partial(loaded[s.kind].under, s) for s in samplings}
            found = timings(ways, self.test.tasks, lambda n, total: self.tell("timing", n, total, ""))
            store.write_json(place, [timing.model_dump(mode="json") for timing in found])
        self.timings = tuple(Timing.model_validate(line) for line in store.read_json(place))

    def _timed(self, row: StudyRow) -> StudyRow:
        """The row with the seconds of its sampling, once they are measured."""
        way = ("base" if row.model == "base" else "generator", row.steps, row.cfg != 1)
        seconds = next((t.seconds for t in self.timings if (t.kind, t.steps, t.guided) == way), None)
        return row.model_copy(update={"seconds": seconds})


def _way(sampling: Sampling) -> Way:
    return sampling.kind, sampling.steps, sampling.cfg != 1
