"""The playground in headless Chromium, on the real application with two packages and keys."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import uvicorn
from endpoint import running
from playwright.sync_api import Browser, Page, expect, sync_playwright

from serving.keys import add_key
from serving.state import ServedModel
from sonarc.contracts.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "No Chromium is here. Debian's package is chromium."
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield found
        found.close()


def _served_page(champion: ServedModel, candidate: ServedModel | None, keys: Path | None) -> Iterator[str]:
    """Address of the application, running in a thread."""
    port, up, down = free_port(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(champion, candidate, keys=keys) as endpoint:
            server = uvicorn.Server(uvicorn.Config(endpoint.app, port=port, log_level="warning"))
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.05)
            up.set()
            while not down.is_set():
                await asyncio.sleep(0.05)
            server.should_exit = True
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(120)
    yield f"http://127.0.0.1:{port}/"
    down.set()
    thread.join(60)


@pytest.fixture(scope="module")
def address(served: tuple[ServedModel, ServedModel]) -> Iterator[str]:
    yield from _served_page(*served, None)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    found = context.new_page()
    found.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("request", lambda request: wrong.append(request.url) if not _own(request.url, address) else None)
    found.goto(address)
    expect(found.locator("#about")).to_contain_text("version 3")
    yield found
    context.close()
    assert not wrong, "errors in the page, or something loaded from elsewhere"


def _own(url: str, address: str) -> bool:
    return url.startswith((address, "blob:", "data:"))


def _sound(page: Page, tmp_path: Path, take: int = 0) -> np.ndarray:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").nth(take).click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return np.asarray(soundfile.read(path)[0])


def test_typing_a_prompt_makes_a_sound_that_plays(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Prompt").fill("a slow fiddle tune")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.get_by_role("status")).to_have_text("Ready.")
    assert np.abs(_sound(page, tmp_path)).max() > 0.001
    page.get_by_role("button", name="Loop").click()
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    deadline = time.monotonic() + 60
    while page.evaluate("document.querySelector('audio').currentTime") < 0.05:
        assert time.monotonic() < deadline, "it does not play"
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Pause").click()
    drawn = page.evaluate(
        "[...document.querySelectorAll('.take canvas')].map(c =>"
        " new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"
    )
    assert len(drawn) == 2 and min(drawn) > 3, "waveform and spectrogram are pictures"
    assert page.get_by_role("img").count() == 2


def test_a_link_and_the_history_make_the_same_sound(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Prompt").fill("a bell & a <drum>")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_have_text("Ready.")
    first = _sound(page, tmp_path)
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("status")).to_contain_text("makes the same sound")
    address = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_label("Prompt")).to_have_value("a bell & a <drum>")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_have_text("Ready.")
    assert np.array_equal(_sound(page, tmp_path), first)
    page.get_by_role("button", name="Again: a bell").first.click()
    expect(page.get_by_role("article")).to_have_count(2)
    assert np.array_equal(_sound(page, tmp_path), first)
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#past")).to_be_hidden()


def test_variations_and_both_models_stand_side_by_side(page: Page) -> None:
    page.get_by_label("Prompt").fill("rain")
    page.get_by_label("Variations").fill("2")
    page.get_by_label("Model").select_option("both")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".take")).to_have_count(4)
    facts = page.locator(".facts").all_text_contents()
    seeds = [text.split("seed ")[1].split(" ")[0] for text in facts]
    assert seeds[0] == seeds[1] and seeds[2] == seeds[3] != seeds[0]
    assert ["champion (3)" in text for text in facts] == [True, False, True, False]


def test_what_the_server_refuses_is_said_at_its_field(page: Page) -> None:
    page.get_by_label("Prompt").fill("   ")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("blank")
    expect(page.get_by_label("Prompt")).to_be_focused()
    page.get_by_label("Prompt").fill("rain")
    page.evaluate("document.getElementById('seconds').removeAttribute('max')")
    page.get_by_label("Seconds").fill("99")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_label("Seconds")).to_be_focused()
    assert page.locator("#status").get_attribute("class") == "bad"


def test_it_fits_a_phone_and_both_themes(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_label("Prompt").fill("a-very-long-prompt-without-any-space-" * 5)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_have_text("Ready.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    small = page.evaluate(
        "[...document.querySelectorAll('button, input, select')]"
        ".filter(e => e.offsetParent && e.offsetHeight < 40).length"
    )
    assert small == 0, "every control can be touched"


def test_keys_are_asked_for_and_limits_are_told(
    browser: Browser, served: tuple[ServedModel, ServedModel], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    secret = add_key(keys, "studio", requests_per_minute=1, concurrent_requests=0)
    for address in _served_page(served[0], None, keys):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        expect(page.locator("#about")).to_have_text("This endpoint wants a key.")
        page.get_by_label("API key").fill(secret)
        page.get_by_label("API key").press("Tab")
        expect(page.locator("#about")).to_contain_text("version 3")
        page.get_by_label("Prompt").fill("rain")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("status")).to_have_text("Ready.")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("status")).to_contain_text("Try again in")
        assert secret not in page.content()
        page.close()
