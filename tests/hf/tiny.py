"""Tiny models and tokenizers, made on the spot: nothing is downloaded."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.hf.write import save_weights
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = [
    "The small boat crossed the bay before the rain came.",
    "She counted 42 apples, 17 pears and 3 baskets.",
    "A good answer is short; a better answer is right.",
]
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 320,
    "initializer_range": 0.3,
}
TINY_LLAMA = TINY | {"model_type": "llama", "tie_word_embeddings": True}
TINY_QWEN3_5 = TINY | {
    "model_type": "qwen3_5_text",
    "full_attention_interval": 3,
    "partial_rotary_factor": 0.5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}


def make_tokenizer(sentences: Sequence[str] = SENTENCES) -> Tokenizer:
    """A byte-level BPE of 320 tokens, of SmolLM's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(list(sentences) * 3, trainer)
    return tokenizer


def other_tokenizer() -> PreTrainedTokenizerFast:
    """As large, but learned from other words: most of its tokens are others."""
    other = make_tokenizer(["Words of another language, otherwise unheard of."])
    return PreTrainedTokenizerFast(tokenizer_object=other, eos_token=SPECIAL[2])


def make_pretrained(hf_config: Mapping[str, Any], tokenizer: Any = None) -> Pretrained:
    """A model of random weights, its norms and biases too."""
    config = decoder_config(hf_config)
    params = random_params(config, jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    noise = np.random.default_rng(0)
    noisy = [
        leaf + noise.normal(0.0, 0.1, leaf.shape).astype(np.float32) if leaf.ndim < 3 else leaf
        for leaf in leaves
    ]
    source = ModelSource("tiny", hf_config, licence="mit")
    params = jax.tree.unflatten(tree, noisy)
    return Pretrained(config, abstract_decoder(config)[0], params, tokenizer, source)


def hf_tensors(model: Pretrained, folder: Path) -> dict[str, np.ndarray]:
    """The model's tensors under their Hugging Face names."""
    save_weights(model.config, model.params, model.source.hf_config, folder)
    return load_file(folder / "model.safetensors")


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a GGUF file says about a byte-level tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    return {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": sorted(model["vocab"], key=model["vocab"].get),
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (320 - len(SPECIAL)),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def tiny_teacher() -> Pretrained:
    """Three layers, 320 tokens, a chat template, random weights."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(),
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
    )
    return make_pretrained(TINY_LLAMA | {"max_position_embeddings": 128}, tokenizer)
