"""Sentences, and pairs that BERT reads as one row: [CLS] first [SEP] second [SEP]."""

import csv

import torch
from tokenizer import BertTokenizer
from torch.utils.data import Dataset

tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")


class RowDataset(Dataset):
    """Rows of (text, …, label, id); without a label where the split is "test"."""

    texts = 1

    def __init__(self, rows, args, split="train", real_labels=False):
        self.rows, self.args, self.split, self.real_labels = rows, args, split, real_labels

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]

    def encode(self, rows):
        columns = list(zip(*rows))
        encoding = tokenizer(*[list(c) for c in columns[: self.texts]], return_tensors="pt", padding=True)
        return {
            "token_ids": encoding["input_ids"],
            "token_type_ids": encoding["token_type_ids"],
            "attention_mask": encoding["attention_mask"],
            "sents": list(columns[0]),
            "sent_ids": list(columns[-1]),
        }

    def collate_fn(self, rows):
        batch = self.encode(rows)
        if self.split != "test":
            labels = [row[-2] for row in rows]
            batch["labels"] = torch.tensor(labels, dtype=torch.float if self.real_labels else torch.long)
        return batch


class JointPairDataset(RowDataset):
    texts = 2


def load_multitask_data(sentiment_filename, paraphrase_filename, similarity_filename, split="train"):
    def read(filename, names, label, convert):
        with open(filename, encoding="utf-8") as file:
            for record in csv.DictReader(file, delimiter="\t"):
                texts = [record[name].lower().strip() for name in names]
                yield (*texts, *([] if split == "test" else [convert(record[label])]), record["id"].strip())

    pair = ("sentence1", "sentence2")
    return (
        list(read(sentiment_filename, ("sentence",), "sentiment", int)),
        {label: label for label in range(5)},
        list(read(paraphrase_filename, pair, "is_duplicate", lambda text: int(float(text)))),
        list(read(similarity_filename, pair, "similarity", float)),
    )
