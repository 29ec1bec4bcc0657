"""Whose failure is it? What fails for want of context is not checked; what fails in their code is theirs.

Each row is a right project in which one thing is unusual, with what is said of it: nothing, or why it was not checked.
The rows of `THEIRS` are the negative controls: the same failures where nothing of the check's can have caused them.
"""

import pytest

from tests.mutants.sanity_techniques import COURSE
from tests.sanity.making import PROJECTS, changed, complaints, swap, verdicts, why_not

FILES = ("bert.py", "base_bert.py", "utils.py", "config.py")
BERT = {name: (PROJECTS / "course" / name).read_text("utf-8") for name in FILES}
PARSER = """
def get_args():
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--log_dir", default="logs")
    parser.add_argument("--margin", type=float, required=True)
    return parser.parse_args()
"""
MAIN = "\nif __name__ == '__main__':\n    args = get_args()\n    scale = 1.0\n"
GLOBAL = "\ndef main():\n    global args\n    args = get_args()\n"
TOP = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
TEST = "def test_model_multitask(args, model, device):\n"
READS = (TEST, TEST + "    x = args.log_dir\n")
EVAL = "model, device):\n    model.eval()\n    y_sst"
INIT = "self.sentiment = nn.Linear(config.hidden_size, 5)"
HEAD = "return self.sentiment(self(ids, mask))"
PAIR = "def predict_paraphrase(self, ids1, mask1, ids2, mask2):\n        u, v = self(ids1, mask1), self(ids2, mask2)"
RUN = "layer_module(hidden_states, extended_attention_mask)"
LAST = "return hidden_states\n\n    def forward(self, input_ids"


def heads(*texts: str, **files: str) -> tuple:
    return changed(COURSE | {f"{k}.py": v for k, v in files.items()}, swap(*texts)), ("heads",)


def evaluation(*texts: str, **files: str) -> tuple:
    return changed(COURSE | {f"{k}.py": v for k, v in files.items()}, swap(*texts)), ("evaluation",)


def bert(*texts: str, **files: str) -> tuple:
    return changed(BERT | {f"{k}.py": v for k, v in files.items()}, swap(*texts)), ("attention", "embeddings", "model")


RIGHT = {  # what is unusual → the project, and a part of the reason why something is not checked ("" if all is)
    "a flag of one's own": (evaluation(*READS, train=PARSER + MAIN), ""),
    "a flag that no parser has": (evaluation(*READS), "it reads `args.log_dir`"),
    "a flag that must be given": (
        evaluation(READS[0], READS[1].replace("log_dir", "margin"), train=PARSER + MAIN), "it reads `args.margin`",
    ),
    "a name of the main block": (
        heads(HEAD, HEAD.replace("self.s", "scale * self.s"), TOP, TOP + PARSER + MAIN), "",
    ),
    "a name that a function declares global": (
        heads(INIT, INIT + "\n        self.logs = args.log_dir", TOP, TOP + PARSER + GLOBAL), "",
    ),
    "a name that only training makes": (
        heads(HEAD, "return schedule.scale * self.sentiment(self(ids, mask))", "def train_multitask(",
              "def fit(optimizer):\n    global schedule\n    schedule = optimizer.schedule()\n\ndef train_multitask("),
        "`schedule` exists only while multitask_classifier.py runs",
    ),
    "a field of the config that the script sets": (
        heads(INIT, INIT + "\n        self.extra = nn.Linear(config.width, 2)",
              run="from multitask_classifier import MultitaskBERT\nfrom types import SimpleNamespace\n"
                  "config = SimpleNamespace(hidden_size=768, hidden_dropout_prob=.1, width=3)\n"
                  "model = MultitaskBERT(config)\n"), "",
    ),
    "a tokenizer in the model": (
        heads(INIT, INIT + "\n        self.tokenizer = BertTokenizer.from_pretrained('bert-base-uncased')\n"
              "        self.pad = self.tokenizer.pad_token_id",
              TOP, TOP + "from tokenizer import BertTokenizer\n"),
        "",
    ),
    "a tokenizer that is asked for more": (
        heads(INIT, INIT + "\n        self.words = BertTokenizer.from_pretrained('x').added_tokens_decoder",
              TOP, TOP + "from tokenizer import BertTokenizer\n"),
        "it asks the tokenizer for `added_tokens_decoder`",
    ),
    "exception classes of a package": (
        heads(TOP, f"import requests\n{TOP}try:\n    raise OSError\nexcept (requests.exceptions.HTTPError, "
              "requests.Timeout):\n    pass\nexcept OSError:\n    pass\n"), "",
    ),
    "a package that is not installed, in the forward pass": (
        heads(HEAD, "return einlops.rearrange(self.sentiment(self(ids, mask)), 'b c -> b c')",
              TOP, "import einlops\n" + TOP), "einlops",
    ),
    "a file that is not in the copy": (
        heads(HEAD, "open('weights/bias.pt')\n        " + HEAD), "it needs a file or a connection",
    ),
    "a GPU": (heads(INIT, INIT + "\n        assert torch.cuda.is_available()"), "it needs a GPU"),
    "a loss on its way to the GPU": (heads(HEAD, HEAD + ".cuda()", INIT, INIT + "\n        self.cuda()"), ""),
    "one argument more": (
        heads("def predict_sentiment(self, ids, mask):", "def predict_sentiment(self, ids, mask, temperature):"),
        "does not take (ids, mask)",
    ),
    "a cross-encoder": (
        heads(PAIR, "def predict_paraphrase(self, input_ids, attention_mask):\n"
                    "        u = v = self(input_ids, attention_mask)"), "",
    ),
    "an argument with a default": (
        evaluation(EVAL, EVAL.replace("device", "device, skip_sst=False")), "",
    ),
    "an argument that the course does not have": (
        evaluation(EVAL, EVAL.replace("device", "device, epoch"),
                   "*loaders[\"dev\"], model, device)", "*loaders[\"dev\"], model, device, 0)"), "also takes `epoch`",
    ),
    "two logits": (
        evaluation("nn.Linear(2 * 768, 1)", "nn.Linear(2 * 768, 2)", "dim=1)).squeeze()", "dim=1))",
                   "logits.flatten().sigmoid().round()", "logits.argmax(dim=-1).float()"), "",
    ),
    "rows that are there twice": (
        evaluation('list(rows(similarity_filename, pair, "similarity", float)))',
                   '[r for r in rows(similarity_filename, pair, "similarity", float)\n'
                   '             for _ in range(1 + (split == "train"))])'), "",
    ),
    "saturated outputs": (
        heads(".squeeze()", ".squeeze().mul(1e6).sign().relu()"), "gives one or two numbers",
    ),
    "padded rows that are joined": (
        heads("u, v = self(ids1, mask1), self(ids2, mask2)\n        return self.p",
              "u = v = self(torch.cat([ids1, ids2], 1), torch.cat([mask1, mask2], 1))\n        return self.p"),
        "joins two padded rows",
    ),
    "a wide head": (heads(INIT, INIT + "\n        self.words = nn.Linear(768, 30522)"), ""),
    "a config with names of its own": (
        bert(config="class BertConfig:\n    name_or_path = ''\n"
                    "    def __init__(self, hidden_size=768, n_heads=12, **others):\n"
                    "        self.__dict__.update(others, hidden_size=hidden_size, num_attention_heads=n_heads)\n"
                    "        assert hidden_size % n_heads == 0\n\nPretrainedConfig = BertConfig\n"), "",
    ),
    "a class in the config": (
        bert("BertLayer(config) for _", "config.layer_class(config) for _"), "it reads `config.layer_class`",
    ),
    "a class in the config that a line sets": (
        bert("BertLayer(config) for _", "config.layer_class(config) for _",
             run="from bert import BertLayer\nfrom config import BertConfig\nconfig = BertConfig()\n"
                 "config.layer_class = BertLayer\n"), "",
    ),
    "twelve layers": (bert(LAST, "self.bert_layers[11]\n        " + LAST), ""),
    "layers that are told a task": (
        bert("def forward(self, hidden_states, attention_mask):\n        attn =",
             "def forward(self, hidden_states, attention_mask, *, task):\n        attn =",
             RUN, RUN.replace("mask)", "mask, task=2)")), "",
    ),
    "a missing module of one's own": (
        bert("from base_bert import", "from my_base_bert import"), "which is neither in this folder nor installed here",
    ),
    "64 where the width of a head is": (
        bert("math.sqrt(self.attention_head_size)", "math.sqrt(64)"), "right at the sizes of bert-base",
    ),
}  # fmt: skip

THEIRS = {  # a failure of their own → the project, and the complaint
    "a flag that is misspelt": (
        evaluation(TEST, TEST + "    x = arg.log_dir\n", train=PARSER + MAIN), "NameError",
    ),
    "a name that nothing makes": (heads(HEAD, HEAD.replace("self.s", "scale * self.s")), "NameError"),
    "a shape that does not fit": (heads("nn.Linear(2 * 768, 1)", "nn.Linear(768, 1)"), "RuntimeError"),
    "a shape that does not fit, in a project for the GPU": (
        heads("nn.Linear(2 * 768, 1)", "nn.Linear(768, 1)", INIT, INIT + "\n        self.cuda()"), "RuntimeError",
    ),
    "an attribute that is not there": (heads(HEAD, "return self.sentimet(self(ids, mask))"), "AttributeError"),
    "a local that is not set": (heads(HEAD, "if False:\n            x = 1\n        return x"), "UnboundLocalError"),
    "too few layers, of twelve": (bert(LAST, "self.bert_layers[12]\n        " + LAST), "IndexError"),
}  # fmt: skip


REPEATS = {  # right in the way of another row, which is in the default run
    "a flag that must be given", "a name that a function declares global", "exception classes of a package",
    "a tokenizer that is asked for more", "a class in the config", "a wide head", "twelve layers",
    "an argument that the course does not have",
}  # fmt: skip
assert set(RIGHT) >= REPEATS


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in REPEATS else ()) for case in RIGHT]
)
def test_a_right_project_gets_no_complaint_and_the_reason_where_something_was_not_checked(case, tmp_path):
    project, reason = RIGHT[case]
    results = verdicts(tmp_path, *project)
    assert not [r for r in results.values() if r["status"] in ("wrong", "crashed", "not written")], complaints(results)
    assert reason in " ".join(why_not(results)) if reason else not why_not(results)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if i else ()) for i, case in enumerate(THEIRS)]
)
def test_what_fails_in_their_code_on_promised_inputs_is_theirs(case, tmp_path, impatient):
    project, error = THEIRS[case]
    results = verdicts(tmp_path, *project)
    failures = [result["failure"]["error"] for result in results.values() if result["status"] == "crashed"]
    assert error in failures, results
