"""A cross-encoder: BERT reads both sentences of a pair at once."""

import argparse
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from bert import BertModel
from datasets import JointPairDataset, RowDataset, load_multitask_data
from optimizer import AdamW
from torch import nn
from torch.utils.data import DataLoader


class MultitaskBERT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        for param in self.bert.parameters():
            param.requires_grad = config.option == "finetune"
        self.drop = nn.Dropout(config.hidden_dropout_prob)
        self.sentiment_head = nn.Linear(config.hidden_size, config.num_labels)
        self.paraphrase_head = nn.Sequential(
            nn.Linear(config.hidden_size, config.pair_width), nn.ReLU(), nn.Linear(config.pair_width, 1)
        )
        self.similarity_head = nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids, attention_mask):
        return self.drop(self.bert(input_ids, attention_mask)["pooler_output"])

    def predict_sentiment(self, input_ids, attention_mask):
        return self.sentiment_head(self(input_ids, attention_mask))

    def predict_paraphrase(self, input_ids, attention_mask, token_type_ids):
        return self.paraphrase_head(self(input_ids, attention_mask))

    def predict_similarity(self, input_ids, attention_mask, token_type_ids):
        return 5 * torch.sigmoid(self.similarity_head(self(input_ids, attention_mask)))


def train_multitask(args):
    device = torch.device("cuda" if args.use_gpu else "cpu")
    sst, num_labels, para, sts = load_multitask_data(args.sst_train, args.para_train, args.sts_train)
    sets = {
        "sst": RowDataset(sst, args),
        "para": JointPairDataset(para, args),
        "sts": JointPairDataset(sts, args, real_labels=True),
    }
    loaders = {k: DataLoader(d, args.batch_size, shuffle=True, collate_fn=d.collate_fn) for k, d in sets.items()}
    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob, hidden_size=768, option=args.option,
        num_labels=len(num_labels), pair_width=args.pair_width,
    )  # fmt: skip
    model = MultitaskBERT(config).to(device)
    optimizer = AdamW(model.parameters(), lr=args.lr)
    for _ in range(args.epochs):
        model.train()
        for task, loader in loaders.items():
            for batch in loader:
                ids, mask = batch["token_ids"].to(device), batch["attention_mask"].to(device)
                types, labels = batch["token_type_ids"].to(device), batch["labels"].to(device)
                optimizer.zero_grad()
                if task == "sst":
                    loss = F.cross_entropy(model.predict_sentiment(ids, mask), labels)
                elif task == "para":
                    logits = model.predict_paraphrase(ids, mask, types)
                    loss = F.binary_cross_entropy_with_logits(logits.squeeze(-1), labels.float())
                else:
                    loss = F.mse_loss(model.predict_similarity(ids, mask, types).squeeze(-1), labels)
                loss.backward()
                optimizer.step()


def get_args():
    parser = argparse.ArgumentParser()
    for task in ("sst", "para", "sts"):
        for split in ("train", "dev", "test"):
            parser.add_argument(f"--{task}_{split}", default=f"data/{task}-{split}.csv")
            parser.add_argument(f"--{task}_{split}_out", default=f"predictions/{task}-{split}.csv")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--option", choices=("pretrain", "finetune"), default="finetune")
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--hidden_dropout_prob", type=float, default=0.1)
    parser.add_argument("--pair_width", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-5)
    return parser.parse_args()


if __name__ == "__main__":
    train_multitask(get_args())
