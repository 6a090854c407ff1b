"""What a study's rows are made of and judged by: data, real clips as they are heard, the judges of both splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
from sonarc.metrics.scoring import Scorer
from sonarc.metrics.tasks import Tasks, held_out_tasks
from sonarc.study.design import StudyDesign
from sonarc.study.heard import Heard, Listener
from sonarc.study.scores import Judge
from sonarc.study.trainings import Tell

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


@dataclass(frozen=True)
class Material:
    """Everything that does not depend on a training, each made when it is first asked for.

    Attributes:
        folder: URI of what the study keeps.
        tell: hears how far each part is.
        threads: CPU threads.
    """

    design: StudyDesign
    made: Made
    folder: str
    tell: Tell
    threads: int = 2

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

    def rebuilt(self, tasks: Tasks) -> list[Audio]:
        """The clips of `tasks` through the codec."""
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
