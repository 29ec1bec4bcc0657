"""Where fetched files are kept on this machine, and whether they are still what was fetched."""

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from huggingface_hub import constants

from minbert.config import config_file
from minbert.errors import UserError
from minbert.files import sha256


def caches(name: str) -> list[Path]:
    """The folders of fetched files, the usual one first. name: "hub" (huggingface_hub's cache) or "minbert" (ours).

    The second one, if it was ever needed, is a folder of the user's own among the temporary files.
    """
    ours = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "minbert"
    usual = Path(constants.HF_HUB_CACHE) if name == "hub" else ours
    return [usual, *([spare_folder() / name] if is_own(spare_folder()) else [])]


def cache_to_write(name: str, below: str = "") -> Path:
    """The first of `caches` that can be written; if it is not the usual one, stderr says so."""
    usual, folder = caches(name)[0], spare_folder()
    if usable(usual / below):
        return usual
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_own(folder):
        raise UserError(f"{folder}: belongs to somebody else; name a cache of your own in XDG_CACHE_HOME and HF_HOME")
    print(f"{usual}: cannot be written; what is fetched is kept in {folder} (HF_HOME and XDG_CACHE_HOME name caches)",
          file=sys.stderr)  # fmt: skip
    return folder / name


def spare_folder() -> Path:
    """The cache of a user whose home cannot be written."""
    return Path(tempfile.gettempdir()) / f"minbert-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def is_own(folder: Path) -> bool:
    """Whether `folder` is there and nobody else's: weights that somebody else put there are not to be trusted."""
    own = not hasattr(os, "getuid") or (folder.exists() and folder.lstat().st_uid == os.getuid())
    return own and folder.is_dir() and not folder.is_symlink()


def usable(folder: Path) -> bool:
    """Whether `folder` can be written or made. (If there is no home directory, it begins with a `~`.)"""
    if not folder.is_absolute():
        return False
    try:
        while not folder.exists():
            folder = folder.parent
    except PermissionError:
        return False
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


# ---------------------------------------------------------------------------------------------- what has changed


def check_unchanged(folder: Path, expected: Mapping[str, str]):
    """UserError, with what to remove, if a file of a cached model is not what was fetched.

    expected: file name → sha256, of files that must be there. The hub's cache shows the others': its files are links to
    files whose names are the sha256 of their content, or git's id of it.
    """
    if not config_file(folder).exists():
        raise UserError(f"{config_file(folder)}: is gone from the cache; {_advice(folder)}")
    names = {path.name: path.resolve().name for path in folder.iterdir() if path.is_symlink()}
    names = {name: id for name, id in names.items() if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", id)}
    for name, id in (names | dict(expected)).items():
        path = folder / name
        if not path.exists():
            raise UserError(f"{path}: is gone from the cache; {_advice(folder)}")
        status = path.stat()
        actual = _digest(path, len(id), status.st_size, status.st_mtime_ns)
        if actual != id:
            kind = "sha256" if len(id) == 64 else "git id"
            raise UserError(
                f"{path}: is not what was fetched, its {kind} is {actual[:12]}… and not {id[:12]}…; {_advice(folder)}"
            )


def _advice(folder: Path) -> str:
    """What to remove: in the hub's cache the model's whole folder, since its files are kept outside of `folder`."""
    models = [place for place in folder.parents if place.name.startswith("models--")]
    return f"remove {(models or [folder])[0]} and run this again, which fetches it anew"


@cache
def _digest(path: Path, digits: int, size: int, time: int) -> str:
    """The content's sha256 or git's id of it. size, time: of the file, so that a changed file is read again."""
    if digits == 64:
        return sha256(path)
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest()
