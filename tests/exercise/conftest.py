"""Copies whose check holds the recorded numbers of some parts alone: those of all take nine seconds to make."""

from collections.abc import Callable

import pytest

from minbert.exercise import copies, questions


@pytest.fixture
def numbers_of(monkeypatch) -> Callable[..., None]:
    """A function from names of parts, as in the sanity check, to copies with no other numbers."""

    def keep(*names: str):
        monkeypatch.setattr(copies, "numbers", lambda: questions.numbers(names))

    return keep


@pytest.fixture
def no_numbers(numbers_of):
    """For tests that do not ask the copy's check."""
    numbers_of()
