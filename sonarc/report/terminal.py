"""The run's end in the terminal: stages with seconds, scores with intervals, verdict, model, endpoint."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sonarc.report.summary import RunSummary, StageLine
from sonarc.report.tables import best_cells, score_table, show, show_seconds

_STYLES = {"succeeded": "green", "nothing_new": "cyan", "refused": "yellow", "failed": "red", "skipped": "dim"}


def print_summary(summary: RunSummary, console: Console | None = None) -> None:
    """Print the final tables of a run."""
    (console or Console()).print(render(summary))


def render(summary: RunSummary) -> RenderableType:
    """The final tables of a run, for any rich console."""
    parts: list[RenderableType] = [_stages(summary)]
    if summary.scores.scores:
        parts.append(_scores(summary))
    parts.extend(_lines(summary))
    return Group(*parts)


def _stages(summary: RunSummary) -> Table:
    table = Table(title=f"Run {summary.run_id} · {summary.preset}", title_justify="left", show_footer=True)
    table.add_column("Stage", footer="all")
    table.add_column("Result", footer=Text(summary.status, _STYLES[summary.status]))
    table.add_column("Seconds", justify="right", footer=f"{summary.total_seconds:.1f}")
    table.add_column("Did", overflow="fold")
    for line in summary.stages:
        table.add_row(line.name, _outcome(line), f"{line.seconds:.1f}" if line.status != "skipped" else "", _did(line))
    return table


def _outcome(line: StageLine) -> Text:
    return Text("cached", "cyan") if line.cached else Text(line.status, _STYLES[line.status])


def _did(line: StageLine) -> str:
    """What was counted, without zeros and without the parts of a sum that stands on its own line below."""
    told = {name: n for name, n in line.counts.items() if n and not name.startswith("quarantined_")}
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in told.items())


def _scores(summary: RunSummary) -> Table:
    columns, rows = score_table(summary.scores, short=True)
    winners = best_cells(rows)
    table = Table(
        title="Scores (best of base and generator in bold; intervals are in the report)",
        title_justify="left",
        padding=(0, 0, 0, 1),
    )
    table.add_column("Model", no_wrap=True)
    for column in columns:
        table.add_column(column.label, justify="right", overflow="fold")
    for row in rows:
        cells = []
        for column in columns:
            score = row.cells.get(column.metric)
            if score is None:
                cells.append(Text("–", "dim"))
                continue
            text = show(score.value)
            won = (column.metric, row.model, row.steps, row.cfg) in winners
            cells.append(Text(text, "bold" if won else ""))
        table.add_row(row.tag, *cells)
    return table


def _lines(summary: RunSummary) -> list[Text]:
    lines = []
    if summary.dataset:
        data = summary.dataset
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(data.quarantined.items())) or "none"
        lines.append(Text(f"Data      {data.clips:,} clips, {show_seconds(data.seconds)}; in quarantine: {refused}"))
    for difference in summary.scores.differences:
        lines.append(
            Text(
                f"Compared  {difference.metric}: {difference.a} − {difference.b} = {show(difference.value)} "
                f"[{show(difference.low)}, {show(difference.high)}]"
            )
        )
    if summary.gate:
        lines.append(Text(f"Gate      {'passed' if summary.gate.passed else 'refused'}", _gate_style(summary)))
        for rule in summary.gate.rules:
            word = "skipped" if rule.passed is None else "passed" if rule.passed else "refused"
            lines.append(Text(f"          {word}: {rule.rule}{f' ({rule.detail})' if rule.detail else ''}"))
    if summary.model:
        model = summary.model
        lines.append(Text(f"Model     {model.name} version {model.version}, alias {model.alias}"))
    if summary.endpoint:
        lines.append(Text(f"Endpoint  {summary.endpoint}"))
    if summary.error:
        word, style = ("Result", "cyan") if summary.status == "nothing_new" else ("Error", "red")
        lines.append(Text(f"{word:<10}{summary.error.message} {summary.error.hint}".rstrip(), style))
    lines.append(Text(f"In all    {show_seconds(summary.total_seconds)}"))
    return lines


def _gate_style(summary: RunSummary) -> str:
    return "green" if summary.gate and summary.gate.passed else "yellow"
