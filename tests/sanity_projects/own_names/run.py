"""Train from the command line: python run.py --rate 0.2"""

import argparse

import torch.nn.functional as F
from src.training.adam import AdamW
from src.training.heads import MultitaskBERT


def main(flags, loaders):
    model = MultitaskBERT(rate=flags.rate, width=768)
    optimizer = AdamW(model.parameters(), lr=flags.lr, weight_decay=0.01)
    for _ in range(flags.epochs):
        model.train()
        for sst, para, sts in zip(*loaders):
            optimizer.zero_grad()
            loss = F.cross_entropy(model.predict_sentiment(*sst[:2]), sst[2])
            loss = loss + F.binary_cross_entropy_with_logits(model.predict_paraphrase(*para[:4]), para[4])
            loss = loss + F.mse_loss(model.predict_similarity(*sts[:4]), sts[4])
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--epochs", type=int, default=4)
    main(parser.parse_args(), ())
