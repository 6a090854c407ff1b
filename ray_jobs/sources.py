"""Where the audio comes from: the configured sources, checked, or the demo, rendered in parallel.

Writes `sources.json`: name, location, licence, weight and content hash of each source.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.parallel import parallel_map
from sonarc.contracts import store
from sonarc.contracts.hashing import sha256_json, sha256_path
from sonarc.contracts.result import Artifact
from sonarc.data.sources import fingerprint
from sonarc.demo.source import DemoReport, write_demo


def run(context: StageContext) -> Outcome:
    """List the configured sources, or make the demo when there are none."""
    configured = context.config.data.sources
    if configured:
        counts = {"sources": len(configured)}
        sources = [
            {
                **source.model_dump(mode="json"),
                "uri": store.as_uri(source.uri),
                "audio": store.as_uri(source.audio) if source.audio else "",
                "notice": "",
                "sha256": fingerprint([source]),
            }
            for source in configured
        ]
    else:
        source, report = _demo(context)
        sources = [source]
        counts = {"sources": 1, "files": sum(report.rows.values()), "kept": report.kept}
        counts |= {f"files_{name}": count for name, count in sorted(report.rows.items())}
        counts["notices"] = len(report.notices)
    uri = store.join(context.folder, "sources.json")
    store.write_json(uri, sources)
    # Content decides, not the place: the same audio elsewhere finds the same dataset in the cache.
    places = ("uri", "audio", "notice")
    content = [{name: value for name, value in source.items() if name not in places} for source in sources]
    return Outcome({"sources": Artifact(uri=uri, sha256=sha256_json(content))}, counts=counts)


def _demo(context: StageContext) -> tuple[dict[str, Any], DemoReport]:
    demo, audio = context.config.data.demo, context.config.audio
    uri = store.join(context.folder, "demo")
    place = store.local_path(uri)
    folder = place or context.scratch / "demo"
    report = write_demo(
        folder,
        clips=demo.clips,
        samples=audio.samples,
        sample_rate=audio.sample_rate,
        seed=demo.seed,
        sources=demo.sources,
        recorded_limit=demo.recorded_limit,
        damaged=demo.damaged,
        # Tasks write into the folder, so they can only be spread where every worker sees it.
        chunk_map=partial(parallel_map, tasks=context.config.compute.data_tasks) if place else map,
        progress=lambda done, total, what: context.progress(done, total, unit="clips", message=what),
    )
    hashes = _hashes(folder)
    if not place:
        for path in hashes:
            store.move_in(folder / path, store.join(uri, path))
    notice = " ".join(report.notices)
    source = {"name": "demo", "uri": uri, "licence": "", "weight": 1.0, "notice": notice, "sha256": sha256_json(hashes)}
    return source, report


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): sha256_path(path) for path in files}


if __name__ == "__main__":
    main("sources")
