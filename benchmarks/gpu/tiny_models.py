"""Tiny models that together have every part of the decoder: windows, caps, biases, norms."""

_SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
_GEMMA = {
    "head_dim": 256,
    "sliding_window": 8,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
TINY: dict[str, dict] = {
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 320, "n_embd": 64, "n_layer": 4, "n_head": 4,
        "n_positions": 64, "initializer_range": 0.2,
    },
    "llama": _SIZES | {
        "model_type": "llama", "rope_theta": 500_000.0, "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    },
    "mistral": _SIZES | {"model_type": "mistral", "sliding_window": 8},
    "qwen2": _SIZES | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": _SIZES | {"model_type": "qwen3", "head_dim": 128},
    "gemma2": _SIZES | _GEMMA | {"model_type": "gemma2"},
    "gemma3_text": _SIZES | _GEMMA | {"model_type": "gemma3_text", "sliding_window_pattern": 2},
    # What no family above has: other families combine these parts.
    "phi3": _SIZES | {
        "model_type": "phi3", "original_max_position_embeddings": 16, "partial_rotary_factor": 0.5,
        "rope_scaling": {
            "type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
        },
    },
    "gpt_neox": _SIZES | {"model_type": "gpt_neox"},
    "cohere2": _SIZES | {"model_type": "cohere2", "sliding_window": 8, "tie_word_embeddings": True},
    "olmo3": _SIZES | {
        "model_type": "olmo3", "sliding_window": 8,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
        },
    },
}  # fmt: skip
