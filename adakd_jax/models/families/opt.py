"""OPT (arXiv 2205.01068): GPT-2 with ReLU, and positions that begin in row two of their table."""

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Entry, Family, linear, norm
from adakd_jax.models.hf_config import read_activation
from adakd_jax.models.hf_values import HFConfig, refuse, require

_MUST_BE_TRUE = ("do_layer_norm_before", "layer_norm_elementwise_affine")


def _read(hf: HFConfig) -> DecoderConfig:
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim")
    require(hf, *sizes, "max_position_embeddings")
    refuse(hf, "_remove_final_layer_norm")
    width, layers, heads = (hf[key] for key in sizes[1:4])
    for key in _MUST_BE_TRUE:
        if not hf.get(key, True):
            raise ValueError(f"config.json: {key}=false is not supported; valid: true")
    if hf.get("word_embed_proj_dim") not in (None, width):
        raise ValueError(
            f"config.json: word_embed_proj_dim={hf['word_embed_proj_dim']!r} is not supported; "
            f"valid: hidden_size, {width}"
        )
    bias = hf.get("enable_bias", True)
    return DecoderConfig(
        family="opt",
        vocab_size=hf["vocab_size"],
        embed_dim=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        ffw_dim=hf["ffn_dim"],
        max_positions=hf["max_position_embeddings"],
        windows=(None,) * layers,
        ropes=(),
        position_offset=2,
        activation=read_activation(hf.get("activation_function", "relu")),
        gated_ffw=False,
        norm="layer",
        norm_eps=1e-5,
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=bias,
        tied=hf.get("tie_word_embeddings", True),
        attention_scale=(width // heads) ** -0.5,
        initializer_range=hf.get("init_std", 0.02),
    )


_LAYER = "model.decoder.layers.{layer}."
FAMILY = Family(
    "opt",
    "OPTForCausalLM",
    _read,
    keys=(
        Entry("embed.embedding", "model.decoder.embed_tokens.weight"),
        Entry("position_embed.embedding", "model.decoder.embed_positions.weight"),
        Entry("head.embedding", "lm_head.weight"),
        *norm("final_norm", "model.decoder.final_layer_norm"),
        *norm("layers.attn_norm", _LAYER + "self_attn_layer_norm"),
        *norm("layers.ffw_norm", _LAYER + "final_layer_norm"),
        *linear("layers.attn.query", _LAYER + "self_attn.q_proj"),
        *linear("layers.attn.key", _LAYER + "self_attn.k_proj"),
        *linear("layers.attn.value", _LAYER + "self_attn.v_proj"),
        *linear("layers.attn.out", _LAYER + "self_attn.out_proj"),
        *linear("layers.ffw.up", _LAYER + "fc1"),
        *linear("layers.ffw.down", _LAYER + "fc2"),
    ),
)
