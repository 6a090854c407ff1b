"""The exported page in headless Chromium: sounds made wholly in the browser, the same as the player's."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tiny_package import make_package
from tokenizers import Tokenizer

from serving.edge.page import write_page
from sonarc.edge.export import export_onnx
from sonarc.edge.player import Player, levels, noise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 600_000
PROMPT = "a slow fiddle tune, naïve & 東京"
TEXTS = (
    PROMPT, "", "  ", "Café résumé ÀÉÎ", "hello[MASK]world [CLS]x", "ΑΣ Σίσυφος", "İstanbul ẞ",
    "a\u200bb\u0085c\ufeffd\u00a0e\u3000f", "x" * 101 + " y" + "z" * 100, "🎵 music 🫠 note", "$5+3=<8>^`|~",
    "don't stop—now… “quote”", "ab\tc\nd\re", "한국어 노래", "हिन्दी संगीत", "\u0301a", "ﬁne ½ ²",
    "unaffable electroencephalographically " * 9, "\ufffd\x00\x07bell", "𝔘𝔫𝔦", "[mask] [PAD][UNK]",
)  # fmt: skip


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("page")
    uri, _ = make_package(scratch)
    export_onnx(uri, scratch / "edge", ("int8",), beside=write_page)
    return scratch / "edge"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "No Chromium is here. Debian's package is chromium."
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """Every address that the page has asked for."""
    return []


@pytest.fixture(scope="module")
def page(browser: Browser, address: str, requests: list[str]) -> Iterator[Page]:
    context = browser.new_context(color_scheme="light")
    context.on("request", lambda request: requests.append(request.url))
    found = context.new_page()
    found.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.goto(address)
    expect(found.get_by_role("status")).to_contain_text("Ready.")
    yield found
    context.close()
    assert not wrong
    assert [url for url in requests if not url.startswith((address, "blob:", "data:"))] == []


def _make(page: Page, prompt: str, seed: int, seconds: float) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Seconds").fill(str(seconds))
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.get_by_role("status")).to_have_text("Ready.")


def test_a_prompt_becomes_the_players_sound_and_no_server_is_asked(
    page: Page, folder: Path, requests: list[str], tmp_path: Path
) -> None:
    before = len(requests)
    _make(page, PROMPT, 7, 0.5)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").first.click()
    download.value.save_as(tmp_path / "sound.wav")
    assert [url for url in requests[before:] if not url.startswith("blob:")] == []
    audio_SA, rate = soundfile.read(tmp_path / "sound.wav")
    wanted = Player(folder, "int8").generate(PROMPT, 0.5, 7)
    assert rate == 44_100 and audio_SA.T.shape == wanted.shape and np.abs(audio_SA).max() > 0.001
    assert np.sum((audio_SA.T - wanted) ** 2) < 0.01 * np.sum(wanted**2), "within −20 dB"


def test_a_seed_decides_the_sound(page: Page) -> None:
    drawn = []
    for seed in (1, 2, 1):
        _make(page, "rain", seed, 0.3)
        drawn.append(page.evaluate("document.querySelector('.take canvas').toDataURL()"))
    assert drawn[0] == drawn[2] != drawn[1]


def test_tokens_are_the_tokenizers(page: Page, folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(32)
    found = page.evaluate(
        """async (texts) => {
          const { WordPiece } = await import("./wordpiece.js");
          const tokenizer = new WordPiece(await (await fetch("tokenizer.json")).json(), 32);
          return texts.map((text) => tokenizer.encode(text));
        }""",
        list(TEXTS),
    )
    assert found == [tokenizer.encode(text).ids for text in TEXTS]


def test_noise_and_levels_are_the_players(page: Page) -> None:
    seeds = [0, 7, 2**32 - 1, 2**40 + 5]
    found = page.evaluate(
        """async (seeds) => {
          const { levels, noise } = await import("./noise.js");
          return [seeds.map((seed) => [...noise(seed, 2, 40, 9)]), [...levels(4)]];
        }""",
        seeds,
    )
    for seed, values in zip(seeds, found[0], strict=True):
        assert np.abs(noise(seed, 2, 40, 9).ravel() - values).max() < 1e-5
    np.testing.assert_allclose(found[1], levels(4), atol=1e-6)


def test_what_cannot_be_made_is_said_in_words(page: Page) -> None:
    page.get_by_label("Prompt").fill("   ")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("blank")
    expect(page.get_by_label("Prompt")).to_be_focused()


def test_a_sound_can_be_cancelled(page: Page) -> None:
    page.get_by_label("Steps").fill("50")
    page.get_by_label("Prompt").fill("rain")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("of 50")
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    page.get_by_label("Steps").fill("")


def test_it_fits_a_phone_and_both_themes(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    small = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea')]"
        ".filter(e => e.offsetParent && e.offsetHeight < 40).length"
    )
    assert small == 0, "every control can be touched"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, textarea')].filter(e => !e.labels.length).map(e => e.id)"
    )
    assert unnamed == []


def test_a_missing_network_is_said_in_words(browser: Browser, folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "int8" / "dit.onnx").unlink()
    assert json.loads((broken / "manifest.json").read_text())["graphs"]["int8"]["dit"] == "int8/dit.onnx"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(broken))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = browser.new_page()
        found.goto(f"http://127.0.0.1:{server.server_port}/")
        expect(found.get_by_role("status")).to_contain_text("int8/dit.onnx is missing", timeout=PATIENCE_MS)
        expect(found.get_by_role("button", name="Generate")).to_be_disabled()
        found.close()
        server.shutdown()
        thread.join()
