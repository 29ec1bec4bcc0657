"""State on disk: tensors, plain values and their checksums in one folder, written whole or not at all, without pickle.

    tensors.safetensors   every tensor, once
    state.json            everything else, with the places of the tensors
    manifest.json         the sha256 of both; it is written last, and a folder without it is not complete

A folder is written beside its place, flushed to the disk, and renamed. If one was there before, the old folder is
first renamed, and deleted once the new one has its name; a reader that finds no folder takes the renamed one. So a
crash, a full disk or a `kill -9` at any moment leaves the old state or the new one, and a flipped bit shows in a
checksum.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from minbert.errors import UserError
from minbert.files import TEMPORARY, sha256, sync

TENSORS, VALUES, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
TENSOR, TUPLE, ITEMS = "\0tensor", "\0tuple", "\0items"  # marks in state.json of what JSON does not have


def is_state(path: str | Path) -> bool:
    """Whether a complete state is at `path`, or was renamed from there."""
    return any((place / MANIFEST).exists() for place in (Path(path), _aside(Path(path))))


def write_state(path: str | Path, state: Any):
    """Write nested dicts, lists and tuples of tensors and plain values. UserError if it cannot be written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh, aside = path.with_name(f".{path.name}.new{TEMPORARY}"), _aside(path)
    shutil.rmtree(fresh, ignore_errors=True)
    if aside.exists() and not path.exists():
        os.rename(aside, path)
    shutil.rmtree(aside, ignore_errors=True)
    tensors: dict[str, Tensor] = {}
    values = json.dumps(_split(state, "", tensors, {}), separators=(",", ":"))
    try:
        fresh.mkdir()
        save_file(tensors, fresh / TENSORS)
        (fresh / VALUES).write_text(values, encoding="utf-8")
        manifest = {name: sha256(fresh / name) for name in (TENSORS, VALUES)}
        (fresh / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for place in (fresh / TENSORS, fresh / VALUES, fresh / MANIFEST, fresh):
            sync(place)
        if path.exists():
            os.rename(path, aside)
        os.rename(fresh, path)
        sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except (SafetensorError, OSError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space" in str(error)
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be written ({reason}){'; the disk is full' if full else ''}") from error


def read_state(path: str | Path) -> Any:
    """What `write_state` wrote, tensors on the CPU. UserError if it is not there, incomplete or damaged."""
    path = Path(path)
    if not path.exists() and not _aside(path).exists():
        raise UserError(f"{path}: not there")
    path = path if path.exists() else _aside(path)
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        contents = {name: (path / name).read_bytes() for name in (TENSORS, VALUES)}
        for name, content in contents.items():
            actual = hashlib.sha256(content).hexdigest()
            if manifest[name] != actual:
                raise UserError(f"{path / name}: damaged, its sha256 is {actual} and not {str(manifest[name])[:64]}")
        if set(manifest) != {TENSORS, VALUES}:
            raise UserError(f"{path / MANIFEST}: damaged")
        tensors = load(contents[TENSORS])  # not a mapped file, which must stay while tensors use it
        return _join(json.loads(contents[VALUES].decode("utf-8")), tensors)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not there, so {path} is no complete state") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({str(error)[:100]})") from error


def _aside(path: Path) -> Path:
    path = Path(os.path.abspath(path))  # "." has no name of its own
    return path.parent / f".{path.name}.old{TEMPORARY}"


def _split(value: Any, place: str, tensors: dict[str, Tensor], known: dict[tuple, str]) -> Any:
    """The value with marks in place of tensors, which go into `tensors`. known: a tensor's memory → its name there."""
    if isinstance(value, Tensor):
        key = (value.data_ptr(), tuple(value.shape), tuple(value.stride()), value.dtype) if value.numel() else place
        if key not in known:
            known[key] = place
            own = value.detach().to("cpu").contiguous()
            memory = own.untyped_storage()
            if ("memory", memory.data_ptr()) in known or memory.nbytes() != own.nbytes:  # a part of another tensor
                own = own.clone()
            known["memory", memory.data_ptr()] = place
            tensors[place] = own
        return {TENSOR: known[key]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("\0") for key in value):
            return {key: _split(item, f"{place}/{key}", tensors, known) for key, item in value.items()}
        return {ITEMS: [[key, _split(item, f"{place}/{key}", tensors, known)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {TUPLE: _split(list(value), place, tensors, known)}
    if isinstance(value, list):
        return [_split(item, f"{place}/{i}", tensors, known) for i, item in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{place or 'the state'} is a {type(value).__name__}, which state.json cannot hold")


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        if TUPLE in value:
            return tuple(_join(value[TUPLE], tensors))
        if ITEMS in value:
            return {key: _join(item, tensors) for key, item in value[ITEMS]}
        return {key: _join(item, tensors) for key, item in value.items()}
    return [_join(item, tensors) for item in value] if isinstance(value, list) else value


def finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that holds a NaN or an infinite number, or ""."""
    return next((name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()), "")
