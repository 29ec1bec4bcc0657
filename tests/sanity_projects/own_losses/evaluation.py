"""Scores on the dev sets; a paraphrase has two logits, and similarity is bent as in training."""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score


def model_eval_sst(dataloader, model, device):
    model.eval()
    true, predicted, ids = [], [], []
    for batch in dataloader:
        with torch.inference_mode():
            logits = model(batch["token_ids"].to(device), batch["attention_mask"].to(device))
        predicted += logits.argmax(-1).tolist()
        true += batch["labels"].tolist()
        ids += batch["sent_ids"]
    return accuracy_score(true, predicted), f1_score(true, predicted, average="macro"), predicted, true, [], ids


def pairs(dataloader, method, device):
    outputs, ids, labels = [], [], []
    for batch in dataloader:
        inputs = [batch[f"{x}_{i}"].to(device) for i in "12" for x in ("token_ids", "attention_mask")]
        outputs.append(method(*inputs))
        ids.extend(batch["sent_ids"])
        labels.extend(batch["labels"].tolist())
    return torch.cat(outputs), ids, labels


def model_eval_multitask(sentiment_dataloader, paraphrase_dataloader, sts_dataloader, model, device, verbose=False):
    model.eval()
    with torch.no_grad():
        logits, para_ids, para_true = pairs(paraphrase_dataloader, model.predict_paraphrase, device)
        para = logits.softmax(dim=1)[:, 1].gt(0.5).long().tolist()
        raw, sts_ids, sts_true = pairs(sts_dataloader, model.predict_similarity, device)
        sts = (5 * torch.sigmoid(raw)).flatten().tolist()
        sst, sst_ids, sst_true = [], [], []
        for batch in sentiment_dataloader:
            sst += (
                model.predict_sentiment(batch["token_ids"].to(device), batch["attention_mask"].to(device))
                .argmax(1)
                .tolist()
            )
            sst_ids += batch["sent_ids"]
            sst_true += batch["labels"].tolist()
    if verbose:
        print(f1_score(para_true, para))
    return (
        accuracy_score(para_true, para), para, para_ids,
        accuracy_score(sst_true, sst), sst, sst_ids,
        np.corrcoef(sts, sts_true)[1][0], sts, sts_ids,
    )  # fmt: skip
