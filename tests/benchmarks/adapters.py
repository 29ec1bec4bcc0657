#!/usr/bin/env python3
"""What it costs to train additions instead of BERT: full, frozen, LoRA, PALs, low-rank layers; in turns, in one run.

    python tests/benchmarks/adapters.py --data DIR [--steps 10] [--batch_size 32]

For every way: the parameters that train, what their gradients and AdamW's two means hold, a training step (a batch of
each task in turn) and its ratio to full fine-tuning's, all with minilm. Then the answers: a plain BERT's forward pass
against a LoRA BERT's, not merged and merged.
"""

import statistics

import torch
from common import FILES, machine, parser, ratio, streams, take_turns

from minbert.lora import merge_lora
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pretrained import load_bert, load_tokenizer
from minbert.tasks import TASKS


def lora(rank: int, **more) -> dict:
    return {"lora": {"rank": rank, "alpha": 16.0, **more}}


WAYS = {
    "full": {},
    "frozen": {"freeze": True},
    "LoRA r = 2": lora(2),
    "LoRA r = 8": lora(8),
    "LoRA r = 32": lora(32),
    "LoRA r = 8, query and value": lora(8, targets=["query", "value"]),
    "PAL": {"adapter": {"adapter": "pal"}},
    "PAL, BERT frozen": {"adapter": {"adapter": "pal"}, "freeze": True},
    "low-rank": {"adapter": {"adapter": "low_rank"}},
    "low-rank, BERT frozen": {"adapter": {"adapter": "low_rank"}, "freeze": True},
}


def build(freeze: bool = False, **additions) -> MultitaskBert:
    model = MultitaskBert(load_bert("minilm"), FILES, additions=additions).train()
    if freeze:
        model.freeze_bert()
    return model


def main():
    args = parser(__doc__).parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = streams(args.data, load_tokenizer("minilm"), args.batch_size)
    optimizers = {}

    def trainer(way):
        model = build(**WAYS[way]).to(device)
        optimizer = optimizers[way] = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

        def run(batches):
            for batch in batches:
                optimizer.zero_grad()
                loss = TASKS[batch.task].loss(model(batch), batch.labels)
                if loss.requires_grad:  # not a frozen BERT's similarities: the cosine has no weights
                    loss.backward()
                    optimizer.step()

        return run

    print(f"{machine()}, batches of {args.batch_size}")
    draw = lambda: [stream.next().to(device) for stream in data.values()]  # noqa: E731
    seconds = take_turns({way: trainer(way) for way in WAYS}, draw, args.steps)

    def held(optimizer) -> int:
        """Bytes of the gradients and of AdamW's means."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        states = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        return sum(p.nbytes for p in parameters) + sum(t.nbytes for t in states)

    for way, times in seconds.items():
        trained = sum(p.numel() for group in optimizers[way].param_groups for p in group["params"])
        kept, whole = held(optimizers[way]), held(optimizers["full"])
        print(
            f"  {way:28} {trained:11,} trained   gradients and means {kept / 2**20:6.1f} MiB ({kept / whole:6.1%})"
            f"   {statistics.median(times) / len(FILES):.3f} s a step   {ratio(times, seconds['full']):.2f} x"
        )

    plain, beside, merged = build(), build(**lora(8)), build(**lora(8))
    merge_lora(merged.bert)

    def answers(model):
        model.eval().to(device)

        @torch.no_grad()
        def run(batches):
            for batch in batches:
                model(batch)

        return run

    ways = {"plain": answers(plain), "LoRA r = 8": answers(beside), "LoRA r = 8, merged": answers(merged)}
    seconds = take_turns(ways, draw, args.steps)
    print("answers")
    for way, times in seconds.items():
        print(
            f"  {way:28} {statistics.median(times) / len(FILES):.3f} s a batch   {ratio(times, seconds['plain']):.2f} x"
        )


if __name__ == "__main__":
    main()
