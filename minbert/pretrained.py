"""Real weights: loaded strictly into our BERT, under our names, and written so that other programs can load them.

`--pretrained NAME` may be

    minilm               all-MiniLM-L6-v2: a real BERT of 6 layers, 384 wide (Wang et al. 2020), in 90 MB
    bert-base-uncased    or any other BERT of the Hugging Face hub
    DIR                  config.json, a vocabulary, and weights in one file or several
    FILE.pt              a checkpoint of this trainer's, of the course's, or of somebody else's

`hub.py` finds and fetches these, `foreign.py` reads other people's checkpoints. A pretrained file names its weights
after `transformers`' modules, our BERT after the course's; one table translates. Loading is strict: a weight that is
missing, left over, of another shape or not finite is an error that names it.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from minbert.additions import add, plain_state_dict
from minbert.bert import BertModel
from minbert.config import BertConfig, config_file
from minbert.errors import UserError
from minbert.files import atomic, refuse_stand_in, safe_load
from minbert.foreign import PUBLISHED, bert_part, checkpoint_config, find_table, matrix_shape, plain_name
from minbert.hub import find, no_weights, published_vocabulary, weight_files
from minbert.state import finite, is_state, read_state
from minbert.strict import check_fit, load_strictly
from minbert.tokenizer import BertTokenizer
from minbert.vocabulary import FILES as VOCABULARIES
from minbert.vocabulary import build, complete, read_tokenizer, set_case

SAVED = ("model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json")  # what save_pretrained writes
SPARE_ROWS = 1024  # the most word-embedding rows without a piece: for speed (a multiple of 64) or new tokens

# ---------------------------------------------------------------------------------------------- loading


def load_bert(name: str | Path, attention: str = "plain", dropout: float | None = None, *,
              num_attention_heads: int | None = None, local_files_only: bool = False) -> BertModel:  # fmt: skip
    """A BERT with the weights of `name`, in float32, in eval mode: training calls `.train()`.

    dropout: replaces both of BERT's dropout rates where given. num_attention_heads: for a checkpoint that does not have
    it. local_files_only: fetch nothing. Raises UserError if anything does not fit.
    """
    path = find(name, local_files_only)
    additions, saved = {}, {}
    if not is_checkpoint(path):
        config = BertConfig.from_json(config_file(path))
        if num_attention_heads is not None:
            config = BertConfig.from_dict(config.to_dict() | {"num_attention_heads": num_attention_heads})
        weights = bert_weights(read_weights(path), path)
    else:
        saved = read_file(path)
        additions = _additions(saved, path)
        weights = bert_weights(find_table(saved, path), path)
        config = checkpoint_config(saved, weights, path, num_attention_heads)
    if dropout is not None:
        config = BertConfig.from_dict(
            config.to_dict() | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        )
    weights |= _fresh_pooler(weights, config, path)
    if additions:
        for addition in (name for name, settings in additions.items() if settings.get("per_task")):
            switch = f"--{addition}_per_task"
            raise UserError(f"{path}: with {switch} each task has its own BERT, so there is no single BERT to take")
        adapted = _adapted(config, saved["build"], weights, path)
        load_strictly(adapted, weights, path)
        weights = _plain(adapted, path)
    check_fit(lambda: BertModel(config, attention), weights, path)
    bert = BertModel(config, attention)
    load_strictly(bert, weights, path)
    return bert.eval()


def _additions(saved: dict, path: Path) -> dict:
    """The additions in one of this trainer's checkpoints, name → settings; {} for other files."""
    build = saved.get("build")
    additions = build.get("additions") if isinstance(build, Mapping) else None
    additions = additions if isinstance(additions, Mapping) else {}
    for name, settings in additions.items():
        if not isinstance(settings, Mapping):
            raise UserError(f"{path}: its additions are damaged: {name} is a {type(settings).__name__}")
    return additions


def _adapted(config: BertConfig, build: Mapping, weights: Mapping[str, Tensor], path: Path) -> BertModel:
    """A fresh BERT with a checkpoint's additions; UserError if its weights do not fit."""

    def make() -> BertModel:
        bert = BertModel(config)
        add(bert, build.get("tasks", ()), build["additions"])
        return bert

    check_fit(make, weights, path)
    return make()


def _plain(bert: BertModel, place: str | Path) -> dict[str, Tensor]:
    try:
        return plain_state_dict(bert)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _fresh_pooler(weights: Mapping[str, Tensor], config: BertConfig, path: Path) -> dict[str, Tensor]:
    """A fresh pooler for weights without one, such as a masked language model's; {} if there is one.

    It is the same at every load, so that heads trained on it (`checkpoint.save_trained`) fit again.
    """
    if any(name.startswith("pooler_dense.") for name in weights):
        return {}
    print(f"{path}: has no pooler, so an untrained one is used (--pooling mean needs none)", file=sys.stderr)
    C = config.hidden_size
    matrix = torch.empty(C, C).normal_(0, config.initializer_range, generator=torch.Generator().manual_seed(0))
    return {"pooler_dense.weight": matrix, "pooler_dense.bias": torch.zeros(C)}


def load_tokenizer(name: str | Path, local_files_only: bool = False, lowercase: bool | None = None) -> BertTokenizer:
    """The tokenizer that goes with the weights of `name`; it cuts rows to the model's number of positions.

    lowercase: replaces the files' setting. Raises UserError if the vocabulary has more pieces than the word embedding
    has rows, or over 1,024 fewer. (A few rows more, which some models have for speed, are never used.)
    """
    path = find(name, local_files_only)
    folder, rows, positions = path, None, 512
    if is_checkpoint(path):
        folder, saved = path.parent, read_file(path)
        weights = bert_weights(find_table(saved, path), path)
        rows = matrix_shape(weights, "word_embedding.weight", path)[0]
        positions = matrix_shape(weights, "pos_embedding.weight", path)[0]
        if "tokenizer" in saved or "vocab" in saved:  # this trainer's
            return _fitting(saved_tokenizer(saved, path, positions, lowercase), rows, path)
    elif config_file(path).exists():  # which a directory with a tokenizer alone does not have
        config = BertConfig.from_json(config_file(path))
        rows, positions = config.vocab_size, config.max_position_embeddings
    if any((folder / file).exists() for file in VOCABULARIES):
        pieces, longest = read_tokenizer(folder, lowercase)
    else:
        vocab = published_vocabulary(rows, local_files_only) if rows else None
        if vocab is None:
            raise UserError(f"{path}: holds no vocabulary; put the model's {' or '.join(VOCABULARIES)} into {folder}")
        print(f"{path}: holds no vocabulary; {rows:,} rows are taken for {PUBLISHED[rows]}'s (a vocab.txt in "
              f"{folder} can say otherwise)", file=sys.stderr)  # fmt: skip
        case = PUBLISHED[rows].endswith("-uncased") if lowercase is None else lowercase
        pieces, longest = read_tokenizer(vocab, case)
    return _fitting(BertTokenizer(pieces, max_length=min(positions, longest or positions)), rows, path)


def saved_tokenizer(saved: Mapping, path: Path, max_length: int, lowercase: bool | None = None) -> BertTokenizer:
    """The tokenizer in a checkpoint of this trainer; older ones hold its vocabulary and case alone.

    lowercase: replaces the saved setting.
    """
    try:
        if "tokenizer" in saved:
            pieces = complete(Tokenizer.from_str(saved["tokenizer"]))
        else:
            pieces = build(saved["vocab"], saved["lowercase"])
    except Exception as error:  # the tokenizers library raises nothing more exact
        raise UserError(f"{path}: its tokenizer cannot be read ({error})") from error
    try:
        if lowercase is not None:
            set_case(pieces, lowercase)
        return BertTokenizer(pieces, max_length=max_length)
    except UserError as error:
        raise UserError(f"{path}: its tokenizer cannot be used, it {error}") from error


def _fitting(tokenizer: BertTokenizer, rows: int | None, path: Path) -> BertTokenizer:
    """The tokenizer, if its pieces can be those of a word embedding with so many rows; else UserError."""
    pieces = len(tokenizer.vocab)
    if rows is not None and not pieces <= rows <= pieces + SPARE_ROWS:
        raise UserError(f"{path}: the vocabulary has {pieces:,} pieces, but word_embedding.weight has {rows:,} rows: "
                        "they belong to different models")  # fmt: skip
    if rows is not None and pieces < rows:
        print(f"{path}: {rows - pieces:,} rows of word_embedding.weight have no piece and stay unused", file=sys.stderr)
    return tokenizer


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights directory, or of a checkpoint file, under the names that they have there."""
    if is_checkpoint(path):
        return find_table(read_file(path), path)
    files = weight_files(path)
    if not files:
        raise UserError(no_weights(path, (file.name for file in path.iterdir())))
    weights: dict[str, Tensor] = {}
    for file in files:
        table = read_file(file)
        weights |= table if len(files) > 1 or file.suffix == ".safetensors" else find_table(table, file)
    return weights


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is somebody's checkpoint in a file, or a model of this trainer's in a folder."""
    return path.is_file() or is_state(path)


def as_model(saved: Any) -> Any:
    """What `save_model` would have written, if `saved` is a checkpoint of a run with such a model; else `saved`."""
    parts, about = (saved.get(key) if isinstance(saved, Mapping) else None for key in ("parts", "about"))
    if isinstance(parts, Mapping) and isinstance(about, Mapping) and "model" in parts:
        return {"model": parts["model"], **about}
    return saved


def read_file(path: Path) -> dict:
    """All that a checkpoint holds: this trainer's folder, safetensors, or what torch.save wrote."""
    if is_state(path):
        return as_model(read_state(path))
    if path.suffix != ".safetensors":
        return safe_load(path)
    refuse_stand_in(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or cut short ({error}); delete it and fetch it again") from error


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


def bert_weights(weights: Mapping[str, Tensor], source: str | Path = "the weights") -> dict[str, Tensor]:
    """The weights of BERT itself, under our names and in float32.

    Takes the names of transformers, of its old files (`gamma`, `beta`), of TensorFlow's (`bert/encoder/layer_0/…`,
    matrices transposed) and of the course, under any prefix (see `foreign.bert_part`). A name that fits none of these
    stays as it is, for `load_strictly` to report. source: what to name in a UserError.
    """
    return {_our_name(name): _upright(name, tensor) for name, tensor in bert_part(weights, source).items()}


def mlm_weights(name: str | Path) -> dict[str, Tensor]:
    """The weights of the masked-language-model head of `name` under our names (`pretraining.MlmHead`), {} without one.

    The decoder's matrix is the word embedding's and is not looked for.
    """
    path = find(name)
    weights = {plain_name(name): tensor for name, tensor in read_weights(path).items()}
    result = {}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        if module in MLM_NAMES:
            leaf = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(leaf, leaf)
            result[f"{MLM_NAMES[module]}.{leaf}"] = _upright(name, tensor)
        elif name in ("cls.predictions.bias", "cls.predictions.output_bias"):
            result["bias"] = tensor.float()
    decoder, words = (weights.get(x) for x in ("cls.predictions.decoder.weight", f"bert.{WORDS}.weight"))
    if decoder is not None and words is not None and not torch.equal(decoder, words):
        raise UserError(f"{path}: cls.predictions.decoder.weight is not the word embedding, to which this head ties it")
    return result


def _upright(name: str, tensor: Tensor) -> Tensor:
    """A weight in float32, TensorFlow's matrices transposed."""
    return (tensor.T if name.endswith(".kernel") else tensor).detach().float().contiguous()


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
    """Write config.json, the tokenizer's files and model.safetensors, as `transformers` reads them.

    With `mlm_head` (see `pretraining.MlmHead`) the result is a `BertForMaskedLM`, without it a `BertModel`.
    `transformers.BertModel.from_pretrained(directory)` and `--pretrained directory` load both. LoRA's additions are
    merged into the written matrices; `bert` does not change. UserError if a weight of it is not finite.
    """
    directory = Path(directory)
    weights = _plain(bert, directory)
    if name := finite(bert.state_dict()) or (mlm_head and finite(mlm_head.state_dict())):
        raise UserError(f"{directory}: not written, since {name} is not a finite number any more; lower --lr")
    weights = {_their_name(name): tensor.cpu().contiguous() for name, tensor in weights.items()}
    if mlm_head:
        weights = {f"bert.{name}": tensor for name, tensor in weights.items()}
        weights |= {_mlm_name(name): tensor.cpu().contiguous() for name, tensor in mlm_head.state_dict().items()}
    with atomic(directory / "model.safetensors") as path:
        try:
            save_file(weights, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise UserError(f"{directory / 'model.safetensors'}: cannot be written ({error})") from error
    tokenizer.save_pretrained(directory)
    with atomic(directory / "config.json") as path:
        kind = "BertForMaskedLM" if mlm_head else "BertModel"
        config = {"architectures": [kind], **bert.config.to_dict()}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
