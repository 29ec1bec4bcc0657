"""minbert/state.py: what is written comes back to the bit, and anything else than what was written is noticed."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minbert.errors import UserError
from minbert.files import remove_strays
from minbert.folder import RunFolder
from minbert.run import Run
from minbert.state import MANIFEST, TENSORS, VALUES, finite, is_state, read_state, write_state
from tests.run.crashes import differences

STATE = {
    "weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "half": torch.ones(3, dtype=torch.bfloat16)},
    "generator": torch.Generator().manual_seed(3).get_state(),
    "history": [{"sst": 0.5}, {"sst": 1 / 3}],
    "adam": {0: {"step": 2, "m": torch.full((4,), 1e-30)}, 1: {}},
    "betas": (0.9, 0.999),
    "text": "é\n\u2028\0",
    "nothing": None,
    "flag": True,
}


def test_a_state_comes_back_to_the_bit(tmp_path):
    write_state(tmp_path / "state", STATE)
    assert not differences(read_state(tmp_path / "state"), STATE)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {TENSORS, VALUES, MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_tensor_that_two_names_share_is_written_once_and_comes_back_as_both(tmp_path):
    a = torch.randn(1000)
    write_state(tmp_path / "state", {"word": a, "decoder": a, "part": a[:10], "turned": a.view(10, 100).T})
    again = read_state(tmp_path / "state")
    assert (tmp_path / "state" / TENSORS).stat().st_size < 2 * 4 * 1000 + 1000
    assert torch.equal(again["word"], a) and again["decoder"] is again["word"]
    assert torch.equal(again["part"], a[:10]) and torch.equal(again["turned"], a.view(10, 100).T)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=15,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=plain)
def test_plain_values_come_back(tmp_path, value):
    write_state(tmp_path / "state", {"value": value})
    assert repr(read_state(tmp_path / "state")["value"]) == repr(value)  # repr: a NaN is not equal to itself


def test_what_json_cannot_hold_is_an_error_of_the_program(tmp_path):
    with pytest.raises(TypeError, match="a/b is a set"):
        write_state(tmp_path / "state", {"a": {"b": {1, 2}}})
    assert not list(tmp_path.iterdir())


def test_finite_names_the_first_tensor_that_is_not():
    assert finite({"a": torch.ones(3), "ids": torch.tensor([1])}) == ""
    assert finite({"a": torch.ones(3), "b": torch.tensor([1.0, math.nan]), "c": torch.tensor(math.inf)}) == "b"


# ------------------------------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A state with tensors of some size."""
    path = tmp_path_factory.mktemp("state") / "state"
    write_state(path, STATE | {"large": torch.randn(5000)})
    return path


def flipped(path: Path, place: int, bit: int):
    """Flip one bit of a file, and flip it back afterwards."""
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def places(path: Path) -> list[int]:
    """Every byte of the plain files and of the tensors' header, and 250 random places of the tensors themselves."""
    size = path.stat().st_size
    if path.name != TENSORS:
        return list(range(size))
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    return [*range(header), *random.Random(5).sample(range(header, size), 250)]


@pytest.mark.parametrize("name", [TENSORS, VALUES, MANIFEST])
def test_a_flipped_bit_is_noticed_wherever_it_is(written, name):
    path, numbers = written / name, random.Random(name)
    good = read_state(written)
    for place in places(path):
        bit = numbers.randrange(8)
        flipped(path, place, bit)
        try:
            assert not differences(read_state(written), good), f"byte {place}, bit {bit}: another state, silently"
            pytest.fail(f"byte {place}, bit {bit}: not noticed")
        except UserError as error:
            assert str(written) in str(error) and "\n" not in str(error)
        flipped(path, place, bit)
    assert not differences(read_state(written), good)


@pytest.mark.parametrize("name", [TENSORS, VALUES, MANIFEST])
def test_a_file_that_is_missing_is_named(written, tmp_path, name):
    copy = Path(shutil.copytree(written, tmp_path / "copy"))
    (copy / name).unlink()
    with pytest.raises(UserError, match=name):
        read_state(copy)
    assert is_state(copy) == (name != MANIFEST)


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", "3", "[[[[", '{"state.json": 3}', "null", "[" * 100_000], ids=lambda text: text[:20]
)
def test_a_manifest_of_another_form_is_one_line(written, tmp_path, manifest):
    copy = Path(shutil.copytree(written, tmp_path / "copy"))
    (copy / MANIFEST).write_text(manifest)
    with pytest.raises(UserError) as caught:
        read_state(copy)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------ between two states


def test_where_the_new_state_never_came_the_old_one_is_read_and_gets_its_place_back(tmp_path):
    write_state(tmp_path / "state", {"n": 1})
    (tmp_path / "state").rename(tmp_path / ".state.old.minbert-tmp")  # as a crash between two renames leaves it
    assert is_state(tmp_path / "state") and read_state(tmp_path / "state") == {"n": 1}
    remove_strays(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"state"} and read_state(tmp_path / "state") == {"n": 1}
    (tmp_path / "state").rename(tmp_path / ".state.old.minbert-tmp")
    write_state(tmp_path / "state", {"n": 2})
    assert {path.name for path in tmp_path.iterdir()} == {"state"} and read_state(tmp_path / "state") == {"n": 2}


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_folder_without_a_name_of_its_own_is_asked_like_any_other(tmp_path, monkeypatch, path):
    write_state(tmp_path / "state", {"n": 1})
    monkeypatch.chdir(tmp_path / "state")
    assert is_state(path) == (path == ".") and (path != "." or read_state(Path(path)) == {"n": 1})


def test_what_was_read_does_not_keep_the_file(tmp_path):
    """A mapped file would stay on the disk after it was removed, and on Windows it could not be removed."""
    write_state(tmp_path / "state", {"large": torch.randn(100_000)})
    state = read_state(tmp_path / "state")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else True
    state["large"].add_(1)  # and it is memory that can be written


# ------------------------------------------------------------------------------------------ the run's checkpoints


class Part:
    """A part of a run with one number as its state."""

    def __init__(self, number: int = 0):
        self.number = number

    def state_dict(self) -> dict:
        return {"number": self.number}

    def load_state_dict(self, state: dict):
        self.number = state["number"]


def saved(out: Path, steps: int) -> Run:
    """A run that has saved after each of so many steps."""
    run = Run(RunFolder(out), "1")
    run.register(part=Part())
    for step in range(1, steps + 1):
        run.step = run.parts["part"].number = step
        run.save()
    return run


def resumed(out: Path) -> Run:
    run = Run(RunFolder(out), "1")
    run.register(part=Part())
    run.load()
    return run


def test_two_checkpoints_are_kept(tmp_path):
    saved(tmp_path, 4)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-00000-step-00000003", "epoch-00000-step-00000004"]
    assert resumed(tmp_path).parts["part"].number == 4


@pytest.mark.parametrize("name", [TENSORS, VALUES, MANIFEST])
def test_the_checkpoint_before_a_damaged_one_is_used_and_that_is_said(tmp_path, capsys, name):
    saved(tmp_path, 3)
    path = tmp_path / "checkpoints" / "epoch-00000-step-00000003" / name
    flipped(path, path.stat().st_size // 2, 3)
    run = resumed(tmp_path)
    said = capsys.readouterr()
    assert run.step == run.parts["part"].number == 2 and "resumed after epoch 0 and 2 steps" in said.out
    assert str(path.parent) in said.err and "damaged" in said.err and "the checkpoint before it is used" in said.err
    assert not path.parent.exists()  # it would be one of the two that are kept


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read as Linux tells it")
def test_a_save_gives_back_the_memory_that_malloc_keeps(tmp_path):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    run = Run(RunFolder(tmp_path), "1")
    run.register(part=Part())
    pieces = [torch.ones(10_000 + i % 7) for i in range(4_000)]  # 40 kB each, below what malloc maps by itself
    last = pieces[-1]
    del pieces
    before = resident()
    run.save()
    assert last.sum() > 0 and resident() < before - 100_000_000


def test_a_run_without_a_checkpoint_begins_from_the_start(tmp_path, capsys):
    run = resumed(tmp_path)
    assert (run.epoch, run.step, run.parts["part"].number) == (0, 0, 0)
    assert "the run begins from the start" in capsys.readouterr().out


def test_where_all_are_damaged_the_run_is_refused(tmp_path):
    saved(tmp_path, 3)
    for path in (tmp_path / "checkpoints").glob("*/state.json"):
        path.write_text(path.read_text()[:-3])
    with pytest.raises(UserError, match=r"no whole checkpoint to --resume from .*damaged.*--overwrite begins anew"):
        resumed(tmp_path)


def test_a_checkpoint_with_other_parts_is_refused(tmp_path):
    saved(tmp_path, 1)
    run = Run(RunFolder(tmp_path), "1")
    run.register(part=Part(), smart=Part())
    with pytest.raises(UserError, match="has other parts than this run: smart"):
        run.load()


@pytest.mark.parametrize(("save_every", "steps"), [("1", [1, 2, 3, 4, 5]), ("2", [2, 4]), ("10m", []), ("0.0m", [1])])
def test_a_checkpoint_is_due_every_so_many_steps_or_minutes(tmp_path, monkeypatch, save_every, steps):
    run, times = Run(RunFolder(tmp_path), save_every), []
    monkeypatch.setattr(run, "save", lambda: times.append(run.step))
    for _ in run.steps(range(5), ""):
        pass
    assert times[: len(steps)] == steps and (times == steps or save_every == "0.0m")


def test_the_manifest_has_the_sha256_of_both_files(written):
    import hashlib

    manifest = json.loads((written / MANIFEST).read_text())
    assert manifest == {n: hashlib.sha256((written / n).read_bytes()).hexdigest() for n in (TENSORS, VALUES)}


def test_the_peak_of_cuda_memory_begins_anew_with_each_run(tmp_path, monkeypatch):
    """classifier.py makes two runs in one process. On a CPU nothing is reset, and CUDA is not started."""
    resets = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(1))
    for on_cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda on_cuda=on_cuda: on_cuda)
        Run(RunFolder(tmp_path))
        assert len(resets) == on_cuda
