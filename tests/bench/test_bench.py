from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_example import example_summary
from tiny_package import SAMPLES, make_package

from sonarc.bench import generation
from sonarc.bench.__main__ import last_package, main
from sonarc.bench.arithmetic import count_operations, matmul_rate
from sonarc.bench.floor import Peak, Work, floor, work_of
from sonarc.bench.inference import operations, realtime
from sonarc.bench.pipeline import measure as measure_pipeline
from sonarc.bench.regression import worse
from sonarc.bench.sheet import BenchRow, BenchSheet, measured, read_sheet, write_sheet
from sonarc.bench.training import Size, arc_steps, pretrain_steps
from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.config import ArcConfig, DiTConfig, SonarcConfig
from sonarc.contracts.errors import DataError
from sonarc.contracts.machine import Machine, this_machine
from sonarc.contracts.presets import load
from sonarc.contracts.result import Artifact, StageResult
from sonarc.dit import DiT
from sonarc.report.summary import RunSummary, write_summary

ROOT = Path(__file__).resolve().parents[2]


def _sheet(*rows: BenchRow) -> BenchSheet:
    machine = Machine(cpu="c", cores=2, memory_gb=1.0, system="s")
    return BenchSheet(name="speed", machine=machine, versions={}, command="make bench", rows=rows)


def test_a_row_is_the_median_with_its_spread() -> None:
    row = measured("a", [3.0, 1.0, 2.0, 10.0], "s", "lower", wanted=3.0)
    assert (row.value, row.n, row.spread) == (2.5, 4, 9.0)
    assert measured("a", [1 / 3], "s", "lower").value == 0.3333
    assert measured("a", [1 / 3], "s", "lower").spread is None


@pytest.mark.parametrize(
    ("better", "value", "met"),
    [("lower", 1.0, True), ("lower", 1.1, False), ("higher", 1.0, True), ("higher", 0.9, False)],
)
def test_wanted_is_met_from_the_better_side(better: str, value: float, met: bool) -> None:
    row = BenchRow.model_validate({"name": "a", "value": value, "unit": "s", "better": better, "wanted": 1.0})
    assert row.met() is met
    assert row.model_copy(update={"wanted": None}).met()


def test_a_sheet_survives_the_disk_and_another_schema_is_refused(tmp_path: Path) -> None:
    sheet = _sheet(measured("a", [1.0], "s", "lower"))
    path = write_sheet(tmp_path, sheet)
    assert path.name == "speed.json"
    assert read_sheet(path) == sheet
    document = json.loads(path.read_text(encoding="utf-8"))
    for change in ({"rows": []}, {"schema": "other/1"}, {"rows": document["rows"] * 2}, {"host": "me"}):
        path.write_text(json.dumps(document | change), encoding="utf-8")
        with pytest.raises(DataError, match="does not follow"):
            read_sheet(path)


def test_check_names_what_missed_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["--check", "--folder", str(tmp_path)]
    assert main(check) == DataError.exit_code
    write_sheet(tmp_path, _sheet(measured("fast", [1.0], "s", "lower", wanted=2.0)))
    assert main(check) == 0
    write_sheet(tmp_path, _sheet(measured("slow", [3.0], "s", "lower", wanted=2.0)))
    assert main(check) == 1
    assert "slow is 3 s" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])


def test_the_pipeline_is_timed_from_first_and_repeated_runs(tmp_path: Path) -> None:
    def leave(name: str, started: str, cached: bool, seconds: float) -> None:
        run = example_summary()
        stages = tuple(line.model_copy(update={"cached": cached}) for line in run.stages)
        changed: RunSummary = run.model_copy(
            update={"run_id": name, "started": started, "stages": stages, "total_seconds": seconds}
        )
        (tmp_path / name).mkdir()
        write_summary(str(tmp_path / name / "summary.json"), changed)

    with pytest.raises(DataError, match="No run"):
        measure_pipeline(tmp_path)
    leave("a", "2026-01-01T00:00:00+00:00", False, 900.0)
    leave("b", "2026-01-02T00:00:00+00:00", False, 1_100.0)
    leave("c", "2026-01-03T00:00:00+00:00", True, 80.0)
    (tmp_path / "latest").symlink_to("c")
    rows = {row.name: row for row in measure_pipeline(tmp_path).rows}
    assert (rows["first_run"].value, rows["first_run"].met()) == (1_100.0, False)
    assert (rows["repeated_run"].value, rows["repeated_run"].met()) == (80.0, True)
    assert rows["stage.pretrain"].value == 322.0


def test_the_last_runs_package_is_where_that_run_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no outcome of promote"):
        last_package(tmp_path)
    made = Artifact(uri="s3://elsewhere/packages/p", sha256="0" * 64)
    result = StageResult(stage="promote", key="k", status="succeeded", outputs={"package": made})
    place = tmp_path / "latest" / "stages"
    place.mkdir(parents=True)
    (place / "promote.json").write_text(json.dumps({"result": result.model_dump(mode="json", by_alias=True)}))
    assert last_package(tmp_path) == made.uri


def test_generation_is_timed_part_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri, _ = make_package(tmp_path)
    generation.main([uri, "--steps", "2", "1", "--batches", "1", "2", "--seconds", "0", "0.25", "--repeats", "2"])
    found = json.loads(capsys.readouterr().out)
    longest = f"{SAMPLES / 44_100:g}"
    assert set(found["whole"]) == {f"2,1,{longest}", f"1,1,{longest}", f"2,2,{longest}", "2,1,0.25"}
    assert set(found["parts"]) == {"text", "dit_step", "decode"}
    times = [*found["whole"].values(), *found["parts"].values()]
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in times)


def test_a_clips_operations_are_those_of_its_layers() -> None:
    dit = DiTConfig(width=64, depth=2, heads=2, patch=2, cond_width=64)
    config = SonarcConfig(dit=dit, arc=ArcConfig(discriminator_depth=1))
    codec = SpectralCodec(SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1))
    decoding, step = operations(config, codec, 1.0)
    twice, longer = operations(config, codec, 2.0)
    frames = codec.frames(44_100)
    head = 2 * frames * codec.config.stride * 32 * (2 * 3 * codec.config.bins)
    assert 1 < decoding / head < 1.2, "the last layer is nearly all of so small a decoder"
    assert twice / decoding == pytest.approx(2, rel=0.05)
    assert 2 < longer / step < 2.5 or longer / step == pytest.approx(2, rel=0.2)


def test_a_gpus_floor_is_arithmetic_or_memory_whichever_is_slower() -> None:
    peak = Peak(flops=1e12, bandwidth=1e9)
    least = floor(Work(steps=4, step=3_000_000_000, decode=1_000_000_000, step_bytes=1, decode_bytes=5_000_000), peak)
    assert (least.step, least.decode, least.clip) == pytest.approx((3.0, 5.0, 17.0))


def test_weights_that_serve_a_whole_request_are_not_read_at_every_step() -> None:
    config = load("ci")
    codec = SpectralCodec(SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1))
    work = work_of(config, codec, 1.0, 4)
    model = DiT(config.dit, config.text.width)
    weights = sum(p.numel() for p in model.parameters())
    once = model.to_cond_embed, model.to_global_embed, model.to_pooled_embed, model.conditioners
    once_too = [block.cross_attn.to_kv for block in model.transformer.layers]  # type: ignore[union-attr]
    served = sum(p.numel() for part in (*once, *once_too) if part is not None for p in part.parameters())
    assert work.step_bytes == 2 * (weights - served)
    assert work.decode_bytes == 2 * sum(p.numel() for p in codec.decoder.parameters())


def test_each_way_has_its_name_and_whole_clips_their_floor() -> None:
    whole = 131_072 / 44_100
    times = {
        f"{asked},{length:g}": [2.0] for asked, length in (("4,1", whole), ("8,1", whole), ("4,2", whole), ("4,1", 1))
    }
    rows = {row.name: row for row in realtime(times, 4, whole, (60, 10), 100.0)}
    assert set(rows) == {f"default_realtime{suffix}" for suffix in ("", ".steps_8", ".batch_2", ".seconds_1")}
    plain, short = rows["default_realtime"], rows["default_realtime.seconds_1"]
    assert plain.floor == pytest.approx(whole, rel=1e-3) and plain.wanted is not None
    assert rows["default_realtime.batch_2"].floor == pytest.approx(whole, rel=1e-3)
    assert short.floor is None and short.wanted is None and short.value == 0.5


def test_worse_is_told_at_the_machines_own_speed() -> None:
    def sheet(rate: float, seconds: float, realtime: float, mb: float) -> BenchSheet:
        return _sheet(
            measured("calibration.bf16_matmul", [rate], "GFLOP/s", "higher"),
            measured("cold", [seconds], "s", "lower"),
            measured("speed", [realtime], "s/s", "higher"),
            measured("peak", [mb], "MB", "lower"),
        )

    before = sheet(1_000, 2.0, 50.0, 100.0)
    assert worse(before, sheet(500, 4.0, 25.0, 100.0)) == []
    assert [one.row.name for one in worse(before, sheet(1_000, 4.0, 25.0, 130.0))] == ["cold", "speed", "peak"]
    (one,) = worse(before, sheet(2_000, 2.0, 100.0, 100.0))
    assert (one.row.name, one.expected, one.factor) == ("cold", 1.0, 2.0)


def test_training_is_timed_against_its_own_arithmetic() -> None:
    tiny = Size(
        DiTConfig(width=32, depth=2, heads=2, ff_mult=2, patch=2, cond_width=32),
        frames=64, pretrain_batch=4, arc_batch=2, steps=2,
    )  # fmt: skip
    for steps, clips in ((pretrain_steps, 4), (arc_steps, 4)):
        seconds, operations, taken_in = steps(tiny)
        assert len(seconds) == 2
        assert min(seconds) > 0
        assert taken_in == clips
        # Forward and backward of the linear layers alone: 6 operations a weight and token.
        assert operations > 6 * 12 * 32 * 32 * 32 * clips


def test_operations_are_counted_not_guessed() -> None:
    import torch

    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_operations(lambda: a @ b) == 2 * 3 * 5 * 7
    assert all(rate > 1e8 for rate in matmul_rate(repeats=2, side=128))


def test_the_machine_says_nothing_about_whose_it_is() -> None:
    machine = this_machine()
    assert machine.cores >= 1 and machine.memory_gb > 0.1
    assert set(machine.model_dump()) == {"cpu", "cores", "memory_gb", "system", "gpu"}


def test_committed_sheets_follow_the_schema() -> None:
    for path in (ROOT / "bench").glob("*.json"):
        assert read_sheet(path).name == path.stem
