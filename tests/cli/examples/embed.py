"""Sentence vectors from the best model of a run."""

import sys

from minbert.checkpoint import load_model

model, tokenizer = load_model(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart/best")
tokens = tokenizer(["A film to remember.", "It rains."], padding=True, return_tensors="pt")
print(model.eval().bert(**tokens)["pooler_output"].shape)
