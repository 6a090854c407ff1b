"""A generator replica without Ray around it: the loaded packages, and the batcher before them."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.batcher import Batcher, DeadlinePassed, Outcome, QueueFull
from serving.state import Lineup, ServedModel
from serving.work import SLOTS, Clip, Failed, Info, Loaded, Made, Progress, Slot, Work
from sonarc.contracts.config import ServeConfig
from sonarc.runtime.edit import Edit
from sonarc.runtime.generator import Generator

log = logging.getLogger(__name__)

LENGTH_CLASSES = 4
"""Clips share a batch when their lengths fall into the same quarter of the longest."""
PROGRESS_S = 0.2


@dataclass(frozen=True)
class _Package:
    generator: Generator
    served: ServedModel

    @property
    def loaded(self) -> Loaded:
        generator = self.generator
        guided = generator.kind == "base"
        return Loaded(self.served, generator.sample_rate, generator.channels, generator.max_seconds, guided)


@dataclass(frozen=True)
class _Item:
    package: _Package
    clip: Clip
    work: Work


class NonFinite(Exception):
    """The model made NaN or infinite samples."""


class Engine:
    """Makes clips with up to two packages, the champion and a candidate.

    Args:
        config: how to serve.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._packages: dict[Slot, _Package] = {}
        self._batcher: Batcher[_Item, NDArray[np.float32]] = Batcher(
            self._run, max_batch=config.max_batch, wait_s=config.batch_wait_s, max_waiting=config.max_queued
        )

    async def load(self, lineup: Lineup) -> None:
        """Hold exactly these packages.

        New ones are loaded and warmed beside the present ones, and taken all at once; what is under way ends on
        the package it began with.

        Raises:
            SonarcError: a package cannot be loaded; the present ones stay.
        """
        wanted: dict[Slot, ServedModel] = {"champion": lineup.champion}
        if lineup.candidate is not None and lineup.candidate.package_sha256 != lineup.champion.package_sha256:
            wanted["candidate"] = lineup.candidate
        known = {package.served.package_sha256: package.generator for package in self._packages.values()}
        packages: dict[Slot, _Package] = {}
        for slot, served in wanted.items():
            generator = known.get(served.package_sha256)
            if generator is None:
                generator = await asyncio.to_thread(self._warm, served)
            packages[slot] = _Package(generator, served)
        self._packages = packages

    def _warm(self, served: ServedModel) -> Generator:
        generator = Generator.load(served.package_uri, sha256=served.package_sha256)
        generator.warm_up(self._config.steps)
        return generator

    async def info(self) -> Info | None:
        """What is loaded; None before anything is."""
        if "champion" not in self._packages:
            return None
        champion, candidate = (self._packages.get(slot) for slot in SLOTS)
        assert champion is not None
        return Info(champion.loaded, candidate.loaded if candidate else None, self._batcher.waiting)

    async def make(self, work: Work, on_step: Callable[[int], None] | None = None) -> Made | Failed:
        """The clips of a work, or why there are none. Cancelled, it frees its places."""
        package = self._packages.get(work.slot)
        if package is None:
            return Failed("absent")
        try:
            outcomes = await self._batcher.submit(
                _group(package, work),
                [_Item(package, clip, work) for clip in work.clips],
                deadline=time.monotonic() + work.timeout_s,
                spare=work.spare,
                on_step=on_step,
            )
        except QueueFull as error:
            return Failed("queue_full", error.retry_after_s)
        except DeadlinePassed:
            return Failed("deadline", self._batcher.retry_after_s())
        except Exception as error:
            # Its message may repeat the prompt: the class, and where it was raised, must do.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("a clip could not be made: %s\n%s", type(error).__name__, where)
            return Failed("broken", problem=type(error).__name__)
        return self._made(package, outcomes)

    async def watch(self, work: Work) -> AsyncGenerator[Progress | Made | Failed]:
        """`make`, telling of the steps on the way."""
        done, total = 0, work.steps
        task = asyncio.ensure_future(self.make(work, lambda step: _set(state, step)))
        state = [0]
        try:
            while not (await asyncio.wait({task}, timeout=PROGRESS_S))[0]:
                if state[0] != done:
                    done = state[0]
                    yield Progress(done, total)
            yield task.result()
        finally:
            task.cancel()

    async def close(self) -> None:
        """End the worker."""
        await self._batcher.close()

    def _made(self, package: _Package, outcomes: Sequence[Outcome[NDArray[np.float32]]]) -> Made:
        return Made(
            audio=tuple(outcome.result for outcome in outcomes),
            sample_rate=package.generator.sample_rate,
            served=package.served,
            queue_s=max(outcome.waited_s for outcome in outcomes),
            generate_s=max(outcome.run_s for outcome in outcomes),
            batch=max(outcome.batch for outcome in outcomes),
            waiting=self._batcher.waiting,
        )

    def _run(self, items: Sequence[_Item], before_step: Callable[[], None]) -> list[NDArray[np.float32]]:
        """In the worker's thread: clips of one group."""
        work, sound = items[0].work, items[0].work.sound
        clips = items[0].package.generator.generate(
            [item.clip.prompt for item in items],
            [item.clip.seconds for item in items],
            [item.clip.seed for item in items],
            steps=work.steps,
            edit=None if sound is None else Edit(sound.audio_AS, sound.noise, sound.keep),
            guidance=work.guidance,
            negative_prompts=[item.work.negative_prompt for item in items] if work.negative_prompt else None,
            precision=self._config.precision,
            before_step=before_step,
        )
        if not all(np.isfinite(clip_AS).all() for clip_AS in clips):
            raise NonFinite  # with company, the batcher tries each alone: only the culprit fails
        return clips


def _group(package: _Package, work: Work) -> Hashable:
    """What clips of one batch have in common."""
    longest = max(clip.seconds for clip in work.clips)
    length = min(int(LENGTH_CLASSES * longest / package.generator.max_seconds), LENGTH_CLASSES - 1)
    sound = None if work.sound is None else id(work.sound)
    return (id(package.generator), work.steps, work.guidance, bool(work.negative_prompt), length, sound)


def _set(state: list[int], step: int) -> None:
    state[0] = step
