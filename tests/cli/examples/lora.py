"""Low-rank additions to a frozen BERT: train them, merge them, take them out again."""

from minbert.bert import BertModel
from minbert.lora import add_lora, merge_lora, unmerge_lora
from minbert.optimizer import AdamW
from minbert.tokenizer import BertTokenizer

bert, tokenizer = BertModel.from_pretrained("minilm"), BertTokenizer.from_pretrained("minilm")
trained = [p for p in add_lora(bert, rank=8, alpha=16).parameters() if p.requires_grad]
bert(**tokenizer("Hello world.", return_tensors="pt"))["pooler_output"].square().mean().backward()
AdamW(trained, lr=1e-3).step()
merge_lora(bert), unmerge_lora(bert)  # answers at the plain BERT's price, and back
print(f"{sum(p.numel() for p in trained):,} of {sum(p.numel() for p in bert.parameters()):,} numbers trained")
