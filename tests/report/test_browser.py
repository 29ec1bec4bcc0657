"""The page in a real headless browser: it renders, asks for nothing, has no console error, and passes axe."""

import re

import pytest

from minbert.report.__main__ import report
from tests.browser import browser
from tests.report.folders import line, with_flags, write_run

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.xdist_group("report page")  # it is made once
WIDTHS = (390, 1280)  # a phone and a desktop, in CSS pixels
TEXT = "<img src=http://127.0.0.1:9/x.png> " + "word" * 60  # asks for a picture, if it is taken for HTML


@pytest.fixture(scope="module")
def window():
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def page(tmp_path_factory, window):
    """A page of two runs with every section."""
    runs = tmp_path_factory.mktemp("runs")
    rows = {"sst": [(TEXT, [TEXT], 0, 4, [0, 0, 0, 0, 5]), ("2", ["x"], 1, 1, [0, 1, 0, 0, 0])],
            "sts": [("1", ["a", TEXT], 1.0, 4.0, [4.0]), ("2", ["a", "b"], 2.0, 4.5, [4.5])]}  # fmt: skip
    write_run(runs / "one", rows=rows)
    write_run(runs / "two", with_flags(lr=1.0), [line(0), line(1)], rows={})
    return report([runs])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_asks_for_nothing_and_has_no_error(window, page, width):
    window.open(page, width)
    assert window.errors() == [] and window.requests() == []
    assert window.overflow() <= 0
    assert window.run("return document.querySelectorAll('svg[role=img] > title').length") >= 12
    sizes = window.run("return [...document.querySelectorAll('svg')].map(x => x.getBoundingClientRect().width)")
    assert all(250 < size <= min(width, 500) for size in sizes)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_passes_the_accessibility_checker(window, page, width):
    window.open(page, width)
    window.run("document.querySelectorAll('details').forEach(x => x.open = true)")
    assert window.axe() == []


def test_the_keyboard_opens_a_pictures_table(window, page):
    window.open(page)
    is_open = "const s = [...document.querySelectorAll('figure summary')].find(x => !x.parentNode.open || x.dataset.t);"
    window.run(is_open + "s.dataset.t = 1; s.focus()")
    window.press("Enter")
    assert window.run("return document.querySelector('[data-t]').parentNode.open")


def test_in_print_the_tables_are_open_and_nothing_is_cut_off(window, page):
    window.open(page, width=700, media="print")
    assert window.overflow() <= 0
    assert window.run("return [...document.querySelectorAll('details table')].every(x => x.checkVisibility())")
    assert window.print().startswith(b"%PDF")


def test_pictures_do_not_need_colour(window, page):
    """Each line of a picture has another dash or another marker than the others."""
    text = page.read_text("utf-8")
    curve = re.search(r'<svg[^>]*aria-labelledby="run-one-cosines-title".*?</svg>', text, re.S)[0]
    dashes = set(re.findall(r"stroke-dasharray: ([\d., ]+)", curve))
    markers = set(re.findall(r'<use [^>]*href="#(run-one-cosines-m[0-9a-f]+)"', curve))
    assert len(dashes) >= 2 and len(markers) >= 3


BAD = """<!doctype html><html lang="en"><title>t</title><meta name="viewport" content="width=device-width">
<p style="color:#ccc">pale</p><img src="http://127.0.0.1:9/x.png"><div style="width:2000px">wide</div>
<script>throw Error("oops")</script></html>"""


def test_the_checks_see_a_bad_page(window, tmp_path):
    (tmp_path / "bad.html").write_text(BAD)
    window.open(tmp_path / "bad.html", 390)
    assert window.requests() == ["http://127.0.0.1:9/x.png"]
    assert any("oops" in error for error in window.errors()) and window.overflow() > 0
    rules = {complaint.partition(":")[0] for complaint in window.axe()}
    assert {"color-contrast", "image-alt"} <= rules
