"""Tiny models of every family that llama.cpp has, written as its converter writes them."""

import re
from pathlib import Path

import gguf
import numpy as np

from tests.hf.gguf_delta import (
    QWEN3_5_EXTRA,
    QWEN3_NEXT_EXTRA,
    SIX_HEADS,
    TINY_QWEN3_NEXT,
    as_converted,
)
from tests.hf.gpt_oss_experts import in_two
from tests.hf.tiny import TINY, TINY_LLAMA, hf_tensors, tokenizer_metadata

F32 = gguf.GGMLQuantizationType.F32
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
GEMMA4 = TINY | {
    "model_type": "gemma4_text",
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "sliding_window": 8,
    "global_head_dim": 16,
    "hidden_size_per_layer_input": 6,
    "vocab_size_per_layer_input": 320,
    "num_kv_shared_layers": 1,
    "use_double_wide_mlp": True,
    "final_logit_softcapping": 30.0,
}
ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, TINY_LLAMA | {"attention_bias": False, "mlp_bias": False}),
    "llama_untied": (gguf.MODEL_ARCH.LLAMA, TINY | {"model_type": "llama"}),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, TINY | {"model_type": "qwen2"}),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, TINY | {"model_type": "qwen3"}),
    "gemma3": (
        gguf.MODEL_ARCH.GEMMA3,
        TINY
        | {
            "model_type": "gemma3_text",
            "sliding_window": 8,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 8,
            "rope_local_base_freq": 10000.0,
            "tie_word_embeddings": True,
        },
    ),
    "smollm3": (gguf.MODEL_ARCH.SMOLLM3, TINY | {"model_type": "smollm3"}),
    "arcee": (gguf.MODEL_ARCH.ARCEE, TINY | {"model_type": "arcee"}),
    "granite": (
        gguf.MODEL_ARCH.GRANITE,
        TINY
        | {
            "model_type": "granite",
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.015625,
            "logits_scaling": 8.0,
        },
    ),
    "olmo2": (gguf.MODEL_ARCH.OLMO2, TINY | {"model_type": "olmo2"}),
    "seed_oss": (gguf.MODEL_ARCH.SEED_OSS, TINY | {"model_type": "seed_oss"}),
    "ernie4_5": (gguf.MODEL_ARCH.ERNIE4_5, TINY | {"model_type": "ernie4_5"}),
    "exaone4": (
        gguf.MODEL_ARCH.EXAONE4,
        TINY | {"model_type": "exaone4", "sliding_window": 8, "sliding_window_pattern": 2},
    ),
    "gpt2": (
        gguf.MODEL_ARCH.GPT2,
        {
            "model_type": "gpt2",
            "n_layer": 3,
            "n_embd": 32,
            "n_inner": 64,
            "n_head": 4,
            "n_positions": 64,
            "vocab_size": 320,
            "initializer_range": 0.3,
        },
    ),
    "gpt_neox": (
        gguf.MODEL_ARCH.GPTNEOX,
        TINY | {"model_type": "gpt_neox", "num_key_value_heads": 4, "rotary_pct": 0.5},
    ),
    "gemma2": (
        gguf.MODEL_ARCH.GEMMA2,
        TINY
        | {
            "model_type": "gemma2",
            "sliding_window": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
        },
    ),
    "cohere2": (
        gguf.MODEL_ARCH.COHERE2,
        TINY | {"model_type": "cohere2", "sliding_window": 8, "logit_scale": 0.25},
    ),
    "glm4": (gguf.MODEL_ARCH.GLM4, TINY | {"model_type": "glm4"}),
    "phi3": (gguf.MODEL_ARCH.PHI3, TINY | {"model_type": "phi3", "sliding_window": 8}),
    "phi3_longrope": (
        gguf.MODEL_ARCH.PHI3,
        TINY
        | {
            "model_type": "phi3",
            "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 16,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.5],
                "long_factor": [2.0, 3.0],
            },
        },
    ),
    "olmo3": (
        gguf.MODEL_ARCH.OLMO2,
        TINY
        | {
            "model_type": "olmo3",
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "beta_fast": 16.0,
            },
        },
    ),
    "ministral3": (
        gguf.MODEL_ARCH.MISTRAL3,
        TINY
        | {
            "model_type": "ministral3",
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    ),
    "mistral": (gguf.MODEL_ARCH.MISTRAL3, TINY | {"model_type": "mistral", "sliding_window": None}),
    "mixtral": (
        gguf.MODEL_ARCH.LLAMA,
        TINY | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen3_moe": (
        gguf.MODEL_ARCH.QWEN3MOE,
        TINY
        | EXPERTS
        | {"model_type": "qwen3_moe", "moe_intermediate_size": 16, "norm_topk_prob": True},
    ),
    "gpt_oss": (
        gguf.MODEL_ARCH.GPT_OSS,
        TINY
        | {
            "model_type": "gpt_oss",
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "truncate": False,
            },
        },
    ),
    "gemma4": (gguf.MODEL_ARCH.GEMMA4, GEMMA4),
    "gemma4_experts": (
        gguf.MODEL_ARCH.GEMMA4,
        GEMMA4
        | {
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 24,
        },
    ),
    "qwen3_5": (gguf.MODEL_ARCH.QWEN35, SIX_HEADS),
    "qwen3_next": (gguf.MODEL_ARCH.QWEN3NEXT, TINY_QWEN3_NEXT),
    "olmoe": (gguf.MODEL_ARCH.OLMOE, TINY | EXPERTS | {"model_type": "olmoe"}),
}
# llama.cpp stores the queries and keys of these in another order.
PERMUTED = ("llama", "smollm3", "arcee", "granite", "mistral", "ministral3", "mixtral")
THETAS = {"olmo3": 5e5, "gpt_oss": 1.5e5, "gemma4": 1e6, "gemma4_experts": 1e6}
WINDOWS = {"sliding_window": 8, "sliding_window_pattern": [True, False, True]}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
}
_GEMMA4 = {
    "attention.key_length": 16,
    "attention.value_length": 16,
    "attention.key_length_swa": 8,
    "rope.dimension_count": 16,
    "rope.freq_base_swa": 1e4,
    "attention.sliding_window": 8,
    "attention.sliding_window_pattern": [True, False, False],
    "final_logit_softcapping": 30.0,
}
# Metadata of each, after the architecture's name.
EXTRA = {
    "gpt2": {"attention.layer_norm_epsilon": 1e-5},
    "gpt_neox": {
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": 4,
        "use_parallel_residual": True,
    },
    "gemma2": {
        "attention.sliding_window": 8,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "cohere2": {
        "attention.layer_norm_epsilon": 1e-5,
        "attention.sliding_window": 8,
        "logit_scale": 0.25,
    },
    "glm4": {"rope.dimension_count": 4},
    "phi3": {"attention.sliding_window": 8},
    "phi3_longrope": {
        "attention.sliding_window": 0,
        "rope.dimension_count": 4,
        "rope.scaling.original_context_length": 16,
    },
    "olmo3": YARN
    | {
        "attention.sliding_window": 8,
        "attention.sliding_window_pattern": [True, False, True],
        "rope.scaling.yarn_beta_fast": 16.0,
    },
    "ministral3": YARN
    | {"rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.1},
    "mixtral": {"expert_count": 4, "expert_used_count": 2},
    "qwen3_moe": {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 16},
    "gpt_oss": YARN | {"expert_count": 4, "expert_used_count": 2, "attention.sliding_window": 8},
    "olmoe": {"expert_count": 4, "expert_used_count": 2},
    "qwen3_5": QWEN3_5_EXTRA,
    "qwen3_next": QWEN3_NEXT_EXTRA,
    "gemma3": {"attention.sliding_window": 8},
    "gemma4": _GEMMA4
    | {
        "attention.shared_kv_layers": 1,
        "embedding_length_per_layer_input": 6,
        "feed_forward_length": [64, 64, 128],
    },
    "gemma4_experts": _GEMMA4
    | {
        "attention.shared_kv_layers": 0,
        "attention.head_count_kv": [2, 1, 1],
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 24,
    },
    "exaone4": {f"attention.{key}": value for key, value in WINDOWS.items()},
    "granite": {
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "attention.scale": 0.015625,
        "logit_scale": 8.0,
    },
}


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The row order that llama.cpp's converter gives Llama's queries and keys."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def as_stored(name: str, tensor: np.ndarray, family: str) -> np.ndarray:
    rotates_pairs = family in PERMUTED
    if rotates_pairs and "q_proj" in name:
        return permuted(tensor, TINY["num_attention_heads"])
    if rotates_pairs and "k_proj" in name:
        return permuted(tensor, TINY["num_key_value_heads"])
    if family == "gpt2" and ".h." in name and tensor.ndim == 2:
        return tensor.T
    if family == "gpt_neox" and "query_key_value" in name:
        parts = tensor.reshape(TINY["num_attention_heads"], 3, TINY["head_dim"], -1)
        return np.concatenate([parts[:, n] for n in range(3)]).reshape(tensor.shape)
    one_plus = family in ("gemma2", "gemma3_text") and name.endswith("norm.weight")
    return tensor + 1 if one_plus else tensor


def as_modules(
    written: dict[str, np.ndarray], scales: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Gemma 4's tensors as its converter calls them; `scales` gets those that it names itself."""
    named = {}
    for name, tensor in written.items():
        layer = name.split(".")[2]
        if name.endswith("router.scale"):
            scales[f"blk.{layer}.ffn_gate_inp.scale"] = tensor
        elif name.endswith("per_expert_scale"):
            scales[f"blk.{layer}.ffn_down_exps.scale"] = tensor
        else:
            named[name if name.endswith(".weight") else f"{name}.weight"] = tensor
    return named


def gguf_tensors(model, folder: Path, arch) -> dict[str, np.ndarray]:
    """The model's tensors as llama.cpp's converter would write them, names by the gguf library."""
    names = gguf.get_tensor_name_map(arch, model.config.num_layers)
    family, tensors, experts = model.config.family, {}, {}
    written = hf_tensors(model, folder)
    if family == "gemma4_text":
        tensors = {"rope_freqs.weight": np.array([1.0] * 2 + [1e30] * 6, np.float32)}
        written = as_modules(written, tensors)
    if model.config.delta_net is not None:
        written = as_converted(written, family, model.config.delta_net)
    for name, tensor in (in_two(written) if family == "gpt_oss" else written).items():
        of_all, number = re.sub(r"\.experts\.(\d+)\.", ".experts.", name), None
        if of_all != name:
            number = int(re.findall(r"\.experts\.(\d+)\.", name)[0])
        stored = names.get_name(of_all, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        if number is None:
            tensors[stored] = as_stored(name, tensor, family)
        else:
            experts.setdefault(stored, {})[number] = tensor
    for stored, of_each in experts.items():
        tensors[stored] = np.stack([of_each[number] for number in sorted(of_each)])
    return tensors


def write_gguf(path: Path, arch, tensors, tokenizer, *, qtypes=None, theta=1e4, **extra) -> Path:
    name = gguf.MODEL_ARCH_NAMES[arch]
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(TINY["num_hidden_layers"])
    writer.add_context_length(TINY["max_position_embeddings"])
    writer.add_embedding_length(TINY["hidden_size"])
    writer.add_feed_forward_length(TINY["intermediate_size"])
    writer.add_head_count(TINY["num_attention_heads"])
    writer.add_head_count_kv(TINY["num_key_value_heads"])
    writer.add_key_length(TINY["head_dim"])
    writer.add_layer_norm_rms_eps(TINY["rms_norm_eps"])
    writer.add_rope_freq_base(theta)
    writer.add_license("apache-2.0")
    for key in extra:
        writer.kv_data[0].pop(key, None)
    metadata = tokenizer_metadata(tokenizer)
    for key, value in (metadata | extra).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str) and key != "general.architecture":
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, int) and not key.endswith(".context_length"):
            writer.add_uint32(key, value)
    for tensor_name, tensor in tensors.items():
        qtype = (qtypes or {}).get(tensor_name, F32)
        stored = gguf.quants.quantize(np.asarray(tensor), qtype)
        writer.add_tensor(tensor_name, stored, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
