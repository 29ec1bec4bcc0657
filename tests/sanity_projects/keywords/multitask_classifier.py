"""Heads that are built and called by keyword; the flags are a global that the main block sets."""

import argparse
import json

import torch
import torch.nn.functional as F
from bert import BertModel
from tokenizer import BertTokenizer
from torch import nn

TOKENIZER = BertTokenizer.from_pretrained("bert-base-uncased", local_files_only=True)


class MultitaskBERT(nn.Module):
    def __init__(self, *, backbone, tokenizer, dropout_rate, hidden, pooling="mean"):
        super().__init__()
        self.backbone, self.tokenizer = backbone, tokenizer
        self.pad = tokenizer.pad_token_id
        assert pooling in ("mean", "cls"), pooling
        self.pooling = pooling
        self.drop = nn.Dropout(dropout_rate)
        sizes = {"sentiment": (768, 5), "paraphrase": (2 * 768, 1), "similarity": (2 * 768, 1)}
        self.heads = nn.ModuleDict(
            {k: nn.Sequential(nn.Linear(i, hidden), nn.GELU(), nn.Linear(hidden, o)) for k, (i, o) in sizes.items()}
        )

    def sentence(self, ids, mask):
        out = self.backbone(ids, attention_mask=mask)
        if self.pooling == "cls" or args.cls:
            return self.drop(out["pooler_output"])
        real = ids.ne(self.pad).unsqueeze(-1) & mask.bool().unsqueeze(-1)
        return self.drop((out["last_hidden_state"] * real).sum(1) / real.sum(1))

    def predict_sentiment(self, *, input_ids, attention_mask):
        return self.heads["sentiment"](self.sentence(input_ids, attention_mask))

    def pair(self, task, batch):
        u = self.sentence(batch["token_ids_1"], batch["attention_mask_1"])
        v = self.sentence(batch["token_ids_2"], batch["attention_mask_2"])
        return self.heads[task](torch.cat([u, v], dim=-1)).squeeze(-1)

    def predict_paraphrase(self, batch):
        return self.pair("paraphrase", batch)

    def predict_similarity(self, batch):
        return self.pair("similarity", batch)


def train_multitask(loaders):
    backbone = BertModel.from_pretrained("bert-base-uncased")
    model = MultitaskBERT(
        backbone=backbone, tokenizer=TOKENIZER, dropout_rate=args.hidden_dropout_prob, hidden=args.hidden
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    for _ in range(args.epochs):
        model.train()
        for sst_batch, para_batch, sts_batch in zip(*loaders):
            optimizer.zero_grad()
            logits = model.predict_sentiment(
                input_ids=sst_batch["token_ids"], attention_mask=sst_batch["attention_mask"]
            )
            loss = F.cross_entropy(logits, sst_batch["labels"])
            loss += F.binary_cross_entropy_with_logits(model.predict_paraphrase(para_batch), para_batch["labels"])
            loss += F.mse_loss(model.predict_similarity(sts_batch), sts_batch["labels"].float())
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", required=True)
    parser.add_argument("--cls", action="store_true")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--hidden_dropout_prob", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-5)
    args = parser.parse_args()
    with open(args.settings, encoding="utf-8") as file:
        parser.set_defaults(**json.load(file))
    args = parser.parse_args()
    train_multitask(())
