#!/usr/bin/env python3
"""Is this BERT a BERT, and this AdamW an AdamW? One layer done by hand, the course's own check, real weights.

  python sanity_check.py                                   fetches the small real model, minilm (90 MB), if need be
  python sanity_check.py --pretrained bert-base-uncased    the course's own check of BERT (440 MB)

Exit status: 0 all passed, 1 something is wrong, 2 a check could not be run.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import Parser, UserError, one_line_errors
from minbert.optimizer import AdamW
from minbert.pretrained import load_bert

# Outputs for the course's two sentences, by the `transformers` library (minilm) and by the course (bert-base-uncased).
# "hello world", padded, and "hello transformer …"; a few numbers of each tensor, and the norms of all of it.
IDS = [[101, 7592, 2088, 102, 0, 0, 0, 0], [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]]
STORED = {
    "minilm": {
        "hidden[0,0,:4]": [0.176444, 0.039367, 0.077902, 0.258542],
        "hidden[1,7,:4]": [-0.174063, -0.206184, 0.388339, 0.296354],
        "pooled[0,:4]": [-0.039659, 0.022167, -0.011310, 0.027763],
        "pooled[1,:4]": [0.038344, -0.042475, -0.005210, 0.052974],
        "norms": [18.789862, 27.450800, 1.183152, 1.329339],
    },
    "bert-base-uncased": {
        "hidden[0,0,:4]": [-0.168884, 0.136064, -0.139400, -0.054359],
        "hidden[1,7,:4]": [0.645269, -0.115473, -0.436594, 0.339301],
        "pooled[0,:4]": [-0.906153, -0.311153, -0.621654, 0.774093],
        "pooled[1,:4]": [-0.804259, -0.286005, -0.282890, 0.491087],
        "norms": [31.310722, 42.963096, 16.808625, 14.544161],
    },
}


def compare(found: Tensor, expected: Tensor | list, name: str, atol: float, rtol: float) -> str:
    """ "" if found ≈ expected (|difference| ≤ atol + rtol·|expected|), else the first place where it is not."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    found = found.detach().double()
    wrong = ~torch.isclose(found, expected, atol=atol, rtol=rtol)
    if not wrong.any():
        return ""
    place = tuple(wrong.nonzero()[0].tolist())
    return f"{name}{list(place)}: expected {expected[place]:.6f}, found {found[place]:.6f}"


def check_tiny_bert(model_class: Callable = BertModel) -> str:
    """One layer of two heads whose every matrix is the identity, on two tokens and a pad: done by hand.

    The embeddings are x₁ = (1, -1, 1, -1) and x₂ = (1, 1, -1, -1), which LayerNorm leaves alone. Inside each head
    x₁·x₁ = 2 and x₁·x₂ = 0, so with D = 2 a token looks at itself with weight a = 1/(1 + e^(-2/√2)), at the other with
    1 - a, and at the pad not at all. The attention's output for x₁ is (1, 1-2a, 2a-1, -1); with the residual
    (2, -2a, 2a, -2), whose variance is 2 + 2a². The rest is LayerNorm, the exact GELU, and LayerNorm again.
    """
    config = BertConfig(
        vocab_size=3, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4,
        max_position_embeddings=3,
    )  # fmt: skip
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" not in name:
                parameter.zero_()
            if name.endswith("weight") and parameter.shape == (4, 4):
                parameter.copy_(torch.eye(4))
        model.word_embedding.weight[1:] = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]])
        output = model(torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]]))

    a = 1 / (1 + math.exp(-math.sqrt(2)))
    b = 2 / math.sqrt(2 + 2 * a**2)
    attended = [[b, -a * b, a * b, -b], [b, a * b, -a * b, -b]]
    hidden = []
    for row in attended:
        y = [x + x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in row]  # x + GELU(x)
        mean = sum(y) / 4
        std = math.sqrt(sum((v - mean) ** 2 for v in y) / 4)
        hidden.append([(v - mean) / std for v in y])
    pooled = [math.tanh(v) for v in hidden[0]]
    return compare(output["last_hidden_state"][0, :2], hidden, "last_hidden_state", 1e-6, 0) or compare(
        output["pooler_output"][0], pooled, "pooler_output", 1e-6, 0
    )


def check_adamw(optimizer_class: Callable = AdamW) -> str:
    """The course's check: 1,000 one-sample steps of linear regression end at known weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = nn.Linear(3, 2, bias=False)
    optimizer = optimizer_class(model.parameters(), lr=1e-3, weight_decay=1e-4, correct_bias=True)
    for _ in range(1000):
        x = torch.tensor(rng.uniform(size=3), dtype=torch.float32)
        y = torch.stack([x[0] + x[1], -x[2]])
        optimizer.zero_grad()
        ((y - model(x)) ** 2).sum().backward()
        optimizer.step()
    reference = [[0.55482787, 0.86665666, 0.07291982], [-0.44724506, -0.2951228, -0.2717272]]
    return compare(model.weight, reference, "weights after 1,000 steps", 1e-6, 1e-4)


def check_real_bert(name: str) -> str:
    """The real weights of `name` give the stored outputs, to the course's tolerance and to six digits of the norms."""
    model = load_bert(name).eval()
    ids = torch.tensor(IDS)
    with torch.no_grad():
        output = model(ids, (ids != 0).long())
    hidden, pooled = output["last_hidden_state"], output["pooler_output"]
    found = {
        "hidden[0,0,:4]": hidden[0, 0, :4],
        "hidden[1,7,:4]": hidden[1, 7, :4],
        "pooled[0,:4]": pooled[0, :4],
        "pooled[1,:4]": pooled[1, :4],
        "norms": torch.stack([hidden[0, :4].norm(), hidden[1].norm(), pooled[0].norm(), pooled[1].norm()]),
    }
    complaints = (compare(found[k], v, k, 1e-5, 1e-5 if k == "norms" else 1e-3) for k, v in STORED[name].items())
    return next(filter(None, complaints), "")


def main(argv: list[str] | None = None):
    parser = Parser(description=__doc__)
    parser.add_argument("--pretrained", choices=tuple(STORED), default="minilm", help="whose real weights to check")
    with one_line_errors():
        args = parser.parse_args(argv)
        checks = {
            "BERT, one tiny layer done by hand": check_tiny_bert,
            "AdamW, the course's 1,000 steps": check_adamw,
            f"BERT, the real weights of {args.pretrained}": lambda: check_real_bert(args.pretrained),
        }
        status = 0
        for title, check in checks.items():
            try:
                complaint = check()
            except UserError as error:
                print(f"{title:45} not run: {error}")
                status = max(status, 2) if status != 1 else 1
                continue
            print(f"{title:45} {'WRONG: ' + complaint if complaint else 'passed'}")
            status = 1 if complaint else status
        sys.exit(status)


if __name__ == "__main__":
    main()
