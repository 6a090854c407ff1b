"""`sonarc study`: the data stages on a local Ray, then the study's trainings and rows in this process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipelines.local import run_pipeline, stage_records
from pipelines.places import Places
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.hashing import sha256_json
from sonarc.study.design import StudyDesign
from sonarc.study.document import write_documents
from sonarc.study.material import Made, Material
from sonarc.study.result import write_study
from sonarc.study.run import Study
from sonarc.study.scores import StudyRow

LINE_SECONDS = 20.0


def study(design: StudyDesign, size: str, out: Path, *, documents: bool = True) -> Path:
    """Run a study, or go on with it, and write `study.json`, `study.md` and `study.png` into `out`; returns the JSON.

    Args:
        out: folder, made if missing. It has the study's rows so far whenever it is stopped.
        documents: whether to write the page and its picture, too.
    """
    with Teller() as teller:
        made = prepare(design.config)
        work = Study(Material(design, made, _folder().as_uri(), teller.tell, design.config.compute.threads))
        file = out / "study.json"
        for result in work.run():
            told = result.model_copy(update={"command": f"sonarc study --size {size}", "machine": machine()})
            write_study(file.resolve().as_uri(), told)
            if documents:
                write_documents(told, out)
    return file


def attempt(design: StudyDesign, name: str, overrides: list[str]) -> list[StudyRow]:
    """Train ARC with other settings, score it on validation, and note it in the study folder's `tries.jsonl`.

    Args:
        design: the study, `design.config.arc` with the settings to try; its base is the study's.
    """
    with Teller() as teller:
        made = prepare(design.config)
        work = Study(Material(design, made, _folder().as_uri(), teller.tell, design.config.compute.threads))
        rows = work.attempt(name, design)
    with (_folder() / "tries.jsonl").open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"try": name, "set": overrides, **row.model_dump(mode="json")}) + "\n")
    return rows


def prepare(config: SonarcConfig) -> Made:
    """Dataset and latents of a config: made by the pipeline's stages, or found."""
    tree = config.model_dump(mode="json")
    shaping = {name: tree[name] for name in ("audio", "data")}
    shaping["encoder_sha256"] = load_codec(config.codec.uri).encoder_sha256
    note = _folder() / f"data-{sha256_json(shaping)[:12]}.json"
    if not note.exists():
        root = _folder()
        database = root / "mlflow" / "mlflow.db"
        places = Places(root / "runs", (root / "store").as_uri(), f"sqlite:///{database}")
        outcome = run_pipeline(config, places, until="encode", quiet=not sys.stderr.isatty())
        if outcome.error is not None:
            raise outcome.error
        records = stage_records(outcome.folder)
        dataset, latents = records["ingest"].result.outputs["dataset"], records["encode"].result.outputs["latents"]
        store.write_json(note.as_uri(), [dataset.uri, latents.uri, latents.sha256])
    return Made(*store.read_json(note.as_uri()))


def machine() -> str:
    """This machine in a few words."""
    from sonarc.codec.card import machine as described

    return described()


def _folder() -> Path:
    folder = store.cache_root() / "study"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Teller:
    """Bars on a terminal; elsewhere a line every now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said = 0.0

    def __enter__(self) -> Teller:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def tell(self, what: str, done: int, total: int, note: str) -> None:
        """How far something is."""
        if self._console.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total, note=note)
            self._bars.update(self._tasks[what], completed=done, total=total, note=note)
        elif done == total or time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            self._console.print(f"{what}: {done} of {total} {note}".rstrip(), highlight=False)
