"""The page: what it shows, and how a browser on a desk and on a phone gets along with it."""

import re

import pytest

from minbert.reading.__main__ import main
from minbert.reading.equations import mathml, tex
from minbert.reading.walk import MOST, code_lines, walk
from tests.browser import browser

pytestmark = pytest.mark.xdist_group("page")  # it is made once


@pytest.fixture(scope="module")
def page(program, odd, tmp_path_factory):
    """The page, made with random weights."""
    pytest.importorskip("latex2mathml")
    folder = tmp_path_factory.mktemp("page")
    status, _, err = program("minbert.reading", "--out", folder, "--pretrained", odd)
    assert (status, err) == (0, "")
    return folder / "index.html"


def test_a_package_that_is_missing_is_told_before_the_scenes_run(monkeypatch, refusal, tmp_path):
    monkeypatch.setattr("minbert.reading.page.find_spec", lambda name: None)
    monkeypatch.setattr("minbert.reading.__main__.play", lambda *_: pytest.fail("a scene ran"))
    assert "pip install -e '.[reading]'" in refusal(main, ["--out", str(tmp_path)])


def test_the_page_shows_each_shape_with_its_sizes_and_links_tests_that_are_there(page):
    text = page.read_text("utf-8")
    assert text.count('class="shape"') > 120
    scores = text.index("scores = q @")
    assert re.search(r"\(B, H, T, T\)</button>.*?\(2, 6, (\d+), \1\) float32<br>B = 2, H = 6", text[scores:][:900])
    assert text.count("<math ") > 25
    links = re.findall(r'<a href="([^"#][^"]*)"', text)
    assert len(links) > 40 and all((page.parent / link).exists() for link in links)
    assert not re.search(r'(src|href)="?https?:', text)


def test_the_page_shows_the_loop_between_the_optimizer_and_the_techniques(page):
    text = page.read_text("utf-8")
    titles = re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", text)[1:]
    assert titles[:8] == ["tokenizer.py", "bert.py", "heads.py", "multitask.py", "tasks.py", "optimizer.py",
                          "train, in multitask_classifier.py", "pcgrad.py"]  # fmt: skip
    assert "terms.py" in titles
    loop = text[text.index('<h2 id="multitask_classifier">') :]
    loop = loop[: loop.index("</section>")]
    assert "checked_step" in loop and "write_all_predictions" not in loop  # `train` alone
    assert "test_terms_by_hand.py" in loop


def test_no_stop_of_the_walk_is_longer_than_250_lines_of_code(page):
    rows = walk()
    assert {stop: own for stop, own, _ in rows if own > MOST} == {}
    assert [total for *_, total in rows] == [sum(own for _, own, _ in rows[: n + 1]) for n in range(len(rows))]
    for _, own, total in rows:
        assert f"<td>{own}</td><td>{total}</td>" in page.read_text("utf-8")


def test_lines_of_code_are_counted_without_docstrings_comments_and_blank_lines(tmp_path, monkeypatch):
    (tmp_path / "minbert").mkdir()
    text = '"""A module.\n\nMore.\n"""\n\nimport os  # for one\n\n\ndef f():\n'
    text += '    """One."""\n    # why\n    return (\n        1\n    )\n'
    (tmp_path / "minbert/one.py").write_text(text, "utf-8")
    monkeypatch.setattr("minbert.reading.walk.ROOT", tmp_path)
    assert code_lines("one") == 5  # import, def, and the three lines of return


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
