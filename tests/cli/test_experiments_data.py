"""`python -m minbert.experiments` goes on with a table after its data were moved, and does not with other data.

The runs' folders are written by hand.
"""

import json
import shutil
from pathlib import Path

import pytest

from minbert import experiments, settings
from minbert.errors import UserError
from minbert.files import sha256
from tests.cli.test_experiments import jobs


def run_of(data: Path, out: Path, *flags: str) -> experiments.Job:
    """The job of a row, whose run is done; it read the files in `data`."""
    (job,) = jobs("--table", "b-sst-only", "--out", str(out), *flags)
    files = {"sst": {"train": str(data / "ids-sst-train.csv"), "test": str(data / "ids-sst-test-student.csv")}}
    digests = {f"sst/{split}": sha256(Path(path)) for split, path in files["sst"].items()}
    about = {"flags": experiments.values_of(job), "data": digests, "plan": {"files": files}, "finished": "2026"}
    job.out.mkdir(parents=True)
    (job.out / "run.json").write_text(json.dumps(about))
    return job


@pytest.fixture
def data(few, tmp_path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "data"))


def test_a_table_goes_on_where_the_data_folder_was_moved(data, tmp_path):
    run_of(data, tmp_path / "out", "--data", str(data))
    data.rename(tmp_path / "moved")
    (job,) = jobs("--table", "b-sst-only", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "moved"))
    assert experiments.state_of(job) == "done"
    (tmp_path / "moved" / "ids-sst-test-student.csv").unlink()  # which no training reads
    assert experiments.state_of(job) == "done"
    (tmp_path / "moved" / "ids-sst-train.csv").unlink()
    with pytest.raises(UserError, match=r"moved/ids-sst-train.csv: is not there, but .* name another --data"):
        experiments.state_of(job)


def test_a_table_goes_on_where_the_whole_project_was_moved(data, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "DATA", data)
    job = run_of(data, tmp_path / "out")
    monkeypatch.setattr(settings, "DATA", data.rename(tmp_path / "moved"))
    assert experiments.state_of(job) == "done"


def test_a_table_does_not_go_on_with_other_data_though_the_first_are_still_there(data, few, tmp_path):
    run_of(data, tmp_path / "out", "--data", str(data))
    other = shutil.copytree(few, tmp_path / "other")
    path = other / "ids-sst-train.csv"
    path.write_text(path.read_text().replace(" the ", " a "))
    (job,) = jobs("--table", "b-sst-only", "--out", str(tmp_path / "out"), "--data", str(other))
    with pytest.raises(UserError, match=r"other/ids-sst-train.csv: is not what it was when .* name another --data"):
        experiments.state_of(job)
