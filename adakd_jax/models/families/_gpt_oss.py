"""The tensors of gpt-oss, on Hugging Face and in llama.cpp's files."""

from adakd_jax.models.family import LAYER, LLAMA_KEYS, Entry
from adakd_jax.models.gguf_family import GGUF_NAMES

GATE_UP = ("ffn_gate_exps", "ffn_up_exps")
NAMES = (
    GGUF_NAMES
    | dict.fromkeys(GATE_UP, "mlp.experts.gate_up_proj")
    | {
        "post_attention_norm": "post_attention_layernorm",
        "attn_sinks": "self_attn.sinks",
        "ffn_gate_inp": "mlp.router",
        "ffn_down_exps": "mlp.experts.down_proj",
    }
)


def keys() -> tuple[Entry, ...]:
    """Gate and up are one tensor, whose outputs are theirs by turns."""
    ours, theirs = "layers.ffw.experts.", LAYER + "mlp.experts."
    both = [
        Entry(f"{ours}{name}.{kind}", f"{theirs}gate_up_proj{end}", part=part, by_turns=True)
        for part, name in enumerate(("gate", "up"))
        for kind, end in (("kernel", ""), ("bias", "_bias"))
    ]
    return (
        *(entry for entry in LLAMA_KEYS if not entry.path.startswith("layers.ffw.")),
        Entry("layers.attn.sinks", LAYER + "self_attn.sinks"),
        Entry("layers.ffw.router.weight", LAYER + "mlp.router.weight", transpose=True),
        Entry("layers.ffw.router.bias", LAYER + "mlp.router.bias"),
        *both,
        Entry(f"{ours}down.kernel", f"{theirs}down_proj"),
        Entry(f"{ours}down.bias", f"{theirs}down_proj_bias"),
    )


def full_name(name: str, kind: str) -> str:
    """Sinks and experts are no modules of their own."""
    if name.endswith("sinks"):
        return name
    if ".experts." in name:
        return name if kind == "weight" else f"{name}_{kind}"
    return f"{name}.{kind}"
