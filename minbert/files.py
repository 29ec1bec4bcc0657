"""Files: writing them whole or not at all, their digests, and reading them without running code from them."""

import argparse
import contextlib
import datetime
import errno
import hashlib
import json
import os
import pathlib
import pickle
import re
import shutil
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from minbert.errors import UserError

TEMPORARY = ".minbert-tmp"  # how the names of unfinished files end
STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}  # by number, since by name a file behind them is emptied first


def file_name(path: str | Path) -> str:
    """The last part of a path, which another system may have written: of C:\\data\\a.csv it is a.csv."""
    return PureWindowsPath(path).name


def is_stream(path: Path) -> bool:
    """Whether `path` is a device, a pipe or the like, which can be written to but not replaced."""
    return str(path) in STREAMS or (path.exists() and not path.is_file() and not path.is_dir())


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. If the block ends well, that file replaces `path` in one step.

    A crash, a full disk or a `kill -9` leaves the old file as it was. Missing directories are made. A symbolic link
    stays, and the file that it names is replaced. A device or a pipe gets the content at the end of the block.
    """
    path = Path(path)
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "content"
            yield temporary
            sys.stdout.flush()
            number = STREAMS.get(str(path))
            with open(number or path, "wb", closefd=number is None) as stream:
                stream.write(temporary.read_bytes())
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)  # on the disk before it gets its name
        umask = os.umask(0)
        os.umask(umask)
        with contextlib.suppress(OSError):  # mkstemp makes private files; not every file system has permissions
            temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # as after a write to a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path):
    """Flush a file, or a folder's list of names, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows has no such thing for folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(handle)
    except OSError as error:  # some network and FUSE file systems know no fsync; a full disk is another matter
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def remove_strays(folder: str | Path):
    """Remove what an `atomic` or a `write_state` that was killed left behind in `folder`.

    An old state, renamed for a new one that was never completed, gets its name back.
    """
    for stray in Path(folder).glob(f".*{TEMPORARY}"):
        place = stray.with_name(stray.name.removeprefix(".").removesuffix(f".old{TEMPORARY}"))
        if stray.is_dir() and stray.name.endswith(f".old{TEMPORARY}") and not place.exists():
            stray.rename(place)
        elif stray.is_dir():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """The file's sha256, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(values: Any) -> str:
    """The sha256 of plain values, such as a dictionary, whose keys may come in any order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------- reading safely

SAVE_WEIGHTS = "save the weights alone, by torch.save(model.state_dict(), PATH) in the program that made it"
WEB_PAGE = "a web page, not the file itself; fetch it again (a login or a quota may be in the way)"
BEGINNINGS = {  # beginnings of other files that stand in place of weights or a vocabulary
    b"version https://git-lfs": "a git-lfs pointer, not the file itself; run `git lfs pull` in its folder",
    b"<!doctype": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"<?xml": WEB_PAGE,
    b"\x89hdf": "an HDF5 file of TensorFlow or Keras, which this program does not read",
    b"\x1f\x8b\x08": "compressed by gzip; unpack it first",
}


def refuse_stand_in(path: Path):
    """UserError where `path` is empty, or is evidently something other than what its name promises."""
    with open(path, "rb") as file:
        beginning = file.read(64).lstrip().lower()
    if not path.stat().st_size:
        raise UserError(f"{path}: is empty; fetch it again")
    for start, sentence in BEGINNINGS.items():
        if beginning.startswith(start):
            raise UserError(f"{path}: is {sentence}")


def read_json(path: Path) -> dict:
    """The object in a JSON file; {} where there is no such file."""
    if not path.exists():
        return {}
    refuse_stand_in(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, not a JSON object")
    return values


class Unread:
    """Replaces objects that nobody needs, such as numpy's arrays, which could be made to point anywhere in memory."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


def _small(kind: Callable) -> Callable:
    """`bytes` or `range`, but ValueError for sizes that fill the memory: bytes(10**12), list(range(10**12))."""

    def make(*args):
        if any(isinstance(arg, int) and abs(arg) > 10**6 for arg in args):
            raise ValueError(f"a {kind.__name__} of {args}")
        return kind(*args)

    return make


def harmless_types() -> list[tuple[Callable, str]]:
    """What a checkpoint may hold besides tensors: (what stands for it here, its name in the file).

    Each is plain data: nothing that these make can open a file, start a program or import a module. What stands for a
    type need not be that type: a Windows path cannot be made on Linux, and other people's configurations are read as
    namespaces, so that their modules are not imported.
    """
    plain: dict[str, Callable] = {
        "argparse.Namespace": argparse.Namespace,
        "types.SimpleNamespace": types.SimpleNamespace,
        "collections.defaultdict": lambda *_: {},
        "collections.deque": lambda *_: [],
        "torch.torch_version.TorchVersion": str,
        "numpy.ndarray": Unread,
        "numpy.dtype": Unread,
    }
    for kind in (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone):
        plain[f"datetime.{kind.__name__}"] = kind
    for kind in (bool, dict, float, frozenset, int, list, slice, str, tuple):
        plain[f"builtins.{kind.__name__}"] = kind
    plain |= {"builtins.bytes": _small(bytes), "builtins.range": _small(range)}
    for module in ("pathlib", "pathlib._local"):  # Python 3.13 has them elsewhere
        for name in ("Path", "PosixPath", "PurePath", "PurePosixPath"):
            plain[f"{module}.{name}"] = pathlib.PurePosixPath
        for name in ("WindowsPath", "PureWindowsPath"):
            plain[f"{module}.{name}"] = pathlib.PureWindowsPath
    for core in ("core", "_core"):  # numpy 2 renamed it
        plain[f"numpy.{core}.multiarray._reconstruct"] = Unread
        plain[f"numpy.{core}.multiarray.scalar"] = Unread
    for module in ("config", "minbert.config", "transformers.models.bert.configuration_bert"):
        plain[f"{module}.BertConfig"] = types.SimpleNamespace
    for module in ("lightning.fabric.utilities.data", "lightning_fabric.utilities.data",
                   "pytorch_lightning.utilities.parsing"):  # fmt: skip
        plain[f"{module}.AttributeDict"] = dict
    return [(kind, name) for name, kind in plain.items()]


def safe_load(path: Path) -> dict:
    """`torch.load` without the power to run code.

    The course's trainer saves its flags and random states beside the weights; the few harmless types that these
    need are allowed by name. A damaged file or any other type is a UserError; `weights_only` is never switched off.
    """
    try:
        refuse_stand_in(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name.rpartition("/")[2] for name in archive.namelist()]
                if "constants.pkl" in names:
                    raise UserError(f"{path}: a TorchScript program, not a table of weights; {SAVE_WEIGHTS}")
                size = sum(member.file_size for member in archive.infolist())
                if size > path.stat().st_size:  # torch.save compresses nothing
                    raise UserError(f"{path}: would unpack to {size:,} bytes, which no file of torch.save does")
                if archive.testzip():  # PyTorch itself does not compare checksums
                    raise UserError(f"{path}: damaged, its checksum is not that of its content")
        with torch.serialization.safe_globals(harmless_types()):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {name[1]}, which could run code" if name else "it cannot be read without running code"
        raise UserError(f"{path}: refused, {reason}; {SAVE_WEIGHTS}") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError, UserError):
        raise
    except Exception as error:  # whatever the unpickler stumbles over in a damaged file, nameless OSErrors included
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: damaged or cut short ({reason[:200]})") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path}: holds a {type(saved).__name__}, not a table of weights; {SAVE_WEIGHTS}")
    return saved
