"""GPT-2 (Radford et al. 2019): learned positions, layer norm, one fused projection."""

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import QKV, Entry, Family, fused, linear, norm
from adakd_jax.models.gguf_family import Gguf, fused_names, outside_names
from adakd_jax.models.hf_config import read_activation
from adakd_jax.models.hf_values import HFConfig, refuse, require


def _read(hf: HFConfig) -> DecoderConfig:
    require(hf, "vocab_size", "n_embd", "n_layer", "n_head", "n_positions")
    refuse(hf, "scale_attn_by_inverse_layer_idx", "add_cross_attention")
    head_dim = hf["n_embd"] // hf["n_head"]
    return DecoderConfig(
        family="gpt2",
        vocab_size=hf["vocab_size"],
        embed_dim=hf["n_embd"],
        num_layers=hf["n_layer"],
        num_heads=hf["n_head"],
        num_kv_heads=hf["n_head"],
        head_dim=head_dim,
        ffw_dim=hf.get("n_inner") or 4 * hf["n_embd"],
        max_positions=hf["n_positions"],
        windows=(None,) * hf["n_layer"],
        ropes=(),
        activation=read_activation(hf.get("activation_function", "gelu_new")),
        gated_ffw=False,
        norm="layer",
        norm_eps=hf.get("layer_norm_epsilon", 1e-5),
        qkv_bias=True,
        out_bias=True,
        ffw_bias=True,
        tied=hf.get("tie_word_embeddings", True),
        attention_scale=head_dim**-0.5 if hf.get("scale_attn_weights", True) else 1.0,
        initializer_range=hf.get("initializer_range", 0.02),
    )


_LAYER = "transformer.h.{layer}."
FAMILY = Family(
    "gpt2",
    "GPT2LMHeadModel",
    _read,
    keys=(
        Entry("embed.embedding", "transformer.wte.weight"),
        Entry("position_embed.embedding", "transformer.wpe.weight"),
        Entry("head.embedding", "lm_head.weight"),
        *norm("final_norm", "transformer.ln_f"),
        *norm("layers.attn_norm", _LAYER + "ln_1"),
        *norm("layers.ffw_norm", _LAYER + "ln_2"),
        # Conv1D stores [in, out] already, query, key and value side by side.
        *fused(QKV, _LAYER + "attn.c_attn", transpose=False),
        *linear("layers.attn.out", _LAYER + "attn.c_proj", transpose=False),
        *linear("layers.ffw.up", _LAYER + "mlp.c_fc", transpose=False),
        *linear("layers.ffw.down", _LAYER + "mlp.c_proj", transpose=False),
    ),
    gguf=Gguf(
        "gpt2",
        {"activation_function": "gelu_new"},
        sizes={
            "n_embd": "embedding_length",
            "n_inner": "feed_forward_length",
            "n_layer": "block_count",
            "n_head": "attention.head_count",
            "n_positions": "context_length",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        states_heads=False,
        rotates=False,
        outside=outside_names(
            "transformer.wte", "transformer.ln_f", "lm_head", position_embd="transformer.wpe"
        ),
        layer=_LAYER,
        names=fused_names(
            ("ln_1", "ln_2"), ("attn.c_attn", "attn.c_proj"), ("mlp.c_fc", "mlp.c_proj")
        ),
        transposes=True,
    ),
)
