"""The child process that the tests of a worker share, and copies of the example project “course”."""

import shutil
from pathlib import Path

import pytest

from minbert.sanity.launch import Child
from tests.sanity.making import PROJECTS, swap


@pytest.fixture(scope="session")
def child():
    child = Child()
    yield child
    child.close()


@pytest.fixture
def impatient(monkeypatch):
    """The search for several mistakes at once ends soon, for tests in which there are none."""
    monkeypatch.setattr("minbert.sanity.judge.PATIENCE", 0.3)


@pytest.fixture
def project(tmp_path):
    """A function that copies the course's project with texts replaced: project("bert.py", old, new, …, name=…)."""

    def copy(file: str = "", *texts: str, name: str = "theirs") -> Path:
        folder = tmp_path / name
        shutil.copytree(PROJECTS / "course", folder)
        for old, new in swap(*texts):
            text = (folder / file).read_text("utf-8")
            assert text.count(old) >= 1, f"{old!r} is not in {file}"
            (folder / file).write_text(text.replace(old, new, 1), "utf-8")
        return folder

    return copy
