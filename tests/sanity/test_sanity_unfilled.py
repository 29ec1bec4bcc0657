"""What is still to be written is no mistake: it is said, method by method, and what is written already is judged."""

import ast

import pytest

from minbert.sanity.source import unfilled
from tests.mutants.sanity_bert import C_SCALE, sources
from tests.sanity.making import BERT, OPTIMIZER, changed, complaints, example, swap, verdicts


def definitions(tree: ast.AST, inside: str = ""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = f"{inside}.{node.name}".lstrip(".")
            yield name, node
            yield from definitions(node, name)


def unwritten(files: dict[str, str], *names: str) -> dict[str, str]:
    """The files with these bodies replaced by an error."""
    files = dict(files)
    for path, text in files.items():
        lines = text.splitlines(keepends=True)
        for name, node in reversed(list(definitions(ast.parse(text)))):
            if name in names:
                body = node.body[0]
                space = " " * body.col_offset
                lines[body.lineno - 1 : node.end_lineno] = [f"{space}raise NotImplementedError  # to be written\n"]
        files[path] = "".join(lines)
    return files


ATTENTION_TODO = ("BertSelfAttention.attention",)
LAYER_TODO = ("BertLayer.add_norm", "BertLayer.forward")
MODEL_TODO = ("BertModel.embed",)
OPTIMIZER_TODO = ("AdamW.step",)
# What is still to be written, what is wrong already, and what the parts are said to be. The starter gives the forward
# of the model, so that it is right before anything is written.
STAGES = {
    "nothing": ((*ATTENTION_TODO, *LAYER_TODO, *MODEL_TODO, *OPTIMIZER_TODO), (), "---+-"),
    "attention": ((*LAYER_TODO, *MODEL_TODO, *OPTIMIZER_TODO), (), "+--+-"),
    "attention and layer": ((*MODEL_TODO, *OPTIMIZER_TODO), swap(C_SCALE, "S = S * 1.0"), "!+-+-"),
    "all but the optimizer": (OPTIMIZER_TODO, (), "++++-"),
}


@pytest.mark.parametrize(
    "stage", ["nothing", "attention and layer", *(pytest.param(s, marks=pytest.mark.slow) for s in list(STAGES)[1::2])]
)
def test_a_half_finished_project_hears_what_is_not_written(stage, tmp_path):
    todo, swaps, expected = STAGES[stage]
    results = verdicts(tmp_path, unwritten(changed(sources("course"), swaps), *todo))
    said = {"passed": "+", "wrong": "!", "not written": "-"}
    assert {name: said.get(r["status"], r["status"]) for name, r in results.items()} == dict(
        zip(BERT + OPTIMIZER, expected, strict=True)
    )
    assert complaints({k: r for k, r in results.items() if r["status"] == "wrong"}) == (
        ["attention: scores are not divided by √D"] if swaps else []
    )
    for result in results.values():
        if result["status"] == "not written":
            assert set(result["note"].split(", ")) <= set(todo)
            assert result["file"] in ("bert.py", "optimizer.py") and result["line"]


def attention(files: dict[str, str], body: str) -> dict[str, str]:
    """The files with another body of BertSelfAttention.attention."""
    path = "bert.py"
    tree = ast.parse(files[path])
    node = next(node for name, node in definitions(tree) if name == "BertSelfAttention.attention")
    lines = files[path].splitlines(keepends=True)
    lines[node.body[0].lineno - 1 : node.end_lineno] = [f"        {line}\n" for line in body.splitlines()]
    return {**files, path: "".join(lines)}


UNFILLED = {  # how a starter may leave a method open
    "raises": "raise NotImplementedError",
    "passes": "pass",
    "an ellipsis": '"""To be written."""\n...',
    "returns nothing": "return None",
    "a placeholder": "scores = None\nreturn self.dropout(scores.softmax(-1)) @ value",
    "placeholders in a row": "probs = scores = None  # fill these in\nprobs = query\nreturn probs @ (value + scores)",
    "raises at the end": "scores = query @ key.transpose(2, 3)\nraise NotImplementedError",
}


@pytest.mark.parametrize("how", UNFILLED)
def test_a_method_that_is_left_open_is_not_written_yet(how, tmp_path):
    result = verdicts(tmp_path, attention(sources("course"), UNFILLED[how]), ("attention",))["attention"]
    assert (result["status"], result["note"]) == ("not written", "BertSelfAttention.attention")


def test_a_layer_whose_methods_all_pass_is_not_written_yet(tmp_path, impatient):
    files = sources("course")
    start, end = files["bert.py"].index("    def add_norm("), files["bert.py"].index("class BertModel(")
    empty = """    def add_norm(self, input, output, dense_layer, dropout, ln_layer):
        pass

    def forward(self, hidden_states, attention_mask):
        pass


"""
    files = {**files, "bert.py": files["bert.py"][:start] + empty + files["bert.py"][end:]}
    result = verdicts(tmp_path, files, ("layer",))["layer"]
    assert (result["status"], result["note"]) == ("not written", "BertLayer.add_norm, BertLayer.forward")


WRITTEN = {  # what looks like that and is a failure of code that is written
    "a None that is filled later": "scores = None\nif True:\n    scores = query.nothing()\nreturn scores",
    "a None in the message": 'raise ValueError("None of the heads fit")',
}


@pytest.mark.parametrize("how", WRITTEN)
def test_code_that_fails_otherwise_is_not_said_to_be_unwritten(how, tmp_path, impatient):
    result = verdicts(tmp_path, attention(sources("course"), WRITTEN[how]), ("attention",))["attention"]
    assert result["status"] == "crashed" and result["failure"]["file"] == "bert.py"


def test_all_methods_of_a_part_that_are_left_open_are_listed(tmp_path):
    heads = ("MultitaskBERT.__init__", "MultitaskBERT.predict_sentiment", "BertSentimentClassifier.forward")
    result = verdicts(tmp_path, unwritten(example("course"), *heads), ("heads",))["heads"]
    assert result["status"] == "not written" and set(result["note"].split(", ")) == set(heads)


@pytest.mark.parametrize("body", ["pass", "# after the milestone\n        pass", "logit = None\n        return logit"])
def test_a_head_that_returns_nothing_is_not_written_yet(body, tmp_path):
    start = "    def predict_similarity(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):\n"
    files = example("course")
    head, _, tail = files["multitask_classifier.py"].partition(start)
    text = f"{head}{start}        {body}\n\n\n{tail[tail.index('def pair_inputs') :]}"
    result = verdicts(tmp_path, {**files, "multitask_classifier.py": text}, ("heads",))["heads"]
    assert (result["status"], result["note"]) == ("not written", "MultitaskBERT.predict_similarity")
    assert result["file"] == "multitask_classifier.py" and result["line"]


@pytest.mark.parametrize("name", ["model_eval_multitask", "load_multitask_data"])
def test_an_evaluation_that_returns_nothing_is_not_written_yet(name, tmp_path):
    file = "evaluation.py" if name == "model_eval_multitask" else "datasets.py"
    files = unwritten(example("course"), name)
    files[file] = files[file].replace("raise NotImplementedError  # to be written", "pass")
    result = verdicts(tmp_path, files, ("evaluation",))["evaluation"]
    assert (result["status"], result["note"], result["file"]) == ("not written", name, file)


def test_one_head_that_is_left_open_does_not_hide_what_is_wrong_in_another(tmp_path):
    files = unwritten(example("course"), "MultitaskBERT.predict_similarity")
    wrong = ("return self.paraphrase_classifier(self.dropout(features))", "return features.mean(1).sigmoid()")
    results = verdicts(tmp_path, changed(files, (wrong,)), ("heads",))
    assert complaints(results) == ["heads: sigmoid twice for paraphrase"]
    assert [m["name"] for m in results["heads"]["todo"]] == ["MultitaskBERT.predict_similarity"]


@pytest.mark.parametrize(
    "body, how",
    [
        ("raise NotImplementedError", "raises"),
        ("raise NotImplementedError('later')", "raises"),
        ("pass", "empty"),
        ("x = None\nreturn x + 1", "placeholder"),
        ("x = None\nreturn x", ""),  # as `loss = None … return loss` of an optimizer
        ("x = None\nfor x in y:\n    pass\nreturn x + 1", ""),
        ("if y:\n    raise NotImplementedError\nreturn 1", ""),  # an option that is not offered
        ("return 1", ""),
    ],
)
def test_what_is_unfilled_is_read_from_the_syntax_tree(body, how):
    function = ast.parse("def f(y):\n" + "".join(f"    {line}\n" for line in body.splitlines())).body[0]
    assert unfilled(function) == how


STEP = """
def step(self, closure=None):
    loss = None
    if closure is not None:
        loss = closure()
    for group in self.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            grad = p.grad.data
            if grad.is_sparse:
                raise RuntimeError("no sparse gradients")
            state = self.state[p]
            alpha = group["lr"]
            {}
    return loss
"""


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("pass", "empty"),
        ("beta1, beta2 = group['betas']", "empty"),
        ("p.data.add(grad)", ""),  # written, and wrong: the sum is thrown away
        ("step = alpha * grad", ""),
        ("p.data -= grad", ""),
        ("p.data.mul_(1)", ""),
    ],
)
def test_a_step_that_only_names_things_is_not_written_yet(end, how):
    """As a starter hands it out; one that computes something is judged, also where the result goes nowhere."""
    assert unfilled(ast.parse(STEP.format(end)).body[0]) == how
