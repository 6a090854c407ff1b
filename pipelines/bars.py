"""Progress in the terminal, from the events that stages append to `progress.jsonl`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from sonarc.contracts.progress import ProgressEvent, read_progress


@contextmanager
def busy(text: str) -> Iterator[None]:
    """A spinner beside `text` on a terminal, while something takes as long as it takes; elsewhere one line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(text, file=sys.stderr, flush=True)
        yield
        return
    with console.status(text):
        yield


class Bars:
    """One bar a stage with its rate; in quiet mode, or without a terminal, one line at a stage's start and end."""

    def __init__(self, path: Path, *, quiet: bool) -> None:
        self.path = path
        self.console = Console(stderr=True)
        self.live = not quiet and self.console.is_terminal
        self.quiet = quiet
        self._offset = 0
        self._tasks: dict[str, TaskID] = {}
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
        )

    def __enter__(self) -> Self:
        if self.live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.update()
        if self.live:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self.live:
            self._progress.console.print(f"[dim]{text}")
        else:
            print(text, file=sys.stderr, flush=True)

    def update(self) -> None:
        """Render the events appended since the last call."""
        events, self._offset = read_progress(self.path, self._offset)
        for event in events:
            if self.live:
                self._draw(event)
            else:
                self._print(event)

    def _draw(self, event: ProgressEvent) -> None:
        task = self._tasks.get(event.stage)
        if task is None:
            task = self._tasks[event.stage] = self._progress.add_task(event.stage, total=None, note="")
        if event.unit == "stage":
            self._progress.update(task, total=1, completed=1, note=f"[dim]{event.message}")
            self._progress.stop_task(task)
            return
        self._progress.update(task, total=event.total or None, completed=event.done, note=_note(event))

    def _print(self, event: ProgressEvent) -> None:
        if event.unit == "stage":
            self._ended.add(event.stage)
            print(f"{event.stage}: {event.message}", file=sys.stderr, flush=True)
        elif event.stage not in self._started:
            self._started.add(event.stage)
            print(f"{event.stage}: started", file=sys.stderr, flush=True)


def _note(event: ProgressEvent) -> str:
    amount = f"{event.done:,.0f}/{event.total:,.0f} {event.unit}" if event.total else f"{event.done:,.0f} {event.unit}"
    rate = f" · {event.rate:,.1f}/s" if event.rate else ""
    loss = f" · loss {event.metrics['loss']:.4f}" if "loss" in event.metrics else ""
    return f"{amount}{rate}{loss}{' · ' + event.message if event.message else ''}"
