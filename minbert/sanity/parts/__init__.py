"""The parts of the check, one file each, in the order in which a student writes the code.

Every file defines `PART`. `load` imports them by name; `NAMES` is the order.
"""

import importlib

NAMES = (
    "attention", "layer", "embeddings", "model", "optimizer",
    "heads", "evaluation", "pcgrad", "smart", "lora", "pals",
)  # fmt: skip


def load(name: str):
    """The `core.Part` of that name."""
    return importlib.import_module(f"minbert.sanity.parts.{name}").PART
