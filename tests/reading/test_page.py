"""The page: what it shows, and how a browser on a desk and on a phone gets along with it."""

import re

import pytest

from minbert.reading.equations import mathml, tex
from tests.browser import browser


@pytest.fixture(scope="module")
def page(program, odd, tmp_path_factory):
    """The page, made with random weights."""
    pytest.importorskip("latex2mathml")
    folder = tmp_path_factory.mktemp("page")
    status, _, err = program("minbert.reading", "--out", folder, "--pretrained", odd)
    assert (status, err) == (0, "")
    return folder / "index.html"


def test_the_page_shows_each_shape_with_its_sizes_and_links_tests_that_are_there(page):
    text = page.read_text("utf-8")
    assert text.count('class="shape"') > 120
    scores = text.index("scores = q @")
    assert re.search(r"\(B, H, T, T\)</button>.*?\(2, 6, (\d+), \1\) float32<br>B = 2, H = 6", text[scores:][:900])
    assert text.count("<math ") > 25
    links = re.findall(r'<a href="([^"#][^"]*)"', text)
    assert len(links) > 40 and all((page.parent / link).exists() for link in links)
    assert not re.search(r'(src|href)="?https?:', text)


def test_a_browser_finds_no_fault_with_it(page):
    with browser() as tab:
        for width, dark in ((390, False), (1280, True)):
            tab.open(page, width, dark=dark)
            assert (tab.errors(), tab.requests(), tab.axe()) == ([], [], [])
            assert tab.overflow() <= 0
        tab.open(page, 390)
        shown = "const t = document.getElementById(document.activeElement.getAttribute('aria-describedby'));"
        shown += "const b = t.getBoundingClientRect(), w = document.documentElement.clientWidth;"
        shown += "return b.height > 0 && b.left >= 0 && b.right <= w && b.top >= 0 && b.bottom <= innerHeight"
        for number in (0, 40, 90):
            tab.run(f"document.querySelectorAll('.shape')[{number}].id = 'here{number}'")
            tab.point(f"#here{number}", press=True, kind="touch")
            assert tab.run(shown) is True
        tab.press("Escape")
        assert tab.run(shown) is False
        tab.press("Tab")  # the next shape, by keyboard
        assert tab.run("return document.activeElement.className") in ("shape", "apart", "equation", "scroll", "")
        before = tab.run("return document.querySelector('#map tbody').textContent")
        tab.run("const h = document.getElementById('head'); h.value = 2; h.dispatchEvent(new Event('change'))")
        assert tab.run("return document.querySelector('#map caption').textContent") == "attention of head 3 in layer 1"
        assert tab.run("return document.querySelector('#map tbody').textContent") != before
        assert tab.print().startswith(b"%PDF")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("softmax(QKᵀ/√D + mask)·V", r"\mathrm{softmax}(QK^{T}/\sqrt{D} + \mathrm{mask})\cdot V"),
        ("√(var(x) + ε)", r"\sqrt{\mathrm{var}(x) + \varepsilon}"),
        ("√v_t", r"\sqrt{v_{t}}"),
        ("x̃ ← Π_ε(x̃)", r"\tilde{x} \leftarrow  \Pi _{\varepsilon }(\tilde{x})"),
        ("h_[CLS]", r"h_{[\mathrm{CLS}]}"),
        ("g_t²", "g_{t}^{2}"),
        ("β₁", r"\beta _{1}"),
    ],
)
def test_plain_equations_become_tex(text, expected):
    assert tex(text) == expected


def test_mathml_keeps_the_text_for_those_who_do_not_see_it():
    pytest.importorskip("latex2mathml")
    assert 'alttext="a &lt; b/√D"' in mathml("a < b/√D") and "<msqrt>" in mathml("a < b/√D")
