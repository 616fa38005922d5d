"""The page at `/` in a Chromium: chat by keyboard, cycles of each token, light and dark."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import Running, running, script, shipped

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs a chromium on PATH")
TIMED = """
import sim.device.reference_device as reference
from sim.device.protocol import TokenResult
real = reference.ReferenceDevice._step
def step(self):
    cycles = self._program.cycles(self._state.position)
    return TokenResult(real(self).token, cycles)
reference.ReferenceDevice._step = step
"""
"""A device that says it has taken the cycles of the prediction."""
WAIT = 60_000.0
"""Milliseconds that a busy machine may take."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "continuous integration must have a chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    with running(folder=folder, command=script(folder, TIMED)) as found:
        yield found


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    expect.set_options(timeout=WAIT)
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[object] = []
    opened.on("pageerror", lambda error: errors.append(error))
    opened.goto(server.url)
    expect(opened.locator("#state")).to_have_text("ok")
    yield opened
    opened.close()
    assert not errors


def test_a_story_by_keyboard(page: Page):
    page.locator("#tokens").evaluate("e => { e.value = 20 }")
    page.keyboard.type("Once upon a time")
    page.keyboard.press("Enter")
    expect(page.locator(".turn i")).to_have_count(20)
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#promise .good")).to_contain_text("measured")
    cycles = f"{20 * shipped().cycles(0):,}"
    expect(page.locator("#promise")).to_contain_text(f"measured {cycles} cycles = predicted {cycles}")
    expect(page.locator("#cycles .bar")).to_have_count(20)
    expect(page.locator("#ecdf .curve")).to_have_count(2)
    expect(page.locator("#units meter")).to_have_count(4)
    page.locator("#token").focus()
    page.keyboard.press("Home")
    expect(page.locator("#which")).to_contain_text("Token 1 of 20, position 4")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#which")).to_contain_text("Token 2 of 20, position 5")
    expect(page.locator(".turn i.chosen")).to_have_count(1)


def test_an_error_is_shown(page: Page):
    page.locator("#text").fill("story " * 400)
    page.keyboard.press("Enter")
    expect(page.locator(".turn.error")).to_contain_text("maximum context length")
    expect(page.locator("#send")).to_be_enabled()


def test_escape_stops(page: Page, server: Running):
    page.locator("#text").fill("Once upon a time")
    page.keyboard.press("Enter")
    expect(page.locator(".turn i").first).to_be_visible(timeout=60_000)
    page.keyboard.press("Escape")
    expect(page.locator("#stop")).to_be_disabled()
    server.wait(lambda: server.engine.running == 0)


def test_light_and_dark_and_narrow(page: Page):
    def back() -> str:
        return page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")

    page.emulate_media(color_scheme="light")
    light = back()
    page.emulate_media(color_scheme="dark")
    assert back() != light
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.locator("body").evaluate("e => e.scrollWidth <= innerWidth")
