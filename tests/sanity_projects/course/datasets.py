"""The three tasks' files as data sets that a DataLoader can batch."""

import csv

import torch
from tokenizer import BertTokenizer
from torch.utils.data import Dataset


def preprocess_string(s):
    return " ".join(s.lower().replace(".", " .").replace("?", " ?").replace(",", " ,").replace("'", " '").split())


class SentenceClassificationDataset(Dataset):
    def __init__(self, dataset, args):
        self.dataset = dataset
        self.p = args
        self.tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, idx):
        return self.dataset[idx]

    def pad_data(self, data):
        sents, labels, sent_ids = ([x[i] for x in data] for i in range(3))
        encoding = self.tokenizer(sents, padding=True, truncation=True)
        token_ids = torch.LongTensor(encoding["input_ids"])
        attention_mask = torch.LongTensor(encoding["attention_mask"])
        return token_ids, attention_mask, torch.LongTensor(labels), sents, sent_ids

    def collate_fn(self, all_data):
        token_ids, attention_mask, labels, sents, sent_ids = self.pad_data(all_data)
        return {
            "token_ids": token_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "sents": sents,
            "sent_ids": sent_ids,
        }


class SentencePairDataset(Dataset):
    def __init__(self, dataset, args, isRegression=False):
        self.dataset = dataset
        self.p = args
        self.isRegression = isRegression
        self.tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, idx):
        return self.dataset[idx]

    def pad_data(self, data):
        sent1, sent2, labels, sent_ids = ([x[i] for x in data] for i in range(4))
        first = self.tokenizer(sent1, padding=True, truncation=True)
        second = self.tokenizer(sent2, padding=True, truncation=True)
        labels = torch.DoubleTensor(labels) if self.isRegression else torch.LongTensor(labels)
        tensors = [torch.LongTensor(x[key]) for x in (first, second) for key in ("input_ids", "attention_mask")]
        return (*tensors, labels, sent_ids)

    def collate_fn(self, all_data):
        token_ids, attention_mask, token_ids2, attention_mask2, labels, sent_ids = self.pad_data(all_data)
        return {
            "token_ids_1": token_ids,
            "attention_mask_1": attention_mask,
            "token_ids_2": token_ids2,
            "attention_mask_2": attention_mask2,
            "labels": labels,
            "sent_ids": sent_ids,
        }


def read_rows(filename):
    with open(filename, encoding="utf-8") as fp:
        yield from csv.DictReader(fp, delimiter="\t")


def load_multitask_data(sentiment_filename, paraphrase_filename, similarity_filename, split="train"):
    """Lists of (sentence, label, id) or (sentence, sentence, label, id), and the number of sentiment labels."""
    labels = {}
    sentiment_data = []
    for record in read_rows(sentiment_filename):
        label = int(record["sentiment"].strip())
        labels.setdefault(label, len(labels))
        sentiment_data.append((record["sentence"].lower().strip(), label, record["id"].lower().strip()))

    def pairs(filename, column, kind):
        return [
            (
                preprocess_string(record["sentence1"]),
                preprocess_string(record["sentence2"]),
                kind(record[column]),
                record["id"].lower().strip(),
            )
            for record in read_rows(filename)
        ]

    paraphrase_data = pairs(paraphrase_filename, "is_duplicate", lambda x: int(float(x)))
    similarity_data = pairs(similarity_filename, "similarity", float)
    return sentiment_data, len(labels), paraphrase_data, similarity_data
