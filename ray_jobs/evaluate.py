"""Evaluate: base, generator, codec and real clips scored on the pinned reference, on the same prompts.

Every sampled row answers the same prompts with the same lengths and seeds, so that differences are
paired. What is kept: `scores.json`, `samples/` with a few prompts as audio, `figures/`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ray_jobs.job import Outcome, StageContext, main
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.config import EvaluateConfig, SonarcConfig
from sonarc.contracts.hashing import sha256_json
from sonarc.contracts.result import Artifact
from sonarc.contracts.scores import Difference, ModelName, Score, ScoreSheet, best, write_scores
from sonarc.data.latents import load_latents
from sonarc.metrics.diversity import conditional_diversity
from sonarc.metrics.embedders import load_audio_text, load_embedder
from sonarc.metrics.embedders.interface import Audio, Embeddings
from sonarc.metrics.figures import distance_figures
from sonarc.metrics.listening import CLASSES, Ears
from sonarc.metrics.reference import Reference, load_reference
from sonarc.metrics.sanity import sanity
from sonarc.metrics.scoring import Row, Scorer
from sonarc.metrics.tasks import Tasks, answer, held_out_clips, held_out_tasks
from sonarc.runtime.generate import Sampling
from sonarc.runtime.generator import Generator
from sonarc.runtime.sampled import Make, SampledCheckpoint
from sonarc.runtime.wave import encode_audio
from sonarc.samplers.sample import BASE_SAMPLER, GENERATOR_SAMPLER

logger = logging.getLogger(__name__)

BATCH = 64
COMPARED = ("adherence", "recall")
"""Metrics compared beside the Fréchet distances."""


@dataclass(frozen=True)
class Sampled:
    """A model under one sampling, ready to be asked."""

    model: ModelName
    steps: int
    cfg: float
    sampler: str
    make: Make

    @property
    def name(self) -> str:
        """`base@4`."""
        return f"{self.model}@{self.steps}"


def run(context: StageContext) -> Outcome:
    """Score the base and the generator on the pinned reference set."""
    return evaluate(context, context.request.champion or None)


def evaluate(context: StageContext, champion_uri: str | None = None) -> Outcome:
    """Score base and generator, and the champion's package where one is given.

    Raises:
        DataError: no test clips, or a reference pinned with other embedders.
    """
    config, threads = context.config.evaluate, context.config.compute.threads
    torch.set_num_threads(threads)
    reference = load_reference(context.input("reference", "reference").uri)
    ears = Ears(
        [load_embedder(name, threads=threads) for name in config.embedders],
        load_audio_text(config.clap, threads=threads),
        reference.manifest.samples,
        reference.manifest.sample_rate,
    )
    reference.check(ears.embedders)
    scorer = Scorer(reference, config.spaces, ears.clap.sha256, config.bootstrap, config.seed)
    tasks = held_out_tasks(context.input("ingest", "dataset").uri, "test", config.clips, config.seed)
    kept: dict[tuple[str, float], list[Audio]] = {}
    real: dict[str, dict[str, Embeddings]] = {}
    rows = list(_real_rows(context, reference, ears, tasks, kept, real))
    sampled = list(_sampled(context, tasks.prompts, champion_uri))
    for done, one in enumerate(sampled):
        name = f"{one.name}, guidance {one.cfg:g}" if one.cfg != 1 else one.name
        context.progress(done, len(sampled), unit="rows", message=name)
        row, clips = _row(one, tasks, config, ears, real)
        rows.append(row)
        kept[one.name, one.cfg] = clips[: config.sample_prompts]
        logger.info("%s: %.1f times real time", name, row.realtime)
    context.progress(len(sampled), len(sampled), unit="rows", message="intervals")
    sheet = _sheet(scorer, rows, config)
    return _leave(context, sheet, tasks, kept)


def _real_rows(
    context: StageContext,
    reference: Reference,
    ears: Ears,
    tasks: Tasks,
    kept: dict[tuple[str, float], list[Audio]],
    real: dict[str, dict[str, Embeddings]],
) -> Iterator[Row]:
    """Real clips: pinned train ones as the floor of distances, held-out ones as they are and through the codec.

    Their audio goes into `kept`; what taggers hear in them into `real`, by tagger and key.
    """
    train = np.random.default_rng(context.config.evaluate.seed).permutation(len(reference.manifest.train_keys))
    some = np.sort(train[: len(tasks)])
    train_keys = [reference.manifest.train_keys[n] for n in some]
    floor = {name: space.train_ME[some] for name, space in reference.spaces.items()}
    yield Row("real", 0, 1.0, "", train_keys, (), floor)

    once = tasks[range(len(set(tasks.keys)))]
    clips = held_out_clips(context.input("ingest", "dataset").uri, "test", once.keys)
    heard = ears.vectors(clips)
    adherence_N = (heard[ears.clap.name] * ears.clap.text(once.prompts)).sum(axis=1)
    for name in heard:
        if name.startswith(CLASSES):
            real[name] = dict(zip(once.keys, heard[name], strict=True))
    kept["real", 1.0] = clips[: context.config.evaluate.sample_prompts]
    yield Row("real", 0, 1.0, "", once.keys, (), {}, adherence_N, sanity=sanity(clips, ears.sample_rate))

    rebuilt = _reconstructions(context, once, clips)
    vectors = ears.vectors(rebuilt)
    adherence_N = (vectors[ears.clap.name] * ears.clap.text(once.prompts)).sum(axis=1)
    kept["codec", 1.0] = rebuilt[: context.config.evaluate.sample_prompts]
    divergence = ears.divergences(once.keys, vectors, real)
    figures = sanity(rebuilt, ears.sample_rate)
    yield Row("codec", 0, 1.0, "", once.keys, (), vectors, adherence_N, divergence_N=divergence, sanity=figures)


def _reconstructions(context: StageContext, tasks: Tasks, clips: Sequence[Audio]) -> list[Audio]:
    """The clips as the codec gives them back."""
    codec = load_codec(context.config.codec.uri)
    latents = load_latents(
        context.input("encode", "latents").uri,
        context.input("ingest", "dataset").uri,
        "test",
        encoder_sha256=codec.encoder_sha256,
    )
    at = {key: n for n, key in enumerate(latents.keys)}
    z_NCT = torch.from_numpy(latents.latents_NCT[[at[key] for key in tasks.keys]])
    with torch.inference_mode():
        audio = [audio_AS for z_BCT in torch.split(z_NCT, BATCH) for audio_AS in codec.decode(z_BCT.float()).numpy()]
    return [np.ascontiguousarray(made[:, : clip.shape[1]]) for made, clip in zip(audio, clips, strict=True)]


def _sampled(context: StageContext, prompts: Sequence[str], champion_uri: str | None) -> Iterator[Sampled]:
    """Every model and sampling to score."""
    config = context.config.evaluate
    codec = load_codec(context.config.codec.uri)
    base = SampledCheckpoint(context.input("pretrain", "base").uri, codec, prompts)
    for sampler in config.base:
        sampling = Sampling("base", sampler.steps, sampler.cfg)
        yield Sampled("base", sampler.steps, sampler.cfg, BASE_SAMPLER, base.under(sampling))
    generator = SampledCheckpoint(context.input("posttrain", "generator").uri, codec, prompts)
    for steps in config.generator:
        yield Sampled("generator", steps, 1.0, GENERATOR_SAMPLER, generator.under(Sampling("generator", steps)))
    if champion_uri is not None:
        champion = Generator.load(champion_uri)
        for steps in config.generator:
            yield Sampled("champion", steps, 1.0, GENERATOR_SAMPLER, _with_steps(champion, steps))


def _with_steps(champion: Generator, steps: int) -> Make:
    return lambda prompts, seconds, seeds: champion.generate(prompts, seconds, seeds, steps=steps)


def _row(
    one: Sampled, tasks: Tasks, config: EvaluateConfig, ears: Ears, real: Mapping[str, Mapping[str, Embeddings]]
) -> tuple[Row, list[Audio]]:
    """Sample, listen, and keep the clips."""
    begun = time.monotonic()
    clips = answer(one.make, tasks)
    realtime = sum(tasks.seconds) / (time.monotonic() - begun)
    vectors = ears.vectors(clips)
    row = Row(
        one.model,
        one.steps,
        one.cfg,
        one.sampler,
        tasks.keys,
        (tasks.seeds[0], tasks.seeds[-1]),
        vectors,
        adherence_N=(vectors[ears.clap.name] * ears.clap.text(tasks.prompts)).sum(axis=1),
        divergence_N=ears.divergences(tasks.keys, vectors, real),
        diversity_P=_diversity(one, tasks, config, ears, vectors[ears.clap.name]),
        realtime=realtime,
        sanity=sanity(clips, ears.sample_rate),
    )
    return row, clips


def _diversity(
    one: Sampled, tasks: Tasks, config: EvaluateConfig, ears: Ears, vectors_NE: Embeddings
) -> NDArray[np.floating]:
    """Conditional diversity of the first prompts: what they gave already, and more with other seeds."""
    prompts, more = min(config.diversity_prompts, len(tasks)), config.diversity_samples - 1
    again = tasks.again(prompts, more, config.seed + len(tasks))
    others = ears.clap_vectors(answer(one.make, again)).reshape(prompts, more, -1)
    return conditional_diversity(np.concatenate([vectors_NE[:prompts, None], others], axis=1))


def _sheet(scorer: Scorer, rows: Sequence[Row], config: EvaluateConfig) -> ScoreSheet:
    scores = [score for row in rows for score in scorer.scores(row)]
    metrics = (*(f"fd_{name}" for name in config.spaces), *COMPARED)
    return ScoreSheet(scores=tuple(scores), differences=tuple(_differences(scorer, rows, scores, metrics)))


def _differences(
    scorer: Scorer, rows: Sequence[Row], scores: Sequence[Score], metrics: Sequence[str]
) -> Iterator[Difference]:
    """Generator against the base, and the champion, at equal steps; each metric against the base's best guidance."""
    sampled = {(row.model, row.steps, row.cfg): row for row in rows if row.steps}
    for generator in (row for row in sampled.values() if row.model == "generator"):
        for metric in metrics:
            for model in ("base", "champion"):
                rival = best(
                    score
                    for score in scores
                    if (score.metric, score.model, score.steps) == (metric, model, generator.steps)
                )
                if rival is not None:
                    other = sampled[rival.model, rival.steps, rival.cfg]
                    difference = scorer.difference(metric, generator, other)
                    if difference is not None:
                        yield difference


def _leave(
    context: StageContext, sheet: ScoreSheet, tasks: Tasks, kept: dict[tuple[str, float], list[Audio]]
) -> Outcome:
    """Write samples, figures and, last, the scores."""
    samples = store.join(context.folder, "samples")
    store.remove_folder(samples)  # of an attempt that was killed
    files = _write_samples(samples, sheet, tasks, kept, context.config)
    for name, png in distance_figures(sheet).items():
        store.write_bytes(store.join(context.folder, "figures", name), png)
        (context.scratch / name).write_bytes(png)
        context.run.log_file(context.scratch / name, "figures")
    uri = store.join(context.folder, "scores.json")
    digest = write_scores(uri, sheet)
    context.run.log_dict(sheet.model_dump(mode="json", by_alias=True), "scores.json")
    return Outcome(
        {
            "scores": Artifact(uri=uri, sha256=digest),
            "samples": Artifact(uri=samples, sha256=sha256_json(files)),
        },
        metrics=_metrics(sheet),
        counts={"clips": len(tasks), "prompts": len(set(tasks.keys)), "scores": len(sheet.scores)},
    )


def _write_samples(
    uri: str, sheet: ScoreSheet, tasks: Tasks, kept: dict[tuple[str, float], list[Audio]], config: SonarcConfig
) -> dict[str, str]:
    """A WAV file a prompt and variant, and `samples.json`, written last; file → sha256."""
    variants = _variants(sheet, config.evaluate, kept)
    files: dict[str, str] = {}
    entries = []
    for n in range(min(config.evaluate.sample_prompts, len(set(tasks.keys)))):
        named = {variant: f"{n:02d}-{variant.replace('@', '-')}.wav" for variant in variants}
        for variant, clips in variants.items():
            data = encode_audio(clips[n], config.audio.sample_rate)
            files[named[variant]] = store.write_bytes(store.join(uri, named[variant]), data)
        entries.append(
            {
                "prompt": tasks.prompts[n],
                "key": tasks.keys[n],
                "seconds": tasks.seconds[n],
                "seed": tasks.seeds[n],
                "files": named,
            }
        )
    files["samples.json"] = store.write_json(store.join(uri, "samples.json"), entries)
    return files


def _variants(
    sheet: ScoreSheet, config: EvaluateConfig, kept: dict[tuple[str, float], list[Audio]]
) -> dict[str, list[Audio]]:
    """What is kept as audio: real and codec, the base at its most and fewest steps, the generator's two highest."""
    chosen = {"real": kept["real", 1.0], "codec": kept["codec", 1.0]}
    base_steps = {sampler.steps for sampler in config.base}
    for steps in sorted({max(base_steps), min(base_steps)}, reverse=True):
        score = sheet.get(f"fd_{config.spaces[0]}", "base", steps)
        if score is not None:
            chosen[f"base@{steps}"] = kept[f"base@{steps}", score.cfg]
    for steps in sorted(config.generator, reverse=True)[:2]:
        chosen[f"generator@{steps}"] = kept[f"generator@{steps}", 1.0]
    return chosen


def _metrics(sheet: ScoreSheet) -> dict[str, float]:
    """The scores as flat names, as `fd_yamnet/base_4_cfg_2.5`, for the run's record."""
    found = {}
    for score in sheet.scores:
        steps = f"_{score.steps}" if score.steps else ""
        guidance = f"_cfg_{score.cfg:g}" if score.model == "base" else ""
        found[f"{score.metric}/{score.model}{steps}{guidance}"] = score.value
    return found


if __name__ == "__main__":
    main("evaluate")
