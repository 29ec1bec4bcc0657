"""A layer of each task's own beside every layer of BERT."""

from minbert.bert import BertModel
from minbert.pals import add_pals, use_task
from minbert.tokenizer import BertTokenizer

bert, tokenizer = BertModel.from_pretrained("minilm"), BertTokenizer.from_pretrained("minilm")
tokens = tokenizer("Hello world.", return_tensors="pt")
before = bert(**tokens)["pooler_output"]
add_pals(bert, ["reviews", "mails"])
use_task(bert, "mails")
print((bert(**tokens)["pooler_output"] == before).all())  # it starts as it was
