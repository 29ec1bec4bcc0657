"""Data and results in forms of a team's own: what the course's interface does not fix gets no complaint."""

import pytest

from minbert.sanity.losses import EVERY, KL
from minbert.sanity.returned import returned
from minbert.sanity.rows import CLASSES, LABELS, ids_of
from tests.sanity.making import changed, complaints, example, swap, verdicts

COURSE = example("course")
TUPLES = "sent1, sent2, labels, sent_ids = ([x[i] for x in data] for i in range(4))"
DICTS = """sent1, sent2 = [x["first"] for x in data], [x["second"] for x in data]
        labels, sent_ids = [x["label"] for x in data], [x["id"] for x in data]"""
ITEM = "return self.dataset[idx]\n\n    def pad_data(self, data):\n        "
AS_DICT = f'return dict(zip(("first", "second", "label", "id"), self.dataset[idx]))\n\n{ITEM.partition(chr(10) * 2)[2]}'
ROW = """            (
                preprocess_string(record["sentence1"]),
                preprocess_string(record["sentence2"]),
                kind(record[column]),
                record["id"].lower().strip(),
            )
"""
DICT_ROW = """            {
                "first": record["sentence1"],
                "second": record["sentence2"],
                "label": kind(record[column]),
                "id": record["id"].strip(),
            }
"""
RETURN = COURSE["evaluation.py"][COURSE["evaluation.py"].index("    return (\n        sentiment") :]
FLAT = """    print(accuracy_score(sst_y_true, sst_y_pred) > 0)
    return dict(
        sst_sent_ids=sst_sent_ids, sst_y_pred=sst_y_pred, sst_y_true=sst_y_true, sst_acc=sentiment_accuracy,
        sst_loss=1.5, para_y_true=para_y_true, para_y_pred=para_y_pred, para_sent_ids=para_sent_ids,
        para_acc=paraphrase_accuracy,
        sts_y_pred=sts_y_pred, sts_sent_ids=sts_sent_ids, sts_corr=sts_corr,
    )
"""
NESTED = """    return {
        "sst": {"acc": sentiment_accuracy, "ids": sst_sent_ids, "pred": sst_y_pred},
        "para": {"acc": paraphrase_accuracy, "ids": para_sent_ids, "pred": para_y_pred},
        "sts": {"corr": sts_corr, "ids": sts_sent_ids, "pred": sts_y_pred},
    }
"""
THREE = """    return (
        (sentiment_accuracy, sst_y_pred, sst_y_true, sst_sent_ids),
        (paraphrase_accuracy, para_y_pred, para_sent_ids),
        (sts_corr, sts_y_pred, sts_y_true, sts_sent_ids),
    )
"""
CUT = "kind(record[column])", "int(kind(record[column]))"
SMALLEST = "logits.argmax(dim=-1)", "logits.argmin(dim=-1)"
CUTS = "evaluation: labels of similarity are cut to integers when they are read"
ARGMIN = "evaluation: the smallest logit is taken"
ABOVE = "float(logit > 0)"
FLOATS = "labels = torch.DoubleTensor(labels) if self.isRegression else torch.LongTensor(labels)"
TOLD = "SentencePairDataset(sts, args, isRegression=True)"
UNTOLD = "evaluation: similarity's data set is made without isRegression=True"


@pytest.mark.parametrize(
    "texts, expected",
    [
        ((ITEM + TUPLES, AS_DICT + DICTS), []),
        ((TUPLES, DICTS, ROW, DICT_ROW), []),
        ((TUPLES, DICTS), ["evaluation: crashed"]),
        ((RETURN, FLAT), []),
        ((RETURN, NESTED), []),
        ((RETURN, THREE), []),
        pytest.param((RETURN, FLAT, *SMALLEST), [ARGMIN], marks=pytest.mark.slow),
        ((RETURN, NESTED, *SMALLEST), [ARGMIN]),
        pytest.param((RETURN, THREE, *SMALLEST), [ARGMIN], marks=pytest.mark.slow),
        ((RETURN, FLAT, *CUT), [CUTS]),
        ((ABOVE, "float(1 / (1 + np.exp(-logit)) > 0.6)"), []),
        ((ABOVE, "float(1 / (1 + np.exp(-logit)) > 0.68)"), ["evaluation: partly"]),
        ((ABOVE, "float(logit > 0.5)"), ["evaluation: paraphrase's logit is rounded without a sigmoid"]),
        ((TOLD, "SentencePairDataset(sts, args)"), [UNTOLD]),
        ((TOLD, "SentencePairDataset(sts, args)", FLOATS, "labels = torch.DoubleTensor(labels)"), []),
    ],
    ids=["items are dictionaries", "rows are dictionaries", "its own rows fail",
         "one dictionary", "a dictionary a task", "a tuple a task",
         "one, wrong", "a dictionary a task, wrong", "a tuple a task, wrong", "labels are cut",
         "a threshold of .6", "a threshold of .68", "a threshold of ½ of the logit",
         "without isRegression", "without isRegression, of real labels"],
)  # fmt: skip
def test_only_what_is_wrong_is_named(texts, expected, tmp_path, impatient):
    assert complaints(verdicts(tmp_path, changed(COURSE, swap(*texts)), ["evaluation"])) == expected


def test_a_data_set_that_cuts_batches_by_its_flags_gives_one(tmp_path):
    """CMU's collate_fn returns a list, of which the loop reads the first."""
    old = "        token_ids, attention_mask, labels, sents, sent_ids = self.pad_data(all_data)\n        return {"
    new = """        size = self.p.batch_size
        return [self.one(all_data[i : i + size]) for i in range(0, len(all_data), size)]

    def one(self, data):
        token_ids, attention_mask, labels, sents, sent_ids = self.pad_data(data)
        return {"""
    loop = """b_ids, b_mask = batch["token_ids"].to(device), batch["attention_mask"].to(device)
            logits = model(b_"""
    files = changed(COURSE, swap(old, new, loop, f"batch = batch[0]\n            {loop}"))
    assert complaints(verdicts(tmp_path, files, ["evaluation"])) == []


def test_what_was_returned_is_told_by_its_keys():
    labels, ids = list(LABELS["sst"]), ids_of("sst", "dev")
    results = {"SST": {"ids": ids, "preds": CLASSES, "loss": 3.0, "acc": 0.5, "true": labels}, "sts_acc": 0.1}
    assert returned(results, "sst") == [0.5, labels, CLASSES, ids]
    assert returned((0.5, CLASSES, ids), "sst") == [0.5, CLASSES, ids]


SCORES = "scores = model.predict_similarity(*pair_inputs(batch, device)).view(-1)"
LOSS = 'F.mse_loss(scores, batch["labels"].to(device).view(-1).float())'


def shapes(outputs: str, labels: str) -> tuple[str, ...]:
    return (SCORES, SCORES.replace(".view(-1)", outputs), LOSS, LOSS.replace(".view(-1)", labels))


@pytest.mark.parametrize(
    "texts, expected",
    [
        (shapes("", ""), [f"heads: {EVERY}"]),
        pytest.param(shapes("", ".view(-1)"), [f"heads: {EVERY}"], marks=pytest.mark.slow),
        (shapes("", ".view(-1, 1)"), []),
        pytest.param(shapes("", ".unsqueeze(1)"), [], marks=pytest.mark.slow),
        pytest.param(shapes("", "[:, None]"), [], marks=pytest.mark.slow),
        pytest.param(shapes("[:, 0]", ""), [], marks=pytest.mark.slow),
        (shapes(".squeeze(-1)", ""), []),
        ((*shapes("", ""), "dim=-1).unsqueeze(-1)", "dim=-1)"), []),
        ((SCORES, SCORES.replace(".view(-1)", ""), LOSS, "F.mse_loss(scores, y)"), []),
        ((LOSS, "F.kl_div(F.softmax(scores, dim=-1), scores)"), [f"heads: {KL}"]),
        ((LOSS, "F.kl_div(F.log_softmax(scores, dim=-1), scores)"), []),
    ],
    ids=["(B, 1) and (B,)", "labels flat", "labels (B, 1)", "labels unsqueezed", "labels indexed", "outputs indexed",
         "outputs squeezed", "a head of (B,)", "labels of unknown shape", "kl_div", "kl_div of logarithms"],
)  # fmt: skip
def test_a_loss_of_every_pair_is_named(texts, expected, tmp_path):
    assert complaints(verdicts(tmp_path, changed(COURSE, swap(*texts)), ["heads"])) == expected
