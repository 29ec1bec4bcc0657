"""Downloads, and the attention mask in the form that the layers want."""

import os

import importlib_metadata
import requests
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "pytorch_model.bin"
HUB = "https://huggingface.co/{model_id}/resolve/main/{filename}"
CACHE = os.path.join(os.path.expanduser("~"), ".cache", "course_bert")
SESSION_NAME = f"course-bert; torch/{importlib_metadata.version('torch')}"


def cached_path(model_id, filename, cache_dir=CACHE):
    """The local copy of one of a model's files, downloaded when there is none."""
    path = os.path.join(cache_dir, model_id.replace("/", "--"), filename)
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with FileLock(path + ".lock"):
        url = HUB.format(model_id=model_id, filename=filename)
        response = requests.get(url, stream=True, timeout=10, headers={"user-agent": SESSION_NAME})
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0))
        with open(path + ".part", "wb") as file, tqdm(total=total, unit="B", unit_scale=True) as bar:
            for chunk in response.iter_content(chunk_size=65536):
                bar.update(len(chunk))
                file.write(chunk)
        os.replace(path + ".part", path)
    return path


def get_extended_attention_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(bs, seq_len), 1 for a token and 0 for a pad → (bs, 1, 1, seq_len), 0 and -10000, to be added to scores."""
    assert attention_mask.dim() == 2
    extended_attention_mask = attention_mask[:, None, None, :]
    extended_attention_mask = extended_attention_mask.to(dtype=dtype)  # fp16 compatibility
    extended_attention_mask = (1.0 - extended_attention_mask) * -10000.0
    return extended_attention_mask
