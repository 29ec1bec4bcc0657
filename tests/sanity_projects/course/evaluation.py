"""Scores of the three tasks, and their predictions."""

import numpy as np
import torch
from sklearn.metrics import accuracy_score
from tqdm import tqdm

TQDM_DISABLE = False


def model_eval_sst(dataloader, model, device):
    """Accuracy, predictions, labels, sentences and ids of single sentences."""
    model.eval()
    y_true, y_pred, sents, sent_ids = [], [], [], []
    with torch.no_grad():
        for batch in tqdm(dataloader, desc="eval", disable=TQDM_DISABLE):
            b_ids, b_mask = batch["token_ids"].to(device), batch["attention_mask"].to(device)
            logits = model(b_ids, b_mask).detach().cpu().numpy()
            y_true.extend(batch["labels"].flatten().tolist())
            y_pred.extend(np.argmax(logits, axis=1).flatten())
            sents.extend(batch["sents"])
            sent_ids.extend(batch["sent_ids"])
    return accuracy_score(y_true, y_pred), y_pred, y_true, sents, sent_ids


def predict_pairs(dataloader, predict, device):
    """Outputs, labels and ids of sentence pairs."""
    outputs, labels, ids = [], [], []
    for batch in tqdm(dataloader, desc="eval", disable=TQDM_DISABLE):
        tensors = [batch[f"{name}_{i}"].to(device) for i in (1, 2) for name in ("token_ids", "attention_mask")]
        outputs.extend(predict(*tensors).flatten().cpu().numpy())
        labels.extend(batch["labels"].flatten().tolist())
        ids.extend(batch["sent_ids"])
    return outputs, labels, ids


def model_eval_multitask(sentiment_dataloader, paraphrase_dataloader, sts_dataloader, model, device):
    """Accuracy, predictions and ids of sentiment and paraphrase; Pearson's r, predictions and ids of similarity."""
    model.eval()
    with torch.no_grad():
        para_logits, para_y_true, para_sent_ids = predict_pairs(paraphrase_dataloader, model.predict_paraphrase, device)
        para_y_pred = [float(logit > 0) for logit in para_logits]
        paraphrase_accuracy = np.mean(np.array(para_y_pred) == np.array(para_y_true))

        sts_y_pred, sts_y_true, sts_sent_ids = predict_pairs(sts_dataloader, model.predict_similarity, device)
        sts_corr = np.corrcoef(sts_y_pred, sts_y_true)[1][0]

        sst_y_true, sst_y_pred, sst_sent_ids = [], [], []
        for batch in tqdm(sentiment_dataloader, desc="eval", disable=TQDM_DISABLE):
            b_ids, b_mask = batch["token_ids"].to(device), batch["attention_mask"].to(device)
            logits = model.predict_sentiment(b_ids, b_mask)
            sst_y_pred.extend(logits.argmax(dim=-1).flatten().cpu().numpy())
            sst_y_true.extend(batch["labels"].flatten().tolist())
            sst_sent_ids.extend(batch["sent_ids"])
        sentiment_accuracy = np.mean(np.array(sst_y_pred) == np.array(sst_y_true))

    return (
        sentiment_accuracy, sst_y_pred, sst_sent_ids,
        paraphrase_accuracy, para_y_pred, para_sent_ids,
        sts_corr, sts_y_pred, sts_sent_ids,
    )  # fmt: skip
