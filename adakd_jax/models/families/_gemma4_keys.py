"""The tensors of Gemma 4 on Hugging Face."""

from adakd_jax.models.families._gemma import GEMMA_KEYS
from adakd_jax.models.family import LAYER, Entry, linear, norm


def _keys() -> tuple[Entry, ...]:
    """A part has its usual name in layers of every kind."""
    attention = [e for e in GEMMA_KEYS if e.path.startswith("layers.attn.")]
    feed_forward = [e for e in GEMMA_KEYS if e.path.startswith("layers.ffw.")]

    def again(entries: list[Entry], old: str, new: str) -> list[Entry]:
        return [
            e._replace(path=e.path.replace(f"layers.{old}.", f"layers.{new}.")) for e in entries
        ]

    return (
        *GEMMA_KEYS,
        *(e for kind in ("wide", "reader", "wide_reader") for e in again(attention, "attn", kind)),
        *again(feed_forward, "ffw", "reader_ffw"),
        Entry("per_layer.embedding", "model.embed_tokens_per_layer.weight"),
        *linear("per_layer.project", "model.per_layer_model_projection"),
        *norm("per_layer.norm", "model.per_layer_projection_norm"),
        *linear("layers.per_layer.gate", LAYER + "per_layer_input_gate"),
        *linear("layers.per_layer.out", LAYER + "per_layer_projection"),
        *norm("layers.per_layer.norm", LAYER + "post_per_layer_input_norm"),
        Entry("layers.scalar", LAYER + "layer_scalar"),
        Entry("layers.beside.router.weight", LAYER + "router.proj.weight", transpose=True),
        Entry("layers.beside.router.scale", LAYER + "router.scale"),
        Entry("layers.beside.router.expert_scale", LAYER + "router.per_expert_scale"),
        *_experts("gate_up_proj", "gate", "up"),
        *_experts("down_proj", "down"),
        *norm("layers.beside.norm", LAYER + "pre_feedforward_layernorm_2"),
        *norm("layers.beside.dense_norm", LAYER + "post_feedforward_layernorm_1"),
        *norm("layers.beside.out_norm", LAYER + "post_feedforward_layernorm_2"),
    )


def _experts(name: str, *parts: str) -> list[Entry]:
    return [
        Entry(
            f"layers.beside.experts.{own}.kernel",
            f"{LAYER}experts.{name}",
            transpose=True,
            part=part,
            of_experts=True,
        )
        for part, own in enumerate(parts)
    ]


KEYS = _keys()
