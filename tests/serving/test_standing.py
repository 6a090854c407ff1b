"""Who stands by to start a server outlives a server that is withdrawn, and ends with `sonarc stop`."""

from __future__ import annotations

from pathlib import Path

from serving import control
from serving.state import read_standing, standing, stands


def test_withdrawing_a_server_leaves_who_stands_by(tmp_path: Path) -> None:
    with standing(tmp_path) as name:
        assert control.withdraw(tmp_path) == 0
        record = read_standing(tmp_path)
        assert record is not None and record.id == name and stands(tmp_path)
        control.stop(tmp_path)
        assert read_standing(tmp_path) is None
