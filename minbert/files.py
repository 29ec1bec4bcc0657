"""What several modules need of a file: written whole or not at all, known by its digest, read without running it."""

import argparse
import hashlib
import os
import pickle
import re
import tempfile
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from minbert.errors import UserError

TEMPORARY = ".minbert-tmp"  # how the names of unfinished files end


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it replaces `path` in one step.

    A crash, a full disk or a `kill -9` leaves the old file as it was. Directories on the way are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())  # on the disk before it gets its name
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_save(path: str | Path, saved: dict):
    """`torch.save`, whole or not at all; UserError where it cannot be written."""
    with atomic(path) as temporary:
        try:
            torch.save(saved, temporary)
        except RuntimeError as error:  # how PyTorch's writer says that the disk is full
            raise UserError(f"{path}: cannot be written ({str(error).splitlines()[0]}); is the disk full?") from error


def remove_strays(folder: str | Path):
    """Remove what an `atomic` that was killed left behind in `folder`."""
    for stray in Path(folder).glob(f".*{TEMPORARY}"):
        stray.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """The file's sha256, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_load(path: Path) -> dict:
    """`torch.load` without the power to run code.

    The course's trainer saves its flags and random states beside the weights; the few harmless types that these
    need are allowed by name, nothing else is, and a refusal is never retried with the guard off.
    """
    reconstruct = np.array(0).__reduce__()[0]
    harmless = [argparse.Namespace, types.SimpleNamespace, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    both_names = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():  # PyTorch itself does not compare checksums
            raise UserError(f"{path}: damaged, its checksum is not that of its content")
        with torch.serialization.safe_globals(harmless + both_names):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(r"GLOBAL (\S+)|Unsupported (?:global|class|operand)[^\n]*", str(error))
        raise UserError(
            f"{path}: refused, it is no plain file of weights ({reason[0] if reason else 'cannot be read safely'})"
        ) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError, UserError):
        raise
    except Exception as error:  # whatever the unpickler stumbles over in a damaged file, nameless OSErrors included
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: damaged or cut short ({reason[:200]})") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path}: holds a {type(saved).__name__}, not a table of weights")
    return saved
