#!/usr/bin/env python3
"""How smooth did a model become? The mean divergence ℓ_s between its dev answers on clean and on worst-case embeddings.

    python tests/benchmarks/smoothness.py --data DIR OUT [OUT ...] [--epsilon 1e-2] [--ascent 5] [--limit 1000]

OUT are folders of multitask_classifier.py's runs. The worst case within ε is looked for by steps of gradient ascent
from a random point, the same for every model. For each task: the mean, and the share of dev answers that it changes
(another class, another side of ½; for similarities, the mean change on the scale to 5).
"""

import torch
from common import FILES, machine, parser, read

from minbert.checkpoint import load_model
from minbert.data import eval_batches
from minbert.smart import exact, smoothness


def worst(model, data, epsilon: float, steps: int) -> tuple[float, float]:
    """Mean ℓ_s, and how much the predictions change, over a dev set."""
    divergences, changes = [], []
    task, random = data.task, torch.Generator().manual_seed(0)
    for batch in eval_batches(data):
        with torch.no_grad():
            x = model.embed(batch)
            clean = model.logits(batch, x)
            found = smoothness(model, x, task.divergence, lambda x, batch=batch: model.logits(batch, x), clean=clean,
                               mask=batch.attention_mask, epsilon=epsilon, steps=steps, generator=random)  # fmt: skip
            moved = model.logits(batch, x + found.delta)
        divergences.append(task.divergence(moved, clean))
        difference = torch.as_tensor(task.predict(moved)) - torch.as_tensor(task.predict(clean))
        changes.append(difference.abs() if task.score_name == "Pearson r" else (difference != 0).float())
    return torch.cat(divergences).mean().item(), torch.cat(changes).mean().item()


def main():
    flags = parser(__doc__)
    flags.add_argument("out", nargs="+", help="folders of runs")
    flags.add_argument("--epsilon", type=float, nargs="+", default=[1e-5, 1e-2])
    flags.add_argument("--ascent", type=int, default=5, help="steps of the search")
    flags.add_argument("--limit", type=int, default=1000, help="dev examples of each task")
    args = flags.parse_args()
    print(f"{machine()}; ℓ_s on dev, mean (and change of the answers)")
    for out in args.out:
        model, tokenizer = load_model(f"{out}/best")
        for epsilon in args.epsilon:
            cells = []
            for task in FILES:
                data = read(args.data, task, "dev", tokenizer, args.limit, model.pairs[task])
                with exact(model):
                    cells.append("{} {:.2e} ({:.3f})".format(task, *worst(model, data, epsilon, args.ascent)))
            print(f"{out:24} ε = {epsilon:.0e}   {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
