from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from report_example import PROMPTS, RATE, VARIANTS, example_summary, example_tuning, write_example_samples

from sonarc.contracts.errors import DataError
from sonarc.contracts.scores import ScoreSheet
from sonarc.report.html import render_report, write_report
from sonarc.report.samples import read_samples, variant_label
from sonarc.report.spectrogram import HEIGHT, HIGHEST_HZ, LOWEST_HZ, WIDTH, audio_uri, spectrogram_db


class Page(HTMLParser):
    """What a browser would load, and the text it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.images_without_text = 0
        self.headings: list[int] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.sources += [value for name, value in attrs if name in ("src", "srcset", "poster", "data") and value]
        if tag == "link":
            self.sources.append(found.get("href") or "")
        self.images_without_text += tag == "img" and not found.get("alt")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("samples")
    write_example_samples(folder)
    return Page(render_report(example_summary(), folder))


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert len(page.sources) == 2 * len(PROMPTS) * len(VARIANTS)
    assert all(source.startswith("data:") for source in page.sources)


def test_it_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.images_without_text == 0
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in zip(page.headings, page.headings[1:], strict=False))


def test_it_shows_the_run(page: Page) -> None:
    for part in (
        *PROMPTS,
        "generator, 4 steps",
        "29.1",
        "27.9 to 31.0",
        "not audio",
        "interval excludes 0",
        "sonarc v1",
    ):
        assert part in page.words


def test_it_shows_the_search() -> None:
    page = Page(render_report(example_summary().model_copy(update={"tuning": example_tuning()})))
    assert "Tuning: trial 1 of 3" in page.words and "−3.60 to −1.60" in page.words
    assert sum(source.startswith("data:image/svg+xml;base64,") for source in page.sources) == 3
    assert page.images_without_text == 0


def test_prompts_are_text_never_markup(tmp_path: Path) -> None:
    write_example_samples(tmp_path, ("<script>alert(1)</script>",))
    page = render_report(example_summary(), tmp_path)
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_run_that_failed_at_once_still_has_a_page(tmp_path: Path) -> None:
    bare = example_summary().model_copy(
        update={"scores": ScoreSheet(), "dataset": None, "gate": None, "model": None, "endpoint": None, "stages": ()}
    )
    write_report(bare, None, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.sources == []
    assert "laptop-20260102-030405" in page.words


def test_the_player_holds_the_recording() -> None:
    time_S = np.arange(RATE) / RATE
    tone_SA = np.stack([0.5 * np.sin(2 * np.pi * 440 * time_S)] * 2, axis=1).astype(np.float32)
    data = base64.b64decode(audio_uri(tone_SA, RATE).partition(",")[2])
    heard_SA, rate = soundfile.read(io.BytesIO(data))
    assert (rate, heard_SA.shape[1]) == (RATE, 2)
    assert abs(len(heard_SA) - RATE) < 2_048
    assert np.corrcoef(heard_SA[:40_000, 0], tone_SA[:40_000, 0])[0, 1] > 0.99


def test_a_spectrogram_peaks_where_the_tone_is() -> None:
    time_S = np.arange(RATE) / RATE
    tone_SA = np.sin(2 * np.pi * 1_000 * time_S)[:, None].astype(np.float32)
    level_FT = spectrogram_db(tone_SA, RATE)
    assert level_FT.shape == (HEIGHT, WIDTH)
    middle_F = level_FT[:, WIDTH // 2]
    row = HEIGHT * np.log(1_000 / LOWEST_HZ) / np.log(HIGHEST_HZ / LOWEST_HZ)
    assert abs(int(middle_F.argmax()) - row) < 2
    assert middle_F.max() == pytest.approx(0, abs=1.5)
    assert middle_F[-10:].max() < -60


def test_broken_audio_is_drawn_not_fatal() -> None:
    assert np.isfinite(spectrogram_db(np.full((100, 2), np.nan, np.float32), RATE)).all()
    assert audio_uri(np.full((100, 2), np.nan, np.float32), RATE).startswith("data:audio/ogg")


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/secret.wav", "a/b.wav", "x.flac", ".hidden.wav"])
def test_samples_may_only_name_files_beside_them(tmp_path: Path, name: str) -> None:
    entry = {"prompt": "p", "key": "k", "seconds": 1.0, "seed": 0, "files": {"real": name}}
    (tmp_path / "samples.json").write_text(json.dumps([entry]), encoding="utf-8")
    with pytest.raises(DataError, match="schema"):
        read_samples(tmp_path)


def test_a_sample_that_is_gone_is_named(tmp_path: Path) -> None:
    write_example_samples(tmp_path)
    (tmp_path / "00-real.wav").unlink()
    with pytest.raises(DataError, match=r"00-real\.wav"):
        read_samples(tmp_path)


def test_variants_in_words_and_in_order(tmp_path: Path) -> None:
    write_example_samples(tmp_path)
    assert [variant for variant, _ in read_samples(tmp_path)[0].ordered()] == list(VARIANTS)
    assert variant_label("generator@1") == "generator, 1 step"
