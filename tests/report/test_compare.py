"""The comparison page: what is compared, what is not, and what a listener is given."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from report_example import PROMPTS, example_summary, write_example_samples

from sonarc.contracts.errors import DataError
from sonarc.report.compare import Compared, render_comparison


def run(name: str, samples: Path | None, reference: str = "", fd: float = 0.0, **settings: str) -> Compared:
    summary = example_summary()
    scores = tuple(
        s.model_copy(update={"reference_sha256": reference, "value": s.value + fd * (s.metric == "fd_aisfx")})
        for s in summary.scores.scores
    )
    sheet = summary.scores.model_copy(update={"scores": scores})
    summary = summary.model_copy(update={"run_id": name, "scores": sheet})
    return Compared(summary, {"arc.steps": "60", **settings}, samples, "0" * 31 + name[-1])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_example_samples(folder)
    return folder


@pytest.fixture(scope="module")
def page(samples: Path) -> str:
    return render_comparison([run("run-1", samples, seed="0"), run("run-2", samples, fd=-5.0, seed="1")])


def section(page: str, name: str) -> str:
    return re.split(r"</section>", page.split(f'<section id="{name}"')[1])[0]


def test_runs_and_only_the_settings_that_differ_are_named(page: str) -> None:
    assert "run-1" in section(page, "runs") and "run-2" in section(page, "runs")
    assert "<code>seed</code>" in section(page, "changed") and "arc.steps" not in section(page, "changed")


def test_the_better_score_is_marked(page: str) -> None:
    row = next(r for r in section(page, "scores").split("<tr>") if "FD aisfx" in r and ">4</td>" in r)
    cells = re.findall(r'<td class="figure( best)?">([\d.]+)', row)
    assert [best for best, _ in cells[-2:]] == ["", " best"], cells
    assert section(page, "scores").count(' best"') == 4, "where both are alike neither is better"


def test_scores_of_another_reference_are_not_compared(samples: Path) -> None:
    page = render_comparison([run("run-1", samples, "aa"), run("run-2", samples, "bb", fd=-5.0)])
    assert "not comparable" in page and ' best"' not in section(page, "scores")


def test_the_same_prompts_stand_side_by_side(page: str) -> None:
    listen = section(page, "listen")
    assert listen.count('<article class="prompt"') == len(PROMPTS)
    first = listen.split("</article>")[0]
    generated = first.split('<p class="variant">generator, 4 steps</p>')[1].split("</ul>")[0]
    assert generated.count("<audio") == 2
    real = first.split('<p class="variant">real clip</p>')[1].split("</ul>")[0]
    assert real.count("<audio") == 1, "a real clip is the same in both"


def test_other_prompts_and_seeds_are_not_put_side_by_side(samples: Path, tmp_path: Path) -> None:
    write_example_samples(tmp_path)
    document = json.loads((tmp_path / "samples.json").read_text())
    document[0]["seed"] += 1
    (tmp_path / "samples.json").write_text(json.dumps(document))
    page = render_comparison([run("run-1", samples), run("run-2", tmp_path)])
    assert section(page, "listen").count('<article class="prompt"') == len(PROMPTS) - 1


def test_the_listener_gets_both_of_each_prompt_and_no_script_can_leak_out(page: str) -> None:
    data = json.loads(page.split('id="listening-data">')[1].split("</script>")[0])
    assert data["variant"] == "generator@4" and len(data["pairs"]) == len(PROMPTS)
    assert {pair["prompt"] for pair in data["pairs"]} == set(PROMPTS)
    assert all(base64.b64decode(pair[side].split(",")[1])[:4] == b"OggS" for pair in data["pairs"] for side in "ab")
    assert data["a"] == {"run": "run-1", "mlflow_run_id": "0" * 31 + "1"}
    assert "<loop>" not in page, "a prompt is text, not markup"
    assert "default-src 'none'" in page and not re.search(r'(src|href)="(?!data:|#)', page)


def test_runs_without_audio_are_compared_by_their_scores() -> None:
    page = render_comparison([run("run-1", None), run("run-2", None)])
    assert 'id="scores"' in page and 'id="listen"' not in page and 'id="blind"' not in page


def test_one_run_or_one_twice_is_refused() -> None:
    with pytest.raises(DataError, match="1 runs cannot be compared"):
        render_comparison([run("run-1", None)])
    with pytest.raises(DataError, match="named twice: run-1, run-1"):
        render_comparison([run("run-1", None), run("run-1", None)])
