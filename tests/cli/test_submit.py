"""A submission runs by itself: unpacked into an empty folder, where no `minbert` can be imported."""

import os
import sys
import zipfile
from pathlib import Path

import pytest

import multitask_classifier
from minbert import submit
from tests.run.crashes import as_script, in_a_process


def alone(argv: list[str]):
    """Run elsewhere/multitask_classifier.py where no `minbert` can be imported."""
    sys.modules["minbert"] = None
    as_script(Path("elsewhere").resolve(), "multitask_classifier.py", argv)


@pytest.fixture
def flags(tiny, sample):
    base = ["--pretrained", str(tiny), "--data", str(sample), "--limit", "12", "--epochs", "1", "--option", "finetune"]
    return [*base, "--smart", "1", "--adapter", "low_rank"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it runs in a copy of the test's process")
def test_a_submission_for_stanford_trains_the_same_model_without_the_package(tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    multitask_classifier.main(flags)
    submit.main([])
    with zipfile.ZipFile("cs224n_default_final_project_submission.zip") as archive:
        archive.extractall("elsewhere")
    sent = {path.name: path.read_bytes() for path in Path("elsewhere/predictions").iterdir()}
    assert len(sent) == 6
    assert {"bert.py", "optimizer.py", "classifier.py"} <= {path.name for path in Path("elsewhere").iterdir()}
    status, errors = in_a_process(alone, flags)
    assert status == 0, errors
    assert sent == {path.name: path.read_bytes() for path in Path("elsewhere/predictions").iterdir()}


def test_a_submission_for_cmu_has_the_four_files_and_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in submit.CMU:
        Path(f"{name}.csv").write_text("ID,label\n0,1\n")
    submit.main(["--course", "cmu", "--id", "ada"])
    with zipfile.ZipFile("ada.zip") as archive:
        names = archive.namelist()
    assert all(name.startswith("ada/") and name.count("/") == 1 for name in names)
    required = ("bert.py", "optimizer.py", "classifier.py", *(f"{name}.csv" for name in submit.CMU))
    assert {f"ada/{name}" for name in required} <= set(names)


def test_a_missing_prediction_file_is_named(tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    assert "predictions" in refusal(submit.main, [])
    Path("sst-dev-output.txt").write_text("1 ||| a film\n")
    assert "sst-test-output" in refusal(submit.main, ["--course", "cmu", "--id", "ada"])
    assert "--id" in refusal(submit.main, ["--course", "cmu"])


def test_flat_files_import_nothing_from_the_package():
    sources = submit.flat_files()
    assert len(sources) > 20
    assert not [name for name, source in sources.items() if "import minbert" in source or "from minbert" in source]
