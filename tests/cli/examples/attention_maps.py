"""Which words does each word look at? The attention of one head, as a table."""

from minbert.bert import BertModel, attention_maps
from minbert.tokenizer import BertTokenizer

bert, tokenizer = BertModel.from_pretrained("minilm"), BertTokenizer.from_pretrained("minilm")
tokens = tokenizer("The bank of the river.", return_tensors="pt")
words = tokenizer.convert_ids_to_tokens(tokens["input_ids"][0].tolist())
for word, row in zip(words, attention_maps(bert, **tokens)[2, 0, 4], strict=True):  # layer 3, head 5
    print(f"{word:8}", " ".join(f"{p:.2f}" for p in row))
