"""`python -m minbert.trace`: its places are lines of the source, and its numbers are those of `transformers`."""

import re

import pytest
import torch
import transformers

from tests.reading.conftest import ROOT

SENTENCE = "a film, to remember."


pytestmark = pytest.mark.xdist_group("trace")  # it is made once


@pytest.fixture(scope="module")
def stages(program, odd) -> list[tuple[str, int, tuple[int, ...], list[float], str]]:
    """(file, line, shape, numbers, the rest) of each line."""
    status, out, err = program("minbert.trace", SENTENCE, "--pretrained", odd)
    assert (status, err) == (0, "")
    rows = [re.match(r"(\S+):(\d+) +\(([\d, ]+)\) +(\S+ \S+) +(.+)", line).groups() for line in out.splitlines()]
    return [
        (file, int(line), tuple(map(int, shape.split(","))), [float(n) for n in numbers.split()], rest)
        for file, line, shape, numbers, rest in rows
    ]


def test_each_line_names_a_line_of_the_source_that_says_the_same(stages):
    assert len(stages) > 15
    for file, line, shape, _, rest in stages:
        text = (ROOT / file).read_text("utf-8").splitlines()[line - 1]
        claimed = re.search(r"\(([^()]*)\)(?=\D*$|[^()]*$|:)", text)
        assert claimed, (file, line, text)
        if file == "minbert/bert.py":
            assert rest.split("  ")[-1].strip() in text
            assert text.partition("#")[2].partition(")")[0].count(",") == len(shape) - 1


def test_the_numbers_are_those_of_transformers(stages, odd):
    theirs = transformers.BertModel.from_pretrained(odd, attn_implementation="eager").eval()
    tokenizer = transformers.BertTokenizerFast.from_pretrained(odd)
    inputs = tokenizer(SENTENCE, return_tensors="pt")
    with torch.no_grad():
        output = theirs(**inputs, output_hidden_states=True, output_attentions=True)
    expected = {
        "the word pieces": inputs["input_ids"],
        "the sum, after LayerNorm": output.hidden_states[0],
        "a row sums to 1": output.attentions[0],
        "after this layer": output.hidden_states[1],
        "after the last one": output.last_hidden_state,
        "the sentence": output.pooler_output,
    }
    for words, tensor in expected.items():
        (stage,) = [stage for stage in stages if words in stage[4]]
        assert stage[2] == tuple(tensor.shape)
        assert stage[3] == pytest.approx(tensor.flatten()[:2].tolist(), rel=2e-3, abs=1e-5), words


@pytest.mark.slow
@pytest.mark.parametrize("words, complaint", [(("",), "is empty"), (("hi", "--pretrained", "/no/such"), "/no/such")])
def test_what_cannot_be_traced_is_one_line(program, odd, words, complaint):
    extra = () if "--pretrained" in words else ("--pretrained", odd)
    status, out, err = program("minbert.trace", *words, *extra)
    assert status != 0 and out == "" and complaint in err and len(err.splitlines()) == 1
