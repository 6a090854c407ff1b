"""The study's trainings: one base, and every arm with every seed, each resumable and each done once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sonarc.arc.loop import ArcJob, posttrain
from sonarc.checkpoint import prune_checkpoints
from sonarc.contracts import store
from sonarc.contracts.checkpoint import newest, read_manifest
from sonarc.contracts.config import ArcConfig, SonarcConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import CheckpointError
from sonarc.training.loop import PretrainJob, pretrain
from sonarc.training.worker import LocalWorker

Tell = Callable[[str, int, int, str], None]
"""`tell(what, done, total, note)`: how far something is."""
NOTED_EVERY = 10
DONE = "done.json"


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        name: `base`, or an arm and its seed, as `arc_lsgan-1`.
        uri: its last checkpoint.
        sha256: hash of that checkpoint.
        iterations: optimizer steps.
        seconds: wall time, all attempts.
    """

    name: str
    uri: str
    sha256: str
    iterations: int
    seconds: float


@dataclass(frozen=True)
class Trainings:
    """Where the study's trainings live and what they learn from.

    Attributes:
        folder: URI; a folder below it for each training, named by what shapes it.
        dataset_uri, latents_uri: what they learn from.
        latents_sha256: hash of the latents' manifest.
        tell: hears of every step.
    """

    folder: str
    dataset_uri: str
    latents_uri: str
    latents_sha256: str
    tell: Tell

    def base(self, config: SonarcConfig) -> Trained:
        """The base of a config, trained or found."""
        job = PretrainJob(config, self.dataset_uri, self.latents_uri, self._lineage())
        place = store.join(self.folder, f"base-{job.sha256()[:12]}")
        return self._finished("base", place, lambda worker: pretrain(worker, job))

    def arm(self, name: str, arc: ArcConfig, seed: int, base: Trained) -> Trained:
        """An arm trained from a base with a seed, or found."""
        lineage = {**self._lineage(), "base_sha256": base.sha256}
        job = ArcJob(arc.model_copy(update={"seed": seed}), base.uri, self.dataset_uri, self.latents_uri, lineage)
        title = f"{name}-{seed}"
        place = store.join(self.folder, f"arc-{job.sha256()[:12]}")
        return self._finished(title, place, lambda worker: posttrain(worker, job))

    def _lineage(self) -> dict[str, str]:
        manifest = read_latents(self.latents_uri)
        return {
            "dataset_sha256": manifest.dataset_sha256,
            "encoder_sha256": manifest.encoder_sha256,
            "latents_sha256": self.latents_sha256,
        }

    def _finished(self, name: str, place: str, run: Callable[[LocalWorker], None]) -> Trained:
        done = store.join(place, DONE)
        if not store.exists(done):
            curve, clock = store.join(place, "curve.json"), _Clock(place)
            points: list[dict[str, float]] = clock.points

            def heard(step: int, total: int, metrics: Mapping[str, float]) -> None:
                if step % NOTED_EVERY == 0 or step == total:
                    points.append({"step": step, "seconds": clock.seconds(), **metrics})
                    store.write_json(curve, points)
                self.tell(name, step, total, f"loss {metrics.get('loss', float('nan')):.3f}")

            run(LocalWorker.start(place, heard))
            prune_checkpoints(place, keep=1)
            store.write_json(done, {"seconds": clock.seconds()})
        seconds = float(store.read_json(done)["seconds"])
        found = newest(place)
        if found is None:
            raise CheckpointError(f"{place} is marked as done but holds no checkpoint.", "Delete it, and start again.")
        uri, manifest = found
        return Trained(name, uri, read_manifest(uri).sha256(), manifest.step, seconds)


class _Clock:
    """Wall time of a training over all its attempts, by the last point of its curve."""

    def __init__(self, place: str) -> None:
        curve = store.join(place, "curve.json")
        self.points: list[dict[str, float]] = json.loads(store.read_bytes(curve)) if store.exists(curve) else []
        self._before = self.points[-1]["seconds"] if self.points else 0.0
        self._start = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start
