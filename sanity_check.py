#!/usr/bin/env python3
"""Check a BERT project: is it right? If not: which mistake, in which method, and why?

  python sanity_check.py                                   this project, and the real weights of minilm (90 MB)
  python sanity_check.py --pretrained bert-base-uncased    the course's own check of BERT (440 MB)
  python sanity_check.py PATH                              somebody's project, in the course's layout or in ours
  python sanity_check.py PATH --part attention,layer       only these chapters of it
  python sanity_check.py PATH PATH ...                     a class: a table; --json for a program

Somebody's project is read, never changed: its code runs in a copy, in a process of its own, with a time limit. The
kernel (Linux since 5.13) or, elsewhere, a hook of Python keeps it from writing outside of that copy; it can read files.
Nothing is downloaded for it. Unwritten methods do not count as mistakes. minbert/sanity/ says how mistakes are found.
Exit status: 0 everything found is right, 1 something is wrong, 2 something could not be run or checked.
"""

import argparse
import math
import os
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minbert.errors import stop_early
from minbert.sanity.launch import Child

if __name__ == "__main__":
    stop_early()
if __name__ == "__main__" and not {"-h", "--help"} & set(sys.argv):
    CHILD = Child()  # it loads PyTorch while we load ours
else:
    CHILD = None

import numpy as np
import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError, one_line_errors
from minbert.optimizer import AdamW
from minbert.parser import Parser, at_least
from minbert.sanity import parts, report
from minbert.sanity.check import check

ROOT = Path(__file__).resolve().parent

# Outputs for the course's two sentences, by the `transformers` library (minilm) and by the course (bert-base-uncased).
# "hello world", padded, and "hello transformer …"; a few numbers of each tensor, and norms.
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
    """One layer of two heads, all matrices the identity, on two tokens and a pad, compared with numbers done by hand.

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
    """The real weights of `name` give the stored outputs, to the course's tolerance; the norms agree to 1e-5."""
    from minbert.pretrained import load_bert  # takes half a second, and a check of somebody's project needs none of it

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


def named_parts(text: str) -> list[str]:
    """The names of parts, from a list with commas, in the order of the check."""
    names = [name.strip().casefold() for name in text.split(",")]
    unknown = [name for name in names if name not in parts.NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no part; there are {', '.join(parts.NAMES)}")
    return [name for name in parts.NAMES if name in names]


def check_ours(pretrained: str) -> int:
    """Check this project alone: numbers done by hand, the course's, and real weights. Returns the exit status."""
    checks = {
        "BERT, one tiny layer done by hand": check_tiny_bert,
        "AdamW, the course's 1,000 steps": check_adamw,
        f"BERT, the real weights of {pretrained}": lambda: check_real_bert(pretrained),
    }
    status = 0
    for title, run in checks.items():
        try:
            complaint = run()
        except UserError as error:
            print(f"{title:45} not run: {error}")
            status = max(status, 2) if status != 1 else 1
            continue
        print(f"{title:45} {'WRONG: ' + complaint if complaint else 'passed'}")
        status = 1 if complaint else status
    return status


def check_projects(
    paths: Sequence[str], names: Sequence[str], timeout: float, child: Child, jobs: int = 1
) -> Iterator[dict]:
    """The result of `check` for each path, in order; a path that holds no project has an "error" instead of parts."""
    children: queue.Queue[Child] = queue.Queue()
    children.put(child)
    others = [Child() for _ in range(min(jobs, len(paths)) - 1)]
    for other in others:
        children.put(other)

    def checked(path: str) -> dict:
        mine = children.get()
        try:
            return check(path, mine, names, timeout)
        except (UserError, OSError) as error:
            return {"path": str(path), "parts": [], "error": str(error)}
        finally:
            children.put(mine)

    try:
        with ThreadPoolExecutor(max_workers=len(others) + 1) as pool:
            try:
                yield from pool.map(checked, paths)
            except BaseException:  # such as Ctrl-C; no thread may wait for an answer
                for each in (child, *others):
                    each.close()
                raise
    finally:
        for other in others:
            other.close()


def main(argv: list[str] | None = None, child: Child | None = None):
    parser = Parser(description=__doc__)
    parser.add_argument("path", nargs="*", help="projects to check: a folder, or a file in it (default: this one)")
    parser.add_argument("--part", type=named_parts, metavar="NAMES", help=f"only these, of {','.join(parts.NAMES)}")
    parser.add_argument("--json", action="store_true", help="a list of results for a program, one a project")
    parser.add_argument("--jobs", type=at_least(int, 1), help="projects at the same time (default: one a processor)")
    parser.add_argument("--timeout", type=at_least(float, 0, above=True), default=10.0, help="processor seconds a part")
    parser.add_argument("--pretrained", choices=tuple(STORED), help="whose real weights to check (default: minilm)")
    with one_line_errors():
        args = parser.parse_args(argv)
        if args.pretrained and args.path:
            parser.error("--pretrained is about this project's own weights; leave it out with a PATH")
        torch.set_num_threads(1)  # everything here is tiny
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal without √
        child = child or Child()
        try:
            status = show_projects(args, child)
        finally:
            child.close()
        if not args.path and not args.json and (args.pretrained or not args.part):
            print()
            ours = check_ours(args.pretrained or "minilm")
            status = 1 if 1 in (status, ours) else max(status, ours)
        sys.exit(status)


def show_projects(args: argparse.Namespace, child: Child) -> int:
    """Check the projects, print what was found as it comes, and return the exit status."""
    paths, names = args.path or [str(ROOT)], args.part or parts.NAMES
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    many = len(paths) > 1 and not args.json
    projects = []
    if many:
        print(report.table_head(paths, names), flush=True)
    for project in check_projects(paths, names, args.timeout, child, args.jobs or os.cpu_count() or 1):
        projects.append(project)
        if many:
            print(report.table_row(project, paths, names, colour), flush=True)
    if args.json:
        print(report.as_json(projects))
    elif many:
        print(report.table_notes(projects))
    elif "error" in projects[0]:
        print(f"error: {projects[0]['error']}", file=sys.stderr)
        return 2
    else:
        print(report.page(projects[0], colour, quiet_absent=args.part is None))
    return report.exit_status(projects)


if __name__ == "__main__":
    main(child=CHILD)
