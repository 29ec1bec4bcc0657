"""What a student writes: the functions of each part, in the order in which to write them.

The parts are those of the sanity check (`adamw` is its `optimizer`), which says of each what is wrong and why.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from minbert.errors import UserError


@dataclass(frozen=True)
class Part:
    """name: as in --parts. about: what it is, for the copy's README. functions: (file, name), in the order in which to
    write them. check: its name in the sanity check."""

    name: str
    about: str
    functions: tuple[tuple[str, str], ...]
    check: str


def _part(name: str, about: str, functions: dict[str, str], check: str = "") -> Part:
    pairs = tuple((f"minbert/{file}.py", f) for file, names in functions.items() for f in names.split())
    return Part(name, about, pairs, check or name)


PARTS = {
    part.name: part
    for part in (
        _part("attention", "multi-head self-attention", {
            "bert": "plain_attention BertSelfAttention.transform BertSelfAttention.forward sdpa_attention"}),
        _part("layer", "an encoder layer", {"bert": "BertLayer.add_norm BertLayer.attend BertLayer.forward"}),
        _part("embeddings", "from token ids to vectors", {"bert": "BertModel.embed"}),
        _part("model", "the whole of BERT, and its pooler", {
            "bert": "BertModel.encode BertModel.pool BertModel.forward"}),
        _part("adamw", "the optimizer", {"optimizer": "AdamW.step"}, "optimizer"),
        _part("heads", "from sentence vectors to the tasks' outputs, and their losses", {
            "heads": "mean_pool concat difference hadamard LinearHead.forward CosineHead.forward DotHead.forward "
                     "CrossAttentionHead.attend CrossAttentionHead.forward RelationalLayer.forward "
                     "RelationalHead.forward",
            "multitask": "MultitaskBert.encode MultitaskBert.logits",
            "tasks": "classification_loss binary_loss regression_loss cosine_loss"}),
        _part("evaluation", "predictions and scores", {
            "tasks": "predict_class predict_binary predict_number accuracy pearson", "evaluation": "outputs"}),
        _part("pcgrad", "gradient surgery: PCGrad, then gradient vaccine", {"pcgrad": "products mix pcgrad gradvac"}),
        _part("smart", "SMART: the smoothness term and the Bregman term", {
            "smart": "symmetric_kl bernoulli_symmetric_kl squared_error ball relative smoothness Proximal.__call__ "
                     "Proximal.update"}),
        _part("lora", "LoRA", {"lora": "LoRALinear.forward LoRALinear.merged"}),
        _part("pals", "projected attention layers and low-rank layers", {
            "pals": "PAL.forward LowRank.forward AdaptedLayer.forward"}),
    )
}  # fmt: skip


def choose(names: Iterable[str]) -> list[Part]:
    """The parts of these names, each once, in the order in which to write them. UserError for an unknown name."""
    alias = {part.check: part.name for part in PARTS.values()}
    names = [alias.get(name, name) for name in names]
    for name in names:
        if name not in PARTS:
            raise UserError(f"--parts {name}: there is no such part; there are {', '.join(PARTS)}")
    return [part for name, part in PARTS.items() if name in names]
