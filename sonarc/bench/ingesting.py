"""How fast ingest takes files in, against the limit and lhotse, and how much memory it holds as they grow in number."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from sonarc.bench.cluster import Cluster, Job, cluster
from sonarc.bench.limit import limit
from sonarc.bench.own_process import in_own_process
from sonarc.bench.sheet import BenchRow, measured
from sonarc.bench.sounds import write_sounds
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig, SourceConfig
from sonarc.contracts.errors import StageError
from sonarc.contracts.hashing import sha256_json
from sonarc.contracts.presets import load
from sonarc.contracts.result import Artifact, StageRequest, StageResult, write_result

PATIENCE = 7_200.0
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class SpeedSize:
    """Files of AudioCaps' shape, one clip each, and how often each contestant takes them.

    Attributes:
        few, files: how many are taken in, once and again: what each further one costs is the difference. So few fill
            tasks as large as many do.
    """

    few: int = 1_024
    files: int = 2_048
    seconds: float = 10.0
    rate: int = 48_000
    repeats: int = 3
    tasks: int = 2


@dataclass(frozen=True)
class MemorySize:
    """Numbers of clips, each so short that the most take minutes."""

    clips: tuple[int, ...] = (500, 5_000, 20_000)
    seconds: float = 0.3
    tasks: int = 2


def speed_rows(folder: Path, size: SpeedSize) -> Iterator[BenchRow]:
    """Ingest, its limit and, where it is installed, lhotse in turn, on the same files.

    Files a second are those of many less few: so imports, which cost the same for a million, are left out of all.
    """
    whole = folder / "sounds"
    paths = write_sounds(whole, size.files, size.seconds, size.rate)
    config = _config(size.tasks, samples=524_288)
    rate, lufs = config.audio.sample_rate, config.data.loudness_lufs
    some = _first(folder / "sounds", size.few, folder / "some")
    further = size.files - size.few
    ours, starts, best, theirs = list[float](), list[float](), list[float](), list[float]()
    with cluster(folder) as running, limit(size.tasks, rate, lufs, paths[0]) as alone:
        _ingest(folder / "first", some, config, running)  # untimed: it reads what is on disk, as no later one has to
        for number in range(size.repeats):
            few, many = (_ingest(folder / f"ingest-{number}", sounds, config, running) for sounds in (some, whole))
            ours.append(further / (many - few))
            starts.append(few - size.few / ours[-1])
            best.append(size.files / alone.seconds(paths))
            if find_spec("lhotse"):
                few, many = (_lhotse(folder / "shar", sounds, config, size.tasks) for sounds in (some, whole))
                theirs.append(further / (many - few))
    yield measured("ingest_files_per_s", ours, "files/s", "higher", floor=max(best))
    yield measured("ingest_limit_files_per_s", best, "files/s", "higher")
    yield measured("ingest_fraction_of_limit", _ratios(ours, best), "", "higher", wanted=0.8, floor=1.0)
    if theirs:
        yield measured("lhotse_files_per_s", theirs, "files/s", "higher")
        yield measured("ingest_over_lhotse", _ratios(ours, theirs), "", "higher", wanted=1.0)
    yield measured("ingest_start", starts, "s", "lower")


def memory_rows(folder: Path, size: MemorySize) -> Iterator[BenchRow]:
    """Peak memory of the driver, the head and all workers, each number of clips on a cluster of its own."""
    write_sounds(folder / "all", max(size.clips), size.seconds, 44_100)
    peaks = {}
    for clips in size.clips:
        place = folder / f"memory-{clips}"
        sounds = _first(folder / "all", clips, place / "sounds")
        request = ingest_request(place, sounds, _config(size.tasks, samples=65_536))
        with cluster(place) as running:
            job = Job(request, running)
            with _peak_mb(running, job) as peak:
                job.start()
                result = job.result(PATIENCE)
        if result.counts["clips"] != clips:
            raise StageError(f"Ingest made {result.counts['clips']} clips of {clips} files.", "See its quarantine.")
        peaks[clips] = peak[0]
        yield measured(f"ingest_peak_mb.{clips}", [peak[0]], "MB", "lower")
        yield measured(f"ingest_seconds.{clips}", [result.seconds], "s", "lower")
    least, most = min(size.clips), max(size.clips)
    name = f"ingest_rss_{_short(most)}_over_{_short(least)}"
    yield measured(name, [peaks[most] / peaks[least]], "", "lower", wanted=1.15, floor=1.0)


def ingest_request(place: Path, sounds: Path, config: SonarcConfig) -> StageRequest:
    """A request for the ingest of a folder into a store at `place`, with the sources it needs."""
    source = SourceConfig(name="noise", uri=sounds.as_uri(), licence="CC0-1.0").model_dump(mode="json")
    folder = (place / "sources").as_uri()
    store.write_json(store.join(folder, "sources.json"), [{**source, "notice": "", "sha256": ""}])
    made = Artifact(uri=store.join(folder, "sources.json"), sha256=sha256_json(source))
    write_result(folder, StageResult(stage="sources", key="bench", status="succeeded", outputs={"sources": made}))
    return StageRequest(
        stage="ingest",
        store=(place / "store").as_uri(),
        config=config,
        inputs={"sources": folder},
        progress=str(place / "progress.jsonl"),
    )


def _config(tasks: int, samples: int) -> SonarcConfig:
    return load("laptop", [f"compute.data_tasks={tasks}", f"audio.samples={samples}"])


def _ingest(place: Path, sounds: Path, config: SonarcConfig, running: Cluster) -> float:
    """Seconds of the stage."""
    job = Job(ingest_request(place, sounds, config), running)
    job.start()
    try:
        return job.result(PATIENCE).seconds
    finally:
        shutil.rmtree(place)


def _lhotse(out: Path, sounds: Path, config: SonarcConfig, jobs: int) -> float:
    found = in_own_process(
        "sonarc.bench.shar", str(sounds), str(out), str(config.audio.sample_rate), str(config.data.loudness_lufs),
        str(config.data.shard_clips), str(jobs), computing=1,
    )  # fmt: skip
    shutil.rmtree(out)
    return float(found["seconds"])


def _first(folder: Path, count: int, into: Path) -> Path:
    """A folder with the first files of another, as links."""
    into.mkdir(parents=True)
    for path in sorted(folder.glob("*.flac"))[:count]:
        (into / path.name).hardlink_to(path)
    rows = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:count]
    (into / "captions.jsonl").write_text("".join(rows), encoding="utf-8")
    return into


@contextmanager
def _peak_mb(running: Cluster, job: Job) -> Iterator[list[float]]:
    """The largest sum of the processes' memory (PSS: pages that several hold are shared out among them), MB."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            total = 0
            for process in (*running.members(), *job.members()):
                try:
                    total += process.memory_full_info().pss
                except (psutil.Error, OSError):
                    continue  # it has ended
            peak[0] = max(peak[0], total / 1e6)

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _ratios(values: list[float], others: list[float]) -> list[float]:
    return [value / other for value, other in zip(values, others, strict=True)]


def _short(count: int) -> str:
    return f"{count // 1_000}k" if count >= 1_000 and not count % 1_000 else str(count)
