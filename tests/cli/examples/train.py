"""A whole run from Python: every flag is a keyword."""

from multitask_classifier import run

scores = run(pretrained="minilm", data="data/sample", option="finetune", epochs=1, limit=8, out="runs/python")
print(scores)
