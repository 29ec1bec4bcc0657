"""Classes of your own, from lists in Python."""

from minbert.bert import BertModel
from minbert.data import Dataset
from minbert.multitask import MultitaskBert
from minbert.tasks import Task
from minbert.tokenizer import BertTokenizer
from multitask_classifier import train

task, tokenizer = Task("topic", ("text",), "topic", words=("food", "space")), BertTokenizer.from_pretrained("minilm")
data = Dataset.of(
    task, tokenizer, ["a bowl of soup", "fresh bread", "the moon", "a rocket"], ["food"] * 2 + ["space"] * 2
)
model = MultitaskBert(BertModel.from_pretrained("minilm"), [task], pooling="mean")
print(train(model, tokenizer, {"topic": {"train": data, "dev": data}}, out="runs/topic", epochs=2, lr=1e-4))
