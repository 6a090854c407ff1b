"""A study trains, chooses, scores and writes up; stopped, it goes on where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_package import SAMPLES, make_codec
from tiny_stages import encode, ingest, random_clap

from sonarc.contracts import store
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError, DataError
from sonarc.contracts.presets import load
from sonarc.data.reader import read_index
from sonarc.study import material, run, trainings
from sonarc.study.design import ARC, StudyDesign
from sonarc.study.document import page, picture, write_documents
from sonarc.study.material import Made, Material
from sonarc.study.result import StudyResult, read_study, write_study
from sonarc.study.run import Study
from sonarc.study.sizes import design_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDesign, Made, str]:
    """A design at toy size, its data, and the folder of a study."""
    root = tmp_path_factory.mktemp("study")
    config = load(
        "ci",
        [
            f"audio.samples={SAMPLES}",
            f"codec.uri={make_codec(root)}",
            f"evaluate.clap={random_clap(root)}",
            "data.train_fraction=0.7",
            "data.valid_fraction=0.2",
            "pretrain.steps=2",
            "arc.steps=2",
            "arc.warmup_steps=0",
            "arc.generator_delay=0",
            "arc.ode_warmup.steps=0",
            "arc.penalty_weight=0.1",
        ],
    )
    ingest(root, config)
    encode(root, config)
    dataset, latents = (root / "ingest" / "dataset").as_uri(), (root / "encode" / "latents").as_uri()
    design = StudyDesign(
        config=config,
        clips=16,
        valid_clips=16,
        train_clips=40,
        base_steps=(4, 1),
        guidance=(1.5, 2.5),
        arc_steps=(4, 1),
        ablation_steps=(4,),
        training_seeds=(0, 1),
        diversity_prompts=2,
        diversity_samples=2,
        bootstrap=50,
    )
    return design, Made(dataset, latents, read_latents(latents).sha256()), (root / "kept").as_uri()


def _tell(what: str, done: int, total: int, note: str) -> None:
    pass


@pytest.fixture(scope="module")
def result(place: tuple[StudyDesign, Made, str]) -> StudyResult:
    return list(Study(Material(*place, _tell, threads=1)).run())[-1]


def test_every_model_is_scored_at_every_sampling(result: StudyResult, place: tuple[StudyDesign, Made, str]) -> None:
    assert result.done and len(result.timings) == 2 * 2 + 2
    models = {row.model for row in result.rows}
    assert models == {"real", "codec", "base", *place[0].arms()}
    for arm in place[0].arms():
        found = {(row.steps, row.training_seed) for row in result.rows if row.model == arm}
        assert found == {(steps, seed) for steps in place[0].steps_of(arm) for seed in (0, 1)}
    assert {(row.steps, row.cfg) for row in result.rows if row.model == "base"} >= {(4, 1.0), (1, 1.0)}
    assert {row.n for row in result.rows} == {16} and len({row.ref_sha256 for row in result.rows}) == 1
    for row in result.rows:
        columns = {"fd", "fd_second", "kid", "adherence", "accuracy", "recall", "coverage"}
        assert columns <= row.model_dump(exclude_none=True).keys(), row.name
        assert (row.diversity is not None) is (row.steps > 0) and (row.seconds is not None) is (row.steps > 0)
        assert row.iterations == (2 if row.steps else 0)


def test_real_clips_are_nearest_and_are_what_they_are_called(result: StudyResult) -> None:
    real, base = result.row("real"), result.row("base@4")
    assert real is not None and base is not None
    assert real.fd is not None and base.fd is not None and real.fd < base.fd
    assert real.accuracy == 1.0, "a probe that cannot tell tones from hisses tells nothing"


def test_guidance_is_chosen_on_clips_that_no_row_is_scored_on(
    result: StudyResult, place: tuple[StudyDesign, Made, str]
) -> None:
    study = Study(Material(*place, _tell, threads=1))
    assert not set(study.material.valid.tasks.keys) & set(study.material.test.tasks.keys)
    assert not set(study.material.train[0]) & {*study.material.valid.tasks.keys, *study.material.test.tasks.keys}
    groups = {split: set(read_index(place[1].dataset_uri, split)["group"].to_pylist()) for split in ("valid", "test")}
    assert not groups["valid"] & groups["test"]
    assert {choice.what for choice in result.choices} == {
        f"guidance of base@{steps} by {column}" for steps in (4, 1) for column in ("fd", "fd_second")
    }
    for choice in result.choices:
        assert float(choice.chosen) == min((value, float(name)) for name, value in choice.tried.items())[1]


def test_differences_are_those_of_the_rows(result: StudyResult) -> None:
    rows = {row.name: row for row in result.rows}
    assert {d.a.split("@")[0] for d in result.differences} == {
        name for name in {r.model for r in rows.values()} if ARC in name
    }
    for difference in result.differences:
        a, b = rows[difference.a], rows[difference.b]
        assert difference.value == pytest.approx(getattr(a, difference.metric) - getattr(b, difference.metric))
        assert difference.low <= difference.value <= difference.high
        if a.model != ARC:
            assert (b.model, b.steps, b.training_seed) == (ARC, a.steps, a.training_seed)


def test_seeds_and_arms_are_different_trainings(result: StudyResult) -> None:
    assert len({line.sha256 for line in result.trainings}) == len(result.trainings) == 1 + 2 * 5


def test_a_second_run_trains_and_hears_nothing_again(
    result: StudyResult, place: tuple[StudyDesign, Made, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("done before")

    monkeypatch.setattr(trainings, "pretrain", refuse)
    monkeypatch.setattr(trainings, "posttrain", refuse)
    monkeypatch.setattr(material.Ears, "vectors", refuse)
    monkeypatch.setattr(run.SampledCheckpoint, "under", refuse)
    again = list(Study(Material(*place, _tell, threads=1)).run())[-1]
    assert again == result


def test_other_settings_are_tried_on_validation(place: tuple[StudyDesign, Made, str], result: StudyResult) -> None:
    design, made, folder = place
    arc = design.config.arc.model_copy(update={"lr_generator": 1e-3})
    other = design.model_copy(update={"config": design.config.model_copy(update={"arc": arc})})
    study = Study(Material(design, made, folder, _tell, threads=1))
    (row,) = study.attempt("faster", other)
    assert row.n_real == len(read_index(made.dataset_uri, "valid"))
    assert row.ref_sha256 not in {r.ref_sha256 for r in result.rows}


def test_the_page_says_what_the_rows_say(result: StudyResult, tmp_path: Path) -> None:
    write_study((tmp_path / "study.json").as_uri(), result)
    assert read_study((tmp_path / "study.json").as_uri()) == result
    write_documents(result, tmp_path)
    text = (tmp_path / "study.md").read_text(encoding="utf-8")
    for row in result.rows:
        assert f"| {row.name} |" in text and f"{row.fd:.1f}" in text
    assert "not finished" not in text
    assert "not finished" in page(result.model_copy(update={"done": False}))
    assert picture(result)[:4] == b"\x89PNG"


def test_an_unfinished_study_is_written_up_as_such(result: StudyResult) -> None:
    few = result.model_copy(update={"rows": result.rows[:2], "differences": (), "copying": (), "done": False})
    few = few.model_copy(update={"timings": ()})
    assert "not yet measured" in page(few) and "Not yet measured." in page(few) and picture(few)[:4] == b"\x89PNG"
    untimed = [row.model_copy(update={"seconds": None}) for row in result.rows]
    assert picture(few.model_copy(update={"rows": tuple(untimed)}))[:4] == b"\x89PNG", "rows come before their seconds"


def test_a_damaged_file_and_an_unknown_size_are_refused(tmp_path: Path) -> None:
    store.write_json((tmp_path / "study.json").as_uri(), {"schema": "sonarc.study/1", "rows": 3})
    with pytest.raises(DataError, match="does not follow its schema"):
        read_study((tmp_path / "study.json").as_uri())
    with pytest.raises(ConfigError, match="no study 'huge'"):
        design_of("huge")


@pytest.mark.parametrize("size", ["full", "tiny"])
def test_ablations_differ_from_arc_in_one_thing(size: str) -> None:
    design = design_of(size)
    arms = design.arms()
    changed = {
        name: [key for key, value in arm.model_dump().items() if value != arms[ARC].model_dump()[key]]
        for name, arm in arms.items()
    }
    assert changed == {
        "arc": [],
        "arc_no_contrastive": ["contrastive_weight"],
        "arc_lsgan": ["loss"],
        "arc_no_penalty": ["penalty_weight"],
        "arc_warmup": ["ode_warmup"],
    }
    assert len({arm.steps for arm in arms.values()}) == 1
    assert np.isclose(arms["arc_warmup"].ode_warmup.steps / arms["arc_warmup"].steps, design.warmup_share, atol=0.1)


@pytest.mark.parametrize(("shift", "verdict"), [(50.0, "yes"), (-50.0, "no")])
def test_verdicts_follow_from_the_intervals(result: StudyResult, shift: float, verdict: str) -> None:
    moved = tuple(d.model_copy(update={"low": shift - 1, "high": shift + 1}) for d in result.differences)
    text = page(result.model_copy(update={"differences": moved}))
    (line,) = [line for line in text.splitlines() if line.startswith("| Least squares")]
    assert line.split("|")[2].strip() == verdict
