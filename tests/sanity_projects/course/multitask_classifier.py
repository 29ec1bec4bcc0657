import argparse
import random
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from bert import BertModel
from datasets import SentenceClassificationDataset, SentencePairDataset, load_multitask_data
from evaluation import model_eval_multitask
from optimizer import AdamW
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

TQDM_DISABLE = False
BERT_HIDDEN_SIZE = 768
N_SENTIMENT_CLASSES = 5


def seed_everything(seed=11711):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class MultitaskBERT(nn.Module):
    """One BERT and a head for each of three tasks."""

    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        assert config.fine_tune_mode in ["last-linear-layer", "full-model"]
        for param in self.bert.parameters():
            param.requires_grad = config.fine_tune_mode == "full-model"
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.sentiment_classifier = nn.Linear(config.hidden_size, N_SENTIMENT_CLASSES)
        self.paraphrase_classifier = nn.Linear(3 * config.hidden_size, 1)

    def forward(self, input_ids, attention_mask):
        """The sentences' vectors."""
        return self.bert(input_ids, attention_mask)["pooler_output"]

    def predict_sentiment(self, input_ids, attention_mask):
        """Five logits a sentence."""
        return self.sentiment_classifier(self.dropout(self.forward(input_ids, attention_mask)))

    def predict_paraphrase(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        """A logit a pair; the loss adds the sigmoid."""
        u = self.forward(input_ids_1, attention_mask_1)
        v = self.forward(input_ids_2, attention_mask_2)
        features = torch.cat([u, v, torch.abs(u - v)], dim=-1)
        return self.paraphrase_classifier(self.dropout(features))

    def predict_similarity(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        """From 0, different, to 5, the same."""
        u = self.forward(input_ids_1, attention_mask_1)
        v = self.forward(input_ids_2, attention_mask_2)
        return 5 * F.cosine_similarity(u, v, dim=-1).unsqueeze(-1)


def pair_inputs(batch, device):
    return [batch[f"{name}_{i}"].to(device) for i in (1, 2) for name in ("token_ids", "attention_mask")]


def train_multitask(args):
    """Train MultitaskBERT: one task's data after the other's, every epoch."""
    device = torch.device("cuda") if args.use_gpu else torch.device("cpu")
    splits = {}
    for split in ("train", "dev"):
        files = [getattr(args, f"{task}_{split}") for task in ("sst", "para", "sts")]
        sst, num_labels, para, sts = load_multitask_data(*files, split=split)
        sets = [
            SentenceClassificationDataset(sst, args),
            SentencePairDataset(para, args),
            SentencePairDataset(sts, args, isRegression=True),
        ]
        splits[split] = [
            DataLoader(data, shuffle=split == "train", batch_size=args.batch_size, collate_fn=data.collate_fn)
            for data in sets
        ]

    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob,
        num_labels=num_labels,
        hidden_size=BERT_HIDDEN_SIZE,
        data_dir=".",
        fine_tune_mode=args.fine_tune_mode,
    )
    model = MultitaskBERT(config).to(device)
    optimizer = AdamW(model.parameters(), lr=args.lr)

    for epoch in range(args.epochs):
        model.train()
        sst_train, para_train, sts_train = splits["train"]
        for batch in tqdm(sst_train, desc=f"train-sst-{epoch}", disable=TQDM_DISABLE):
            optimizer.zero_grad()
            logits = model.predict_sentiment(batch["token_ids"].to(device), batch["attention_mask"].to(device))
            loss = F.cross_entropy(logits, batch["labels"].to(device).view(-1))
            loss.backward()
            optimizer.step()
        for batch in tqdm(para_train, desc=f"train-para-{epoch}", disable=TQDM_DISABLE):
            optimizer.zero_grad()
            logits = model.predict_paraphrase(*pair_inputs(batch, device)).view(-1)
            loss = F.binary_cross_entropy_with_logits(logits, batch["labels"].to(device).view(-1).float())
            loss.backward()
            optimizer.step()
        for batch in tqdm(sts_train, desc=f"train-sts-{epoch}", disable=TQDM_DISABLE):
            optimizer.zero_grad()
            scores = model.predict_similarity(*pair_inputs(batch, device)).view(-1)
            loss = F.mse_loss(scores, batch["labels"].to(device).view(-1).float())
            loss.backward()
            optimizer.step()
        print(model_eval_multitask(*splits["dev"], model, device))


def get_args():
    parser = argparse.ArgumentParser()
    for task, name in (("sst", "ids-sst"), ("para", "quora"), ("sts", "sts")):
        for split in ("train", "dev"):
            parser.add_argument(f"--{task}_{split}", default=f"data/{name}-{split}.csv")
    parser.add_argument("--seed", type=int, default=11711)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fine-tune-mode", choices=("last-linear-layer", "full-model"), default="last-linear-layer")
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--hidden_dropout_prob", type=float, default=0.3)
    parser.add_argument("--lr", type=float, default=1e-5)
    return parser.parse_args()


if __name__ == "__main__":
    args = get_args()
    seed_everything(args.seed)
    train_multitask(args)
