"""The page in Chromium: it runs without a complaint, fits a phone, and is worked by keyboard."""

import json
import struct
import zlib
from pathlib import Path

import pytest

from adakd_jax.report import main
from tests.reports.browser import Browser, find_chromium

MODES = ("score", "temperature", "selected", "student_nll")
TOKENS = "document.querySelectorAll('.passage:not([hidden]) .t')"
BINARY = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert BINARY is not None
    browser = Browser(BINARY, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(make_run):
    one, other = make_run("one"), make_run("two", kind="all")
    main([str(one), str(other)])
    return one / "report.html"


def colours(png):
    """How often each byte value of the image data occurs, by unpacking its rows."""
    data, at = b"", 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    return zlib.decompress(data)


def colour_by(browser, mode):
    browser.run(f"document.querySelector('[name=mode][value={mode}]').click()")


def choose(browser, name, value):
    browser.run(f"document.querySelector('select[name={name}]').value = '{value}'")
    browser.run(
        f"document.querySelector('select[name={name}]')"
        ".dispatchEvent(new Event('input', {bubbles: true}))"
    )


def test_it_complains_of_nothing_and_fetches_nothing(browser, page):
    browser.open(page)
    assert browser.troubles() == []
    assert browser.requests() == [page.absolute().as_uri()]
    assert browser.run("window.stolen === undefined")
    assert browser.run("document.querySelectorAll('.t').length") == 28


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_shows_something_in_both_schemes(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background[4:-1].split(",")) / 3
    assert (brightness < 60) == dark and (brightness > 200) != dark
    assert len(set(colours(browser.screenshot()))) > 60
    assert browser.troubles() == []
    widest = browser.run(
        "Math.max(...[...document.querySelectorAll('.plot text')].map(t => t.getBBox().width))"
    )
    assert 0 < widest < 60


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_every_colour(browser, page, dark):
    browser.open(page, dark=dark)
    for mode in MODES:
        colour_by(browser, mode)
        assert browser.run((Path(__file__).parent / "contrast.js").read_text()) == [], mode


def test_tokens_by_keyboard(browser, page):
    browser.open(page)
    browser.run(f"{TOKENS}[0].focus()")
    detail = "document.getElementById('token-detail')"
    assert browser.run(f"{detail}.hidden") is False
    assert browser.run("document.activeElement.getAttribute('aria-describedby')") == "token-detail"
    for _ in range(3):
        browser.press("ArrowRight")
    said = browser.run(f"{detail}.textContent")
    assert browser.run("document.activeElement.textContent") == "é"
    assert "difficulty 0.34" in said and "kept" in said and "τ 0.80" in said and "␣sky" in said
    assert "<img" in said and browser.run(f"{detail}.querySelector('img')") is None
    browser.press("[")
    assert "difficulty 0.32" in browser.run(f"{detail}.textContent")
    assert browser.run("document.getElementById('token-step').textContent") == "20 of 40"
    assert browser.run("document.querySelectorAll('.t[tabindex=\"0\"]').length") == 4  # one a text
    browser.press("Escape")
    assert browser.run(f"{detail}.hidden") is True
    assert browser.run("window.stolen === undefined") and browser.troubles() == []


def test_controls_change_what_is_coloured(browser, page):
    browser.open(page)
    seen = set()
    for mode in MODES:
        colour_by(browser, mode)
        seen.add(browser.run(f"getComputedStyle({TOKENS}[6]).backgroundColor"))
        assert browser.run("document.querySelector('.scale .high').textContent")
    assert len(seen) == len(MODES)
    choose(browser, "run", "1")
    choose(browser, "example", "1")
    shown = browser.run("[...document.querySelectorAll('.passage')].map(p => !p.hidden)")
    assert shown == [False, False, False, True]
    assert browser.troubles() == []


def test_charts_by_keyboard(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.plot').focus()")
    browser.press("ArrowLeft")
    assert browser.run("document.querySelector('.at').textContent") == "step 39"
    values = browser.run("document.getElementById('chart-values').textContent")
    assert values.startswith("step 39: one ") and "two" in values
    assert browser.run("document.querySelector('.cursor').getAttribute('visibility')") == "visible"


def test_a_run_without_a_teacher_shows_what_it_has(browser, make_run):
    folder = make_run("alone")
    for file in (folder / "tokens").iterdir():
        content = json.loads(file.read_text())
        for example in content["examples"]:
            for column in ("score", "selected", "temperature", "teacher", "teacher_nll"):
                del example[column]
        file.write_text(json.dumps(content))
    main([str(folder)])
    browser.open(folder / "report.html")
    assert browser.run("document.querySelector('[name=mode]:checked').value") == "student_nll"
    enabled = "[...document.querySelectorAll('[name=mode]:enabled')].map(mode => mode.value)"
    assert browser.run(enabled) == ["student_nll"]
    browser.run(f"{TOKENS}[2].focus()")
    said = browser.run("document.getElementById('token-detail').textContent")
    assert "NLL 1.00" in said and "difficulty" not in said and "teacher" not in said
    assert browser.troubles() == []
