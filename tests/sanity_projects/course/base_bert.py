"""What every BERT can do: start with random weights, or load trained ones."""

import json
import os
import re

import torch
from config import BertConfig, PretrainedConfig
from torch import dtype, nn
from utils import CONFIG_NAME, WEIGHTS_NAME, cached_path

# How the names of the published weights become ours, in this order.
RENAMES = [
    (r"^bert\.", ""),
    (r"^embeddings\.word_embeddings\.", "word_embedding."),
    (r"^embeddings\.position_embeddings\.", "pos_embedding."),
    (r"^embeddings\.token_type_embeddings\.", "tk_type_embedding."),
    (r"^embeddings\.LayerNorm\.", "embed_layer_norm."),
    (r"^encoder\.layer\.", "bert_layers."),
    (r"^pooler\.dense\.", "pooler_dense."),
    (r"\.attention\.self\.", ".self_attention."),
    (r"\.attention\.output\.dense\.", ".attention_dense."),
    (r"\.attention\.output\.LayerNorm\.", ".attention_layer_norm."),
    (r"\.intermediate\.dense\.", ".interm_dense."),
    (r"\.output\.dense\.", ".out_dense."),
    (r"\.output\.LayerNorm\.", ".out_layer_norm."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
]


class BertPreTrainedModel(nn.Module):
    config_class = BertConfig
    base_model_prefix = "bert"

    def __init__(self, config: PretrainedConfig, *inputs, **kwargs):
        super().__init__()
        self.config = config
        self.name_or_path = config.name_or_path

    def init_weights(self):
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            module.bias.data.zero_()
            module.weight.data.fill_(1.0)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()

    @property
    def dtype(self) -> dtype:
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """A model with the weights of a local folder, or of the hub."""

        def find(filename):
            local = os.path.join(str(pretrained_model_name_or_path), filename)
            return local if os.path.isfile(local) else cached_path(str(pretrained_model_name_or_path), filename)

        try:
            config_file, weights_file = find(CONFIG_NAME), find(WEIGHTS_NAME)
        except Exception as error:
            raise OSError(f"no weights of {pretrained_model_name_or_path}") from error
        with open(config_file, encoding="utf-8") as file:
            config = cls.config_class(name_or_path=pretrained_model_name_or_path, **{**json.load(file), **kwargs})
        model = cls(config, *model_args)

        state_dict = torch.load(weights_file, map_location="cpu", weights_only=True)
        renamed = {}
        for name, tensor in state_dict.items():
            for pattern, replacement in RENAMES:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
        missing = model.load_state_dict(renamed, strict=False).missing_keys
        missing = [name for name in missing if name != "position_ids"]
        if missing:
            raise RuntimeError(f"Weights missing for {cls.__name__}: {missing}")
        return model.eval()
