"""Run folders written by hand, as a training script would leave them, and pages read back with the standard library."""

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

DATA = {f"{task}/{split}": f"{task}{split}" * 4 for task in ("sst", "para", "sts") for split in ("train", "dev")}

# (id, texts, label, prediction, raw outputs). Of SST 3 of 6 are right, of Quora 3 of 4.
ROWS = {
    "sst": [
        ("s1", ["A bore ."], 0, 0, [4, 0, 0, 0, 0]),
        ("s2", ["Dull ."], 0, 1, [0, 2, 0, 0, 0]),
        ("s3", ["Not bad ."], 1, 1, [0, 1, 0, 0, 0]),
        ("s4", ["It is a film ."], 2, 1, [0, 3, 0, 0, 0]),
        ("s5", ["Fine ."], 3, 4, [0, 0, 0, 0, 6]),
        ("s6", ["Superb ."], 4, 4, [0, 0, 0, 0, 5]),
    ],
    "para": [
        ("p1", ["How do I swim?", "How can I swim?"], 1, 1, [2.0]),
        ("p2", ["Why is it blue?", "Who is he?"], 0, 0, [-3.0]),
        ("p3", ["What is tea?", "What is coffee?"], 0, 1, [1.0]),
        ("p4", ["Is it far?", "Is it near?"], 0, 0, [-1.0]),
    ],
    "sts": [
        ("t1", ["A man runs.", "A dog eats."], 0.0, 1.0, [1.0]),
        ("t2", ["A man runs.", "A man eats."], 1.0, 2.0, [2.0]),
        ("t3", ["A man runs.", "A man walks."], 4.0, 3.0, [3.0]),
        ("t4", ["A man runs.", "A man is running."], 5.0, 6.0, [6.0]),
    ],
}
SCORES = {"sst": 0.5, "para": 0.75, "sts": 14 / (17 * 14) ** 0.5}  # r: Σxy/√(Σx²Σy²) of the deviations
OVERALL = (SCORES["sst"] + SCORES["para"] + (SCORES["sts"] + 1) / 2) / 3


def line(epoch: int, **values) -> dict[str, Any]:
    """A line of metrics.jsonl; epoch 2 has the scores of ROWS, and is the best."""
    dev = SCORES if epoch == 2 else {"sst": 0.2 + epoch / 10, "para": 0.5, "sts": 0.25 * epoch}
    result: dict[str, Any] = {"epoch": epoch, "dev": dev, "peak_memory_gib": 1.25 + epoch / 4}
    result["overall"] = OVERALL if epoch == 2 else (dev["sst"] + dev["para"] + (dev["sts"] + 1) / 2) / 3
    if epoch:
        result |= {
            "loss": {"sst": 1.5 / epoch, "para": 0.7 / epoch, "sts": 0.1 / epoch},
            "train": {"sst": 0.3 * epoch, "para": 0.3 * epoch, "sts": 0.3 * epoch},
            "smart": {"sst": {"before": 1e-7 * epoch, "after": 4e-7 * epoch, "max_delta": 1e-5}},
            "cosines": {"sst,para": 0.125 * epoch, "sst,sts": -0.25 * epoch, "para,sts": 0.0},
            "batches": {"sst": 10, "para": 30, "sts": 10 * epoch}, "seconds": 30.0 * epoch,
            "examples_per_second": 12.5, "best": epoch == 2, "lr": 1.5e-5 / epoch,
        }  # fmt: skip
    return result | values


def description(**values) -> dict[str, Any]:
    """run.json of a run with the seed 7 and two flags that are not the default."""
    flags = {"lr": 2e-5, "epochs": 3, "seed": 7, "smart": 1.0, "out": "runs/x", "batch_size": 8, "combine": "pcgrad",
             "warmup": 0.25, "lr_decay": "linear", "head_lr": 1e-3}  # fmt: skip
    return {
        "command": "multitask_classifier.py --lr 2e-5 --smart 1", "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:14:05+00:00", "script": "multitask_classifier.py", "seed": 7,
        "changed": {"lr": 2e-5, "smart": 1.0, "mode": "full-model"},
        "flags": flags, "plan": {"files": {}, "limit": {}}, "weights": {"name": "minilm", "x.safetensors": "5" * 64},
        "data": DATA, "versions": {"python": "3.11.9", "torch": "2.6.0"}, "machine": {"cores": 2},
    } | values  # fmt: skip


def write_run(folder: Path, run: dict | None = None, lines: list | None = None, rows: dict | None = None) -> Path:
    """A run's folder; three epochs of which the second is kept, unless said otherwise."""
    (folder / "outputs").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(description() if run is None else run))
    lines = [line(epoch) for epoch in range(4)] if lines is None else lines
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for task, answers in (ROWS if rows is None else rows).items():
        names = ("id", "texts", "label", "prediction", "outputs")
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in answers)
        (folder / "outputs" / f"{task}-dev.jsonl").write_text(text)
    return folder


def with_flags(seed: int = 7, **flags) -> dict[str, Any]:
    """run.json with other values of some flags, and another seed."""
    run = description(seed=seed)
    return run | {"flags": run["flags"] | flags | {"seed": seed}}


# ------------------------------------------------------------------------------------------------ pages


@dataclass
class Seen(HTMLParser):
    """A page as the standard library reads it: its tables by their names, its elements, its text."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    elements: list[tuple[str, dict]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__()
        self.rows = self.cell = None

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.rows = self.tables[dict(attrs)["aria-label"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data
        elif self.elements and self.elements[-1][0] not in ("style", "title"):
            self.text += data

    def column(self, table: str, head: str) -> dict[str, str]:
        """A table's column by its heading: the first cell of each row → the cell."""
        first, *rows = self.tables[table]
        return {row[0]: row[first.index(head)] for row in rows}


def see(path: Path) -> Seen:
    seen = Seen()
    seen.feed(path.read_text("utf-8"))
    seen.text = re.sub(r"\s+", " ", seen.text)
    return seen
