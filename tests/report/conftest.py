"""What the tests of the page share."""

import sys

import pytest

import minbert.report


@pytest.fixture
def no_matplotlib(monkeypatch):
    """As on a machine where matplotlib is not installed; a page without pictures is also made sooner."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "minbert.report.pictures", raising=False)
    monkeypatch.delattr(minbert.report, "pictures", raising=False)
