from __future__ import annotations

from pathlib import Path

import pytest
from report_example import example_summary

from sonarc.contracts.errors import DataError
from sonarc.report.readme import BEGIN, END, fill, main
from sonarc.report.summary import write_summary

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_replaced_and_the_rest_stays() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    filled = fill(text, example_summary())
    assert filled.startswith("before\n") and filled.endswith("\nafter\n")
    assert "old" not in filled
    assert "| generator · 4 steps | 29.1 |" in filled
    assert "**−32.8**" in filled
    assert fill(filled, example_summary()) == filled


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_missing_markers_are_an_error(text: str) -> None:
    with pytest.raises(DataError, match="once each"):
        fill(text, example_summary())


def test_the_projects_own_readme_can_be_filled(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes((ROOT / "README.md").read_bytes())
    write_summary(str(tmp_path / "summary.json"), example_summary())
    assert main([str(tmp_path / "summary.json"), "--readme", str(readme)]) == 0
    assert "Example CPU" in readme.read_text(encoding="utf-8")
    assert main([str(tmp_path / "missing.json"), "--readme", str(readme)]) != 0
