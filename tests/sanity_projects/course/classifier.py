import argparse
import random
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from bert import BertModel
from evaluation import model_eval_sst
from optimizer import AdamW
from sklearn.metrics import f1_score
from tqdm import tqdm


def seed_everything(seed=11711):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class BertSentimentClassifier(torch.nn.Module):
    """The first token's vector, dropout, a linear layer to num_labels logits."""

    def __init__(self, config):
        super().__init__()
        self.num_labels = config.num_labels
        self.bert = BertModel.from_pretrained("bert-base-uncased")

        for param in self.bert.parameters():
            param.requires_grad = config.option == "finetune"

        self.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids, attention_mask):
        pooled = self.bert(input_ids, attention_mask)["pooler_output"]
        return self.classifier(self.dropout(pooled))


def train(args, train_dataloader, dev_dataloader, num_labels):
    device = torch.device("cuda") if args.use_gpu else torch.device("cpu")
    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob, num_labels=num_labels, hidden_size=768, option=args.option
    )
    model = BertSentimentClassifier(config).to(device)
    optimizer = AdamW(model.parameters(), lr=args.lr)
    best_dev_acc = 0

    for epoch in range(args.epochs):
        model.train()
        for batch in tqdm(train_dataloader, desc=f"train-{epoch}"):
            b_ids, b_mask = batch["token_ids"].to(device), batch["attention_mask"].to(device)
            optimizer.zero_grad()
            logits = model(b_ids, b_mask)
            loss = F.cross_entropy(logits, batch["labels"].to(device).view(-1))
            loss.backward()
            optimizer.step()
        dev_acc, dev_pred, dev_true, *_ = model_eval_sst(dev_dataloader, model, device)
        print(f"epoch {epoch}: dev acc {dev_acc:.3f}, f1 {f1_score(dev_true, dev_pred, average='macro'):.3f}")
        if dev_acc > best_dev_acc:
            best_dev_acc = dev_acc
            torch.save({"model": model.state_dict(), "args": args}, args.filepath)


def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=11711)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--option", choices=("pretrain", "finetune"), default="pretrain")
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--hidden_dropout_prob", type=float, default=0.3)
    parser.add_argument("--lr", type=float, default=1e-3)
    return parser.parse_args()


if __name__ == "__main__":
    seed_everything(get_args().seed)
