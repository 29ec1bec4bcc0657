"""Dev scores and predictions of a cross-encoder."""

import numpy as np
import torch
from datasets import JointPairDataset, RowDataset, load_multitask_data
from scipy.stats import pearsonr
from torch.utils.data import DataLoader


@torch.no_grad()
def outputs(loader, predict, device, names):
    values, ids, labels = [], [], []
    for batch in loader:
        values.append(predict(*[batch[name].to(device) for name in names]).cpu())
        ids += batch["sent_ids"]
        labels += batch["labels"].tolist() if "labels" in batch else []
    return torch.cat(values), ids, np.array(labels)


SINGLE, PAIR = ("token_ids", "attention_mask"), ("token_ids", "attention_mask", "token_type_ids")


def predict_all(sst, para, sts, model, device):
    model.eval()
    x, sst_ids, sst_y = outputs(sst, model.predict_sentiment, device, SINGLE)
    y, para_ids, para_y = outputs(para, model.predict_paraphrase, device, PAIR)
    z, sts_ids, sts_y = outputs(sts, model.predict_similarity, device, PAIR)
    sst_pred = x.argmax(dim=1).numpy()
    para_pred = (y.view(-1).sigmoid() > 0.5).int().numpy()
    return (sst_pred, sst_ids, sst_y), (para_pred, para_ids, para_y), (z.view(-1).numpy(), sts_ids, sts_y)


def model_eval_multitask(sentiment_dataloader, paraphrase_dataloader, sts_dataloader, model, device):
    sst, para, sts = predict_all(sentiment_dataloader, paraphrase_dataloader, sts_dataloader, model, device)
    return (
        (para[0] == para[2]).mean(), list(para[0]), para[1],
        (sst[0] == sst[2]).mean(), list(sst[0]), sst[1],
        pearsonr(sts[0], sts[2])[0], list(sts[0]), sts[1],
    )  # fmt: skip


def test_model_multitask(args, model, device):
    for split in ("dev", "test"):
        files = [getattr(args, f"{task}_{split}") for task in ("sst", "para", "sts")]
        sst, _, para, sts = load_multitask_data(*files, split=split)
        sets = [
            RowDataset(sst, args, split),
            JointPairDataset(para, args, split),
            JointPairDataset(sts, args, split, True),
        ]
        loaders = [DataLoader(d, args.batch_size, collate_fn=d.collate_fn) for d in sets]
        heads = ("Predicted_Sentiment", "Predicted_Is_Paraphrase", "Predicted_Similiary")
        for task, head, (values, ids, _) in zip(("sst", "para", "sts"), heads, predict_all(*loaders, model, device)):
            with open(getattr(args, f"{task}_{split}_out"), "w") as file:
                file.write(f"id \t {head} \n")
                file.writelines(f"{i} , {v} \n" for i, v in zip(ids, values))


def model_eval_sst(dataloader, model, device):
    model.eval()
    x, ids, labels = outputs(dataloader, model, device, SINGLE)
    predicted = x.argmax(dim=1).tolist()
    return float(np.mean(predicted == labels)), predicted, labels.tolist(), [], ids
