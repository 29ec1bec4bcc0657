"""The pre-training run that others are compared with."""

import pytest

from tests.pretraining.runs import run


@pytest.fixture(scope="session")
def plain(tmp_path_factory, tiny, sample):
    """The run that others are compared with, and its metrics."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    return folder, run(folder, tiny, sample)
