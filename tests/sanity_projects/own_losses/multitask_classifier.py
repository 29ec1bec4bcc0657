"""Two logits for a paraphrase, log-probabilities for sentiment, and a similarity that the loss bends."""

import argparse
from types import SimpleNamespace

import torch
from bert import BertModel
from optimizer import AdamW
from torch import nn

MAX_STS = 5.0


class MultitaskBERT(nn.Module):
    def __init__(self, config, args):
        super().__init__()
        self.bert = BertModel.from_pretrained(args.model_name)
        if args.freeze:
            self.bert.requires_grad_(False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.sst = nn.Linear(config.hidden_size, len(config.num_labels))
        self.para = nn.Linear(config.hidden_size * 3, 2)
        self.sts = nn.Linear(config.hidden_size * 3, 1)
        self.log_softmax = nn.LogSoftmax(dim=-1)

    def forward(self, input_ids, attention_mask):
        return self.dropout(self.bert(input_ids, attention_mask)["pooler_output"])

    def features(self, a, b):
        return torch.cat([a, b, (a - b).abs()], dim=1)

    def predict_sentiment(self, input_ids, attention_mask):
        return self.log_softmax(self.sst(self.forward(input_ids, attention_mask)))

    def predict_paraphrase(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        a, b = self.forward(input_ids_1, attention_mask_1), self.forward(input_ids_2, attention_mask_2)
        return self.para(self.features(a, b))

    def predict_similarity(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        a, b = self.forward(input_ids_1, attention_mask_1), self.forward(input_ids_2, attention_mask_2)
        return self.sts(self.features(a, b))


def train_multitask(args, loaders):
    device = torch.device("cuda") if args.use_gpu else torch.device("cpu")
    config = {"hidden_dropout_prob": args.hidden_dropout_prob, "hidden_size": 768}
    config["num_labels"] = {i: i for i in range(5)}
    model = MultitaskBERT(SimpleNamespace(**config), args).to(device)
    optimizer = AdamW(model.parameters(), lr=args.lr)
    nll, ce, mse = nn.NLLLoss(), nn.CrossEntropyLoss(), nn.MSELoss()
    for _ in range(args.epochs):
        model.train()
        for sst, para, sts in zip(*loaders):
            log_p = model.predict_sentiment(sst["token_ids"].to(device), sst["attention_mask"].to(device))
            pair = [b[k].to(device) for b in (para,) for k in args.keys]
            logits = model.predict_paraphrase(*pair)
            raw = model.predict_similarity(*[sts[k].to(device) for k in args.keys])
            score = MAX_STS * torch.sigmoid(raw).view(-1)
            loss = nll(log_p, sst["labels"].to(device)) + ce(logits, para["labels"].to(device))
            loss = loss + mse(score, sts["labels"].to(device))
            for p in model.parameters():
                p.grad = None
            loss.backward()
            optimizer.step()


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name", default="bert-base-uncased")
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--hidden_dropout_prob", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument(
        "--keys", nargs="+", default=["token_ids_1", "attention_mask_1", "token_ids_2", "attention_mask_2"]
    )
    return parser.parse_args()


if __name__ == "__main__":
    args = get_args()
    train_multitask(args, ())
