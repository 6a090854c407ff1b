from __future__ import annotations

import io

import pytest
from report_example import example_sheet, example_summary
from rich.console import Console

from sonarc.report.tables import best_cells, score_table, show, show_seconds
from sonarc.report.terminal import print_summary


def test_rows_run_from_the_real_thing_to_the_generator_and_sanity_is_left_out() -> None:
    columns, rows = score_table(example_sheet())
    assert [row.tag for row in rows][:4] == ["real", "codec", "base@50 CFG 2.5", "base@8 CFG 2.5"]
    assert [row.steps for row in rows if row.model == "generator"] == [8, 4, 2, 1]
    names = [column.metric for column in columns]
    assert names[:3] == ["fd_yamnet", "fd_aisfx", "kid_yamnet"]
    assert "side_db" not in names
    assert [column.metric for column in score_table(example_sheet(), short=True)[0]] == [
        "fd_yamnet", "fd_aisfx", "adherence", "diversity", "realtime",
    ]  # fmt: skip


def test_the_best_cell_is_of_a_model_not_of_real_audio() -> None:
    winners = best_cells(score_table(example_sheet())[1])
    assert ("fd_yamnet", "generator", 8, 1.0) in winners
    assert ("realtime", "generator", 1, 1.0) in winners
    assert not any(model in ("real", "codec") for _, model, _, _ in winners)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.000"), (0.5004, "0.500"), (1.999, "2.00"), (61.94, "61.9"), (12_345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert show(value) == text
    assert show(-value or 0.0).lstrip("−") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.99, "60.0 s"), (119.6, "2 min 00 s"), (3_599.9, "1 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


def test_the_terminal_shows_stages_scores_verdict_and_endpoint() -> None:
    out = io.StringIO()
    print_summary(example_summary(), Console(file=out, width=110))
    text = out.getvalue()
    for part in (
        "pretrain",
        "322.0",
        "cached",
        "generator@4",
        "29.1",
        "passed",
        "http://127.0.0.1:8420",
        "15 min 12 s",
    ):
        assert part in text
