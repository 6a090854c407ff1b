"""`sonarc score`: a model package by a published protocol."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sonarc.contracts import store
from sonarc.metrics.audiocaps import RATE, SECONDS, AudioCapsScores, score, tasks_of


def audiocaps(
    data: str, package: str, embedders: list[str], clap: str, steps: int, seed: int, out: Path
) -> AudioCapsScores:
    """Score a package by AudioCaps' protocol, and write what came out to `out`.

    Args:
        data: folder of the dataset.
        package: location of the package; empty: the champion's.
        embedders, clap: spaces, and the audio-text model.
    """
    from pipelines.champion import champion_package
    from sonarc.metrics.embedders import load_audio_text, load_embedder
    from sonarc.metrics.listening import Ears
    from sonarc.runtime.generator import Generator

    tasks = tasks_of(store.as_uri(data))
    generator = Generator.load(package or champion_package())
    seconds = min(SECONDS, generator.max_seconds)
    ears = Ears([load_embedder(name) for name in embedders], load_audio_text(clap), round(seconds * RATE), RATE)
    kept = (store.cache_root() / "protocols").as_uri()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bars:
        rows: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what, total=total)
            bars.update(rows[what], completed=done)

        scores = score(
            tasks,
            lambda prompts, lengths, seeds: generator.generate(prompts, lengths, seeds, steps=steps),
            model_sha256=generator.package_sha256,
            seconds=seconds,
            steps=steps,
            seed=seed,
            ears=ears,
            folder=kept,
            tell=tell,
        )
    store.write_json(str(out.resolve()), scores.model_dump(mode="json"))
    return scores
