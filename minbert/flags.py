"""Every flag of the three scripts, in one table, and the settings that follow from the flags.

    m  multitask_classifier.py        c  classifier.py        p  python -m minbert.pretraining

A technique brings its own rows: every module of this package that has a line `FLAGS = {…}` adds them. These lines are
read from the source and the module is not run, so that a new technique needs no edit here, that `--help` need not load
PyTorch, and that a run loads no technique which it does not use.

Flags that cannot be combined stop the program with a one-line error: the columns `needs` and `not_with` of a row say
which, and `RULES` in `settings.py` has the few conditions that fit no column.
"""

import ast
import importlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from minbert import parser as types
from minbert.parser import Flag, at_least, count, interval, names, number, positive, rate, seed, steps, words

PACKAGE = Path(__file__).resolve().parent
DATA = (PACKAGE.parent if __package__ else PACKAGE) / "data"  # beside the scripts, as this file is in the course layout
SPLITS = ("train", "dev", "test")
MULTITASK = ("sst", "para", "sts")
SINGLE = ("sst", "cfimdb")
LESSONS = ("mlm", "nli")
QUICKSTART = {
    "pretrained": "minilm", "data": str(DATA / "sample"), "out": "runs/quickstart",
    "pooling": "mean", "epochs": 4, "batch_size": 16, "head_lr": 1e-3, "lr_decay": "linear", "overwrite": True,
}  # fmt: skip

# fmt: off
TABLE: dict[str, list[Flag]] = {
    "start": [
        Flag("--quickstart", "minilm, the sample data and settings that suit them, in runs/quickstart", None, False,
             scripts="m"),
        Flag("--recipe", "take the flags of a row of a report (minbert/recipes/NAME.txt), or of a file of your own; "
             "flags beside it replace its own", metavar="NAME", scripts="mcp", not_with={"--quickstart": ""}),
        Flag("--list_recipes", "list the recipes, and train nothing", None, False, scripts="mcp"),
        Flag("--predict", "ask the model in OUT about one sentence or two, and train nothing", metavar="TEXT",
             many=True),
        Flag("--predict_only", "train nothing; write the predictions of OUT's best model or, in its first epoch, "
             "of its last checkpoint", None, False, not_with={"--skip_predictions": ""}),
    ],
    "data": [
        Flag("--data", "folder of the course's files (default: data/ beside the scripts)", metavar="DIR",
             scripts="mcp"),
        Flag("--tasks", "which tasks, with commas", default="sst,para,sts", metavar="LIST", scripts="m"),
        Flag("--tasks", "which data sets, with commas (default: sst,cfimdb)", metavar="LIST", scripts="c"),
        Flag("--tasks", "which lessons: mlm, nli or both, with a comma", default="mlm,nli", metavar="LIST",
             scripts="p"),
        Flag("--limit", "use N examples, always the same, of each train and dev file; or a list, a number for each of "
             "--tasks (in the pre-training: of each training file; a number for each of --corpus and nli)",
             default="", metavar="N", scripts="mcp"),
        *(Flag(f"--{task}_{split}", f"the {split} file of {task} (default: DATA's)", metavar="FILE", scripts="m")
          for task in MULTITASK for split in SPLITS),
        Flag("--train", "training file of your own, in place of the two data sets", metavar="FILE", scripts="c",
             needs="--dev"),
        Flag("--dev", "its dev file, which picks the best epoch", metavar="FILE", scripts="c", needs="--train"),
        Flag("--test", "its test file, which is predicted", metavar="FILE", scripts="c", needs="--train"),
        Flag("--text", "the column of its texts (default: the course's, sentence)", metavar="COLUMN", scripts="c",
             needs="--label"),
        Flag("--text2", "the column of its second texts, where it has pairs", metavar="COLUMN", scripts="c",
             needs="--text"),
        Flag("--label", "the column of its labels: words, or numbers of classes (default: the course's, sentiment)",
             metavar="COLUMN", scripts="c", needs="--train"),
        Flag("--regression", "its labels are numbers on a scale, not classes", None, False, scripts="c",
             needs="--label"),
        Flag("--corpus", "the tasks whose training sentences are masked: of sst, para, sts, cfimdb, nli "
             "(default: sst,para,sts, and nli where it is a lesson)", metavar="LIST", scripts="p"),
        Flag("--held_out", "sentences to score masked words on, at most a tenth", count, 1000, "N", scripts="p"),
        Flag("--max_length", "cut rows to T tokens", at_least(int, 8), 128, "T", scripts="p"),
    ],
    "model": [
        Flag("--pretrained",
             "a BERT of the Hugging Face hub, a directory, a checkpoint (.pt), or `minilm` (small, 90 MB)",
             default="bert-base-uncased", metavar="NAME", scripts="mcp"),
        Flag("--local_files_only", "use what is on this machine, and do not ask the hub", None, False, scripts="mcp"),
        Flag("--fine-tune-mode", "train the heads alone, or BERT too (default: last-linear-layer)",
             choices=("last-linear-layer", "full-model"), dest="mode"),
        Flag("--option", "the same in the words of other years: pretrain and freeze are last-linear-layer, "
             "finetune is full-model", choices=("pretrain", "freeze", "finetune")),
        Flag("--pooling", "the sentence's vector: BERT's pooler over [CLS] (cls), or the mean over its tokens (mean); "
             "or a list, one for each of --tasks", words("cls", "mean"), "cls", "NAME", scripts="m"),
        Flag("--pooling", "the sentence's vector: BERT's pooler over [CLS], or the mean over its tokens",
             default="cls", choices=("cls", "mean"), scripts="cp"),
        Flag("--hidden_dropout_prob", "dropout of the heads", rate, 0.3, "P"),
        Flag("--hidden_dropout_prob", "dropout of NLI's head", rate, 0.1, "P", scripts="p"),
        Flag("--bert_dropout", "dropout inside BERT (default: what its config.json says, usually 0.1; 0 where nothing "
             "inside BERT trains, so that it reads each sentence only once)", rate, metavar="P", scripts="mc"),
        Flag("--bert_dropout", "dropout inside BERT (default: what its config.json says, usually 0.1)", rate,
             metavar="P", scripts="p"),
        Flag("--fast_dropout", "draw dropout's random numbers in blocks, which is faster on a CPU; the rates are the "
             "same to 2⁻¹⁷, the draws are others; not inside the kernel of --attention sdpa; see minbert/dropout.py",
             None, False, scripts="mc", not_with={"--use_gpu": "which draws in parallel by itself"}),
        Flag("--compile", "let PyTorch's compiler write several of BERT's operations as one loop (on a CPU no gain "
             "was measured); the first steps take a minute longer; see minbert/compiled.py", None, False, scripts="mc",
             not_with={"--fast_dropout": "since compiled code draws in its own way"}),
        Flag("--attention", "written out, or by PyTorch's fused kernel; the same but for dropout's draws",
             default="plain", choices="bert.ATTENTION"),
        Flag("--attention", "written out, or by PyTorch's fused kernel", default="sdpa", choices="bert.ATTENTION",
             scripts="p"),
        Flag("--pairs", "each sentence through BERT alone (separate), or both as one row with a [SEP] (joint); or a "
             "list, one for each of --tasks", words("separate", "joint"), "separate", "NAME", scripts="m"),
        Flag("--pairs", "each text of a pair through BERT alone, or both as one row with a [SEP]", default="separate",
             choices=("separate", "joint"), scripts="c", needs="--text2"),
        Flag("--pairs", "of NLI: one row of both sentences, or two rows", default="joint", choices=("joint",
             "separate"), scripts="p"),
        Flag("--para_head", "head of Quora's separate pairs (default: difference); see minbert/heads.py",
             choices="heads.PAIR_HEADS.yes_no", scripts="m"),
        Flag("--head", "head of separate pairs of your own (default: cosine for numbers, else difference); see "
             "minbert/heads.py", choices="heads.HEADS", scripts="c", needs="--text2"),
        Flag("--sts_head", "head of STS's separate pairs (default: cosine)", choices="heads.PAIR_HEADS.number",
             scripts="m"),
        Flag("--sts_loss", "squared error on a scale from 0 to 1, or pull cosines up and down", default="mse",
             choices="tasks.STS_LOSSES", scripts="m"),
    ],
    "additions to BERT": [
        Flag("--freeze_bert", "train the additions and the heads alone", None, False, needs="--adapter",
             not_with={"--lora_rank": "which freezes BERT by itself"}, scripts="m"),
    ],
    "masking": [
        Flag("--mask_rate", "share of the tokens that the model must predict", rate, 0.15, "P", scripts="p"),
        Flag("--mask_shares", "of those, how many become [MASK], and how many a random token; the rest stays",
             default="0.8,0.1", metavar="M,R", scripts="p"),
        Flag("--whole_words", "choose whole words, not word pieces", None, False, scripts="p"),
    ],
    "training": [
        Flag("--seed", "random seed of dropout, fresh heads, data order (and masks)", seed, 11711, "N", scripts="mcp"),
        Flag("--epochs", "rounds of training", count, 10, "N"),
        Flag("--epochs", "times that the larger lesson is read whole", count, 5, "N", scripts="p"),
        Flag("--train_tasks", "of --tasks, those that are trained; the others are only scored (default: all)", names,
             metavar="LIST", scripts="m"),
        Flag("--steps_per_epoch", "steps a round, each of one or several tasks (default: what the schedule makes it); "
             "3xsts is three times the batches that hold all of sts", steps, metavar="N", scripts="m"),
        Flag("--steps_per_epoch", "steps a round (default: what it takes to see every example)",
             at_least(int, 1, most=10**6), metavar="N", scripts="cp"),
        Flag("--schedule", "which tasks each step trains on; see minbert/sampling.py", default="round_robin",
             choices="sampling.SCHEDULES", scripts="m"),
        Flag("--priorities", "of --schedule priority and fixed: batches an iteration of each of --tasks, at the start "
             "(default: in proportion to their sizes)", metavar="LIST", scripts="m"),
        Flag("--combine",
             "one update from a step's several losses: an update each, or one of all; see minbert/pcgrad.py",
             default="separate", choices="pcgrad.COMBINE", scripts="m"),
        Flag("--task_weights", "a factor for each of the losses of --tasks (default: 1,1,1)", metavar="LIST",
             scripts="m"),
        Flag("--weights", "a factor for the loss of each of --tasks (default: 0.7,0.3; of one alone 1)",
             metavar="LIST", scripts="p"),
        Flag("--batch_size", "examples a batch, of all processes together where torchrun starts several", count, 8,
             "N"),
        Flag("--batch_size",
             "examples a batch of the larger lesson; the other's are smaller, so that both end at about "
             "the same time", count, 32, "N", scripts="p"),
        Flag("--even_batches", "make batches of the same number of examples, or of about the same number of tokens: "
             "few long rows or many short ones, with --batch_size rows on average, so that the largest batch needs "
             "less memory; losses are means over a batch's examples, so long rows then count more", default="examples",
             choices=("examples", "tokens"), scripts="mc"),
        Flag("--micro_batch", "examples at a time, where a batch is too large for the memory; the update stays that of "
             "the whole batch (default: the whole batch, and half of it each time that the memory is full)", count,
             metavar="N", scripts="mc"),
        Flag("--cfimdb_batch_size", "examples a batch of CFIMDB, whose reviews are long (default: 8)", count,
             metavar="N", scripts="c"),
        Flag("--lr",
             "learning rate (default: 1e-3 where BERT's weights are frozen, 1e-5 where they train, as the course's "
             "handout says; most of the starters have 1e-5 for both, with which a frozen BERT's heads hardly learn)",
             positive, metavar="RATE"),
        Flag("--lr", "learning rate", positive, 5e-6, "RATE", scripts="p"),
        Flag("--head_lr", "learning rate of the heads (default: --lr)", positive, metavar="RATE", scripts="mcp"),
        Flag("--warmup", "share of the steps in which the rates rise from 0", rate, 0.0, "SHARE", scripts="mcp"),
        Flag("--lr_decay", "after the warm-up the rate stays, or falls to 0", default="constant",
             choices=("constant", "linear"), scripts="mcp"),
        Flag("--weight_decay", "AdamW's, of every weight that trains", at_least(float, 0, most=1), 0.0, "RATE"),
        Flag("--weight_decay", "AdamW's; not of biases and LayerNorms", at_least(float, 0, most=1), 0.0, "RATE",
             scripts="p"),
        Flag("--no_decay_norms", "but not of biases and LayerNorms", None, False, needs="--weight_decay"),
        Flag("--clip", "cut the whole gradient to this norm; 0: no clipping", number, 0.0, "NORM"),
        Flag("--clip", "cut the whole gradient to this norm; 0: no clipping", number, 1.0, "NORM", scripts="p"),
        Flag("--average", "evaluate and keep a running mean of the weights, with this β (.999 is a mean over about "
             "1,000 steps); see minbert/average.py", rate, 0.0, "BETA"),
        Flag("--precision",
             "of the matrix products: bf16 and fp16 are a little rough; faster on processors made for them, far slower "
             "on others; fp16 is for GPUs without bf16, and scales the loss, see minbert/scaling.py", default="fp32",
             choices=("fp32", "bf16", "fp16"), scripts="mc"),
        Flag("--precision",
             "of the matrix products: bf16 is a little rough; faster on processors made for it, far slower "
             "on others", default="fp32", choices=("fp32", "bf16"), scripts="p"),
        Flag("--use_gpu", "train on the first CUDA device, or with torchrun on one a process; without CUDA on the GPU "
             "of a Mac (MPS)", None, False, scripts="mcp"),
    ],
    "terms of the loss": [],
    "output": [
        Flag("--out", "folder of the run: run.json, metrics.jsonl, best/, predictions/ (default: runs/MODE, or "
             "runs/MODE-2 and so on where that has a run; the predictions are then copied to predictions/ as well)",
             metavar="DIR"),
        Flag("--out", "folder for the weights, metrics.jsonl and checkpoints", metavar="DIR", scripts="p"),
        Flag("--overwrite", "replace the earlier run in OUT", None, False, scripts="mcp"),
        Flag("--resume", "go on with the run in OUT, which has all the flags, from its last checkpoint", None, False,
             scripts="mcp", not_with={"--overwrite": "", "--predict": ""}),
        Flag("--save_every", "keep a checkpoint every N steps (500) or minutes (10m), and after each epoch", interval,
             "10m", "N", scripts="mcp"),
        Flag("--skip_predictions", "end after training, without prediction files", None, False),
        Flag("--eval_train", "score the training data each epoch as well (slow)", None, False),
        *(Flag(f"--{task}_{split}_out", f"default: OUT/predictions/{task}-{split}-output.csv", metavar="FILE",
               scripts="m")
          for task in MULTITASK for split in ("dev", "test")),
        *(Flag(f"--{split}_out", f"{split} predictions; with two data sets, those of the last (default: "
               f"in OUT/predictions, with the course's names)", metavar="FILE", scripts="c") for split in ("dev",
             "test")),
    ],
}
# fmt: on


# ------------------------------------------------------------------------------------------------ rows of techniques


class Technique(NamedTuple):
    """A technique: its name in its module's FLAGS, its rows, the module, and the table there, ADDITIONS or TERMS."""

    name: str
    flags: list[Flag]
    module: str
    table: str

    @property
    def switch(self) -> Flag:
        """The flag that turns the technique on: its first."""
        return self.flags[0]

    def load(self) -> Any:
        """Import the technique's module and return its row in the table there."""
        return getattr(sibling(self.module), self.table)[self.name]

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of its switch and of its flags that are on, without the technique's name: {"rank": 8}."""
        flags = [flag for flag in self.flags if flag is self.switch or flag.is_on(values)]
        return {flag.key.removeprefix(f"{self.name}_"): values[flag.key] for flag in flags}


def sibling(name: str) -> ModuleType:
    """Another module of this package, imported."""
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


def assigned(source: str, name: str) -> ast.expr | None:
    """The expression of the line `name = …` at the top level of a module's source, or None."""
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    return None


def _assigns(source: str, name: str) -> bool:
    """Whether a source has a line `name = …` or `name: type = …`. A search takes less time than `assigned`."""
    return bool(re.search(rf"^{name}(: [^=\n]+)? = ", source, re.M))


@cache
def techniques() -> dict[str, Technique]:
    """Every technique that brings flags, by name, in the order of the modules' names."""
    result = {}
    for path in sorted(PACKAGE.glob("*.py")):
        source = path.read_text("utf-8")
        if not _assigns(source, "FLAGS"):
            continue
        rows = eval(compile(ast.Expression(assigned(source, "FLAGS")), str(path), "eval"), vars(types).copy())
        for table in ("ADDITIONS", "TERMS"):
            for name in keys(f"{path.stem}.{table}") if _assigns(source, table) else ():
                result[name] = Technique(name, rows[name], path.stem, table)
    return result


@cache
def keys(table: str) -> tuple[str, ...]:
    """The keys of a table, read from the source of a module of this package: keys("sampling.SCHEDULES").

    With a third part, "heads.PAIR_HEADS.number", the words of that entry of the table, which is a tuple.
    """
    module, name, *entry = table.split(".")
    expression = assigned((PACKAGE / f"{module}.py").read_text("utf-8"), name)
    if entry:
        values = dict(zip(map(ast.literal_eval, expression.keys), expression.values, strict=True))
        return ast.literal_eval(values[entry[0]])
    return tuple(ast.literal_eval(key) for key in expression.keys)


# ------------------------------------------------------------------------------------------------ rows of a script


@cache
def groups(script: str) -> dict[str, list[Flag]]:
    """The rows of one script, in groups, the techniques' among them. script: "m", "c", "p"."""
    result = {title: list(flags) for title, flags in TABLE.items()}
    titles = {"ADDITIONS": "additions to BERT", "TERMS": "terms of the loss"}
    for technique in techniques().values():
        result[titles[technique.table]] += technique.flags
    for title, flags in result.items():
        mine = [flag for flag in flags if script in flag.scripts]
        result[title] = [replace(flag, choices=keys(flag.choices)) if isinstance(flag.choices, str) and flag.choices
                         else flag for flag in mine]  # fmt: skip
    return {title: flags for title, flags in result.items() if flags}


def flags_of(script: str) -> dict[str, Flag]:
    """The rows of one script by the names of their values: {"lora_rank": Flag(…), …}."""
    return {flag.key: flag for flags in groups(script).values() for flag in flags}


def changed(script: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values of a script's flags that are not the default."""
    flags = flags_of(script)
    return {key: value for key, value in values.items() if value != flags[key].default}


def flags_then(script: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all flags: those in `values`, of a run.json or a recipe, and for the others their default."""
    return {key: flag.default for key, flag in flags_of(script).items()} | dict(values)
