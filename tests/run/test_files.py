"""minbert/files.py and minbert/errors.py: files are whole or untouched, and what fails says so in one line."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minbert import state
from minbert.bert import BertModel
from minbert.checkpoint import load_model, save_model
from minbert.config import BertConfig
from minbert.errors import UserError, one_line_errors
from minbert.files import TEMPORARY, atomic, remove_strays, sha256
from minbert.multitask import MultitaskBert
from minbert.parser import Parser, at_least, rate
from minbert.pretrained import save_pretrained
from minbert.state import TENSORS
from minbert.tokenizer import SPECIAL, BertTokenizer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = BertConfig(
    vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16,
)  # fmt: skip
TOKENIZER = BertTokenizer([*SPECIAL, "a", "b", "c"])


def model(value: float = 0.0) -> MultitaskBert:
    """A tiny model, all of whose weights are `value`."""
    model = MultitaskBert(BertModel(CONFIG), ["sst"])
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, value)
    return model


def values(path: Path) -> set[float]:
    """The different weights in a file of such a model: one, if it is whole."""
    return {value for p in load_model(path)[0].parameters() for value in p.flatten().tolist()}


def last_words(action) -> str:
    """What a script says on its way out when `action` fails: one line."""
    with pytest.raises(SystemExit) as left, one_line_errors():
        action()
    assert isinstance(left.value.code, str)  # which Python prints on stderr, leaving with status 1
    assert left.value.code.startswith("error: ") and "\n" not in left.value.code
    return left.value.code


# ---------------------------------------------------------------------------------------------- whole or not at all


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for text in ("one", "two"):
        with atomic(path) as temporary:
            assert temporary.parent == path.parent  # a rename within one file system
            temporary.write_text(text)
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_told_of_with_the_file(tmp_path, monkeypatch):
    """A write has no file's name in its error, where `open` has one."""

    def fill():
        with atomic(tmp_path / "metrics.jsonl"), open("/dev/full", "w") as full:
            full.write("x" * 100_000)

    assert last_words(fill) == f"error: {tmp_path / 'metrics.jsonl'}: No space left on device"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "file") as temporary:
            temporary.write_text("x")
        (tmp_path / "plain").write_text("x")  # what `open` would have made
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == mode


def test_where_no_folder_can_be_made_one_line_says_so(tmp_path):
    (tmp_path / "file").write_text("old")
    assert str(tmp_path) in last_words(lambda: save_model(tmp_path / "file" / "model", model(), TOKENIZER))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EROFS, errno.ENOSYS])
def test_a_file_system_without_permissions(tmp_path, monkeypatch, number):
    """FAT and some network file systems refuse chmod; the file is whole all the same."""
    monkeypatch.setattr(Path, "chmod", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    save_model(tmp_path / "model", model(1.0), TOKENIZER)
    assert values(tmp_path / "model") == {1.0} and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("number", "kept"),
    [(errno.EINVAL, 2.0), (errno.ENOSYS, 2.0), (errno.ENOTSUP, 2.0), (errno.ENOSPC, 1.0), (errno.EIO, 1.0)],
)
def test_a_file_system_without_fsync_and_one_that_is_full(tmp_path, monkeypatch, number, kept):
    save_model(tmp_path / "model", model(1.0), TOKENIZER)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    if kept == 2.0:
        save_model(tmp_path / "model", model(2.0), TOKENIZER)
    else:
        assert os.strerror(number) in last_words(lambda: save_model(tmp_path / "model", model(2.0), TOKENIZER))
    assert values(tmp_path / "model") == {kept} and os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder(tmp_path):
    save_model(tmp_path / "model", model(1.0), TOKENIZER)
    tmp_path.chmod(0o500)
    try:
        assert "ermission denied" in last_words(lambda: save_model(tmp_path / "model", model(2.0), TOKENIZER))
    finally:
        tmp_path.chmod(0o700)
    assert values(tmp_path / "model") == {1.0}


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond 3,000 bytes."""

    class Full:
        def __enter__(self):
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, self.before[1]))

        def __exit__(self, *_):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    return Full()


def test_a_full_disk_keeps_the_old_model(tmp_path, full_disk):
    path = tmp_path / "model"
    save_model(path, model(1.0), TOKENIZER)

    def save():
        with full_disk:
            save_model(path, model(2.0), TOKENIZER)

    assert "model" in last_words(save)
    assert values(path) == {1.0} and os.listdir(tmp_path) == ["model"]


def test_a_full_disk_keeps_the_old_weights_directory(tmp_path, full_disk):
    save_pretrained(model(1.0).bert, TOKENIZER, tmp_path)
    before = {file.name: sha256(file) for file in tmp_path.iterdir()}

    def save():
        with full_disk:
            save_pretrained(model(2.0).bert, TOKENIZER, tmp_path)

    assert "model.safetensors" in last_words(save)
    assert {file.name: sha256(file) for file in tmp_path.iterdir()} == before


def in_child(action) -> int:
    """Run `action` in a forked process; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_kill_9_in_the_middle_of_a_write(tmp_path):
    path = tmp_path / "model"
    save_model(path, model(1.0), TOKENIZER)
    half = (path / TENSORS).read_bytes()[:-500]

    def write_half_and_die(tensors, file):
        Path(file).write_bytes(half)
        os.kill(os.getpid(), signal.SIGKILL)

    def die():
        state.save_file = write_half_and_die
        save_model(path, model(2.0), TOKENIZER)

    assert in_child(die) == -signal.SIGKILL
    assert values(path) == {1.0}
    assert in_child(lambda: write_half_and_die({}, path / TENSORS)) == -signal.SIGKILL  # the same without the care
    with pytest.raises(UserError):
        load_model(path)


def test_kill_9_at_any_moment(tmp_path):
    path = tmp_path / "model"
    save_model(path, model(0.0), TOKENIZER)
    models = [model(float(k)) for k in range(5)]
    for delay in range(10):
        child = os.fork()
        if child == 0:
            while True:
                for one in models:
                    save_model(path, one, TOKENIZER)
        time.sleep(0.005 + 0.007 * delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert len(values(path)) == 1


def test_sha256_is_the_known_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---------------------------------------------------------------------------------------------- one line


def script(body: str) -> subprocess.CompletedProcess:
    program = f"from minbert.errors import *\nwith one_line_errors():\n    {body}\n"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("raise UserError('a.csv, line 3: no')", 1, "error: a.csv, line 3: no\n"),
        ("open('/no/such/file')", 1, "error: /no/such/file: No such file or directory\n"),
        ("raise OSError(28, 'No space left on device')", 1, "error: No space left on device\n"),
        ("raise KeyboardInterrupt", 130, "stopped by Ctrl-C\n"),
        ("pass", 0, ""),
    ],
)
def test_the_users_errors_are_one_line(body, status, said):
    result = script(body)
    assert (result.returncode, result.stderr) == (status, said)


def test_our_errors_keep_their_traceback():
    result = script("1 / 0")
    assert result.returncode == 1 and result.stderr.startswith("Traceback") and "ZeroDivisionError" in result.stderr


@pytest.fixture
def complaint(capsys):
    """What a parser of a few flags says to wrong arguments, leaving with status 2."""

    def complaint(*arguments: str) -> str:
        parser = Parser(prog="train")
        parser.add_argument("--epochs", type=at_least(int, 1), default=10)
        parser.add_argument("--lr", type=at_least(float, 0, above=True))
        parser.add_argument("--dropout", type=rate)
        parser.add_argument("--pairs", choices=["separate", "joint"])
        with pytest.raises(SystemExit) as left:
            parser.parse_args(arguments)
        said = capsys.readouterr()
        assert left.value.code == 2 and said.out == ""
        assert said.err.startswith("error: ") and said.err.count("\n") == 1
        return said.err

    return complaint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "x"], "--epoch"),  # the beginning of a flag is enough, as in the course's scripts
        (["--pairs", "both"], "--pairs"),
        (["--epochs"], "--epochs"),
        (["--epochs", "0"], "'0' is not a whole number of at least 1"),
        (["--epochs", "2.5"], "'2.5' is not a whole number"),
        (["--epochs", "two\nlines"], "two\\nlines"),
        (["--lr", "0"], "'0' is not a number above 0"),
        (["--lr", "nan"], "'nan' is not a number"),
        (["--lr", "inf"], "'inf' is not a number"),
        (["--lr", "fast"], "'fast' is not a number"),
        (["--dropout", "1"], "'1' is not a rate from 0 to less than 1"),
        (["--dropout", "-0.1"], "--dropout"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(complaint, arguments, said):
    assert said in complaint(*arguments)


def test_numbers_at_the_bounds_are_taken():
    assert at_least(int, 1)("1") == 1 and at_least(float, 0)("0") == 0.0
    assert at_least(float, 0, above=True)("1e-5") == 1e-5
    assert rate("0") == 0.0 and rate("0.999") == 0.999


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "keep.tmp").write_text("mine")
    stray = tmp_path / f".best.pt.abc{TEMPORARY}"
    stray.write_text("half")
    remove_strays(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.tmp"]
