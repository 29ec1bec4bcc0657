"""The three tasks as a Lightning module; the Trainer runs the loop."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import wandb
from bert import BertModel
from optimizer import AdamW
from torch import nn


class MultitaskBERT(pl.LightningModule):
    def __init__(self, hparams):
        super().__init__()
        self.save_hyperparameters()
        self.lr = hparams["lr"]
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        width = self.bert.config.hidden_size
        self.dropout = nn.Dropout(hparams["dropout"])
        self.norm = nn.LayerNorm(width)
        self.sentiment = nn.Linear(width, 5)
        self.pair = nn.Bilinear(width, width, 1)
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, input_ids, attention_mask):
        return self.norm(self.dropout(self.bert(input_ids, attention_mask)["pooler_output"]))

    def predict_sentiment(self, input_ids, attention_mask):
        return self.sentiment(self(input_ids, attention_mask))

    def predict_paraphrase(self, ids1, mask1, ids2, mask2):
        return self.pair(self(ids1, mask1), self(ids2, mask2))

    def predict_similarity(self, ids1, mask1, ids2, mask2):
        return self.scale * F.cosine_similarity(self(ids1, mask1), self(ids2, mask2))

    def training_step(self, batches, step):
        sst, para, sts = batches["sst"], batches["para"], batches["sts"]
        loss = F.cross_entropy(self.predict_sentiment(sst["token_ids"], sst["attention_mask"]), sst["labels"])
        logits = self.predict_paraphrase(*self.two(para)).flatten()
        loss += F.binary_cross_entropy_with_logits(logits, para["labels"].float())
        loss += F.mse_loss(self.predict_similarity(*self.two(sts)), sts["labels"].float())
        self.log("loss", loss)
        wandb.log({"loss": loss.item()})
        return loss

    @staticmethod
    def two(batch):
        return [batch[f"{name}_{k}"] for k in (1, 2) for name in ("token_ids", "attention_mask")]

    def configure_optimizers(self):
        return AdamW(self.parameters(), lr=self.lr)


def main():
    wandb.init(project="minbert")
    model = MultitaskBERT({"lr": 1e-5, "dropout": 0.1})
    pl.Trainer(max_epochs=3, precision=16).fit(model)


if __name__ == "__main__":
    main()
