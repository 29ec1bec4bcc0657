"""What checkpoints cost: the seconds of a real epoch of SST, and of the saves in it at the default interval.

    python tests/benchmarks/checkpoints.py --data DATA [--pretrained minilm] [--steps 0]

Counts what `Run.save` takes (the weights, AdamW's means, every generator; written, hashed, brought to the disk) and
what writing the best model takes, against all that the epoch takes. --steps 0 is the whole epoch.
"""

import tempfile
import time
from pathlib import Path

from common import machine, parser

import multitask_classifier
from minbert.run import Run


def timed(function, seconds: list[float]):
    """`function`, which notes how long it takes."""

    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return result

    return wrapper


def main():
    flags = parser(__doc__, steps=0)
    flags.add_argument("--pretrained", default="minilm")
    args = flags.parse_args()
    saves, models, whole = [], [], []
    Run.save = timed(Run.save, saves)
    multitask_classifier.save_model = timed(multitask_classifier.save_model, models)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = timed(multitask_classifier.run, whole)
        steps = {"steps_per_epoch": args.steps} if args.steps else {}
        run(pretrained=args.pretrained, data=str(args.data), tasks="sst", option="finetune", epochs=1,
            batch_size=str(args.batch_size), out=str(Path(folder) / "run"), skip_predictions=True, **steps)  # fmt: skip
    total, cost = whole[0], sum(saves) + sum(models)
    print(f"\n{machine()}: {total:.0f} s an epoch with loading and evaluation; {len(saves)} checkpoints "
          f"{', '.join(f'{s:.2f}' for s in saves)} s, best model {', '.join(f'{s:.2f}' for s in models)} s: "
          f"{cost / (total - cost):.2%} of the rest")  # fmt: skip


if __name__ == "__main__":
    main()
