"""Keep the README's table true: `python -m sonarc.report.readme runs/latest/summary.json` writes it from a real run.

What stands between the markers `<!-- last-run:begin -->` and `<!-- last-run:end -->` is replaced.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sonarc.contracts.errors import DataError, SonarcError
from sonarc.contracts.scores import Score
from sonarc.contracts.store import write_bytes
from sonarc.report.html import headline
from sonarc.report.summary import RunSummary, read_summary
from sonarc.report.tables import metric_label, score_table, show, show_seconds

BEGIN, END = "<!-- last-run:begin -->", "<!-- last-run:end -->"


def fill(text: str, summary: RunSummary) -> str:
    """`text` with the part between the markers replaced by the run's table.

    Raises:
        DataError: the markers are not there exactly once, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"The file does not hold {BEGIN} and {END} once each.", "Put the two markers back.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{last_run(summary)}\n{END}{after}"


def last_run(summary: RunSummary) -> str:
    """The run in Markdown: where and how long, the scores, the stages' seconds."""
    machine = summary.machine
    lines = [
        f"Preset `{summary.preset}`, {summary.started[:10]}, {machine.cpu}, {machine.cores} cores, "
        f"{machine.memory_gb:.0f} GB: {summary.status} in {show_seconds(summary.total_seconds)}, install not counted.",
    ]
    if summary.dataset:
        lines[0] += f" {summary.dataset.clips:,} clips, {show_seconds(summary.dataset.seconds)} of audio."
    if summary.scores.scores:
        lines += ["", *_scores(summary)]
    first = headline(summary)
    if first is not None:
        lines += [
            "",
            f"{metric_label(first.metric)}, {first.a} − {first.b} (its best guidance): **{show(first.value)}**, "
            f"95 % interval {show(first.low)} to {show(first.high)}.",
        ]
    lines += ["", "| stage | " + " | ".join(line.name for line in summary.stages) + " |"]
    lines += ["|---" * (len(summary.stages) + 1) + "|"]
    cells = ("cached" if s.cached else "–" if s.status == "skipped" else f"{s.seconds:.0f}" for s in summary.stages)
    lines += ["| seconds | " + " | ".join(cells) + " |"]
    return "\n".join(lines)


def _scores(summary: RunSummary) -> list[str]:
    columns, rows = score_table(summary.scores, short=True)
    lines = ["| | " + " | ".join(column.label for column in columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for row in rows:
        cells = (_cell(row.cells.get(column.metric)) for column in columns)
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return lines


def _cell(score: Score | None) -> str:
    return "–" if score is None else show(score.value)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or the error's own."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.report.readme", description=__doc__)
    parser.add_argument("summary", type=Path, help="summary.json of a run")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    asked = parser.parse_args(arguments)
    try:
        filled = fill(asked.readme.read_text(encoding="utf-8"), read_summary(str(asked.summary)))
        write_bytes(str(asked.readme), filled.encode("utf-8"))
    except SonarcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"Cannot read {asked.readme}: {error.strerror}. Run this where README.md is.", file=sys.stderr)
        return DataError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
