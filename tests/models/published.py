"""What the config.json of published models says of their sizes, and how many parameters they have.

A tied embedding counts once, and of a multimodal model the number is the text model's. Sizes and
numbers were written down from memory of the models' pages and papers, where no hub could be
reached; the number of Qwen3-Next is what transformers counts for its config.json. Sizes of Gemma 4
are those of the script in transformers' repository that converts it, the numbers what transformers
counts for them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Published(NamedTuple):
    """Sizes: width, feed-forward, layers, heads, heads of keys, positions, vocabulary."""

    parameters: int
    model_type: str
    sizes: tuple[int, int, int, int, int, int, int]
    tied: bool = False
    others: Mapping[str, Any] = MappingProxyType({})

    @property
    def hf_config(self) -> dict[str, Any]:
        """The config.json."""
        keys = _KEYS.get(self.model_type, _USUAL)
        said = {key: size for key, size in zip(keys, self.sizes, strict=True) if key}
        return said | self.others | dict(model_type=self.model_type, tie_word_embeddings=self.tied)


_USUAL = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "vocab_size",
)
_KEYS = {
    "gpt2": ("n_embd", None, "n_layer", "n_head", None, "n_positions", "vocab_size"),
    "gpt_neox": (*_USUAL[:4], None, *_USUAL[5:]),
    "opt": ("hidden_size", "ffn_dim", *_USUAL[2:4], None, *_USUAL[5:]),
}
_LONGROPE = dict(rope_type="longrope", short_factor=[1.0] * 48, long_factor=[2.0] * 48)
_GRANITE = dict(
    embedding_multiplier=12.0,
    residual_multiplier=0.22,
    attention_multiplier=0.015625,
    logits_scaling=8.0,
)
_GEMMA4_LARGE = dict(
    attention_k_eq_v=True,
    hidden_size_per_layer_input=0,
    use_bidirectional_attention="vision",
    sliding_window=1024,
)
PUBLISHED = {
    "GPT-2": Published(124_439_808, "gpt2", (768, 3072, 12, 12, 12, 1024, 50257), True),
    "GPT-2 XL": Published(1_557_611_200, "gpt2", (1600, 6400, 48, 25, 25, 1024, 50257), True),
    "OPT-125M": Published(125_239_296, "opt", (768, 3072, 12, 12, 12, 2048, 50272), True),
    "OPT-1.3B": Published(1_315_758_080, "opt", (2048, 8192, 24, 32, 32, 2048, 50272), True),
    "OPT-6.7B": Published(6_658_473_984, "opt", (4096, 16384, 32, 32, 32, 2048, 50272), True),
    "Pythia-160M": Published(162_322_944, "gpt_neox", (768, 3072, 12, 12, 12, 2048, 50304)),
    "Pythia-1.4B": Published(1_414_647_808, "gpt_neox", (2048, 8192, 24, 16, 16, 2048, 50304)),
    "Pythia-12B": Published(11_846_072_320, "gpt_neox", (5120, 20480, 36, 40, 40, 2048, 50688)),
    "SmolLM2-135M": Published(134_515_008, "llama", (576, 1536, 30, 9, 3, 8192, 49152), True),
    "SmolLM2-1.7B": Published(1_711_376_384, "llama", (2048, 8192, 24, 32, 32, 8192, 49152), True),
    "Llama 3.2 1B": Published(
        1_235_814_400, "llama", (2048, 8192, 16, 32, 8, 131_072, 128_256), True
    ),
    "Llama 3.1 8B": Published(8_030_261_248, "llama", (4096, 14336, 32, 32, 8, 131_072, 128_256)),
    "Llama 3.1 70B": Published(70_553_706_496, "llama", (8192, 28672, 80, 64, 8, 131_072, 128_256)),
    "SmolLM3-3B": Published(
        3_075_098_624, "smollm3", (2048, 11008, 36, 16, 4, 65_536, 128_256), True
    ),
    "Mistral 7B v0.3": Published(
        7_248_023_552, "mistral", (4096, 14336, 32, 32, 8, 32_768, 32_768)
    ),
    "Mistral Small 3": Published(
        23_572_403_200,
        "mistral",
        (5120, 32_768, 40, 32, 8, 32_768, 131_072),
        others=dict(head_dim=128, sliding_window=None),
    ),
    "Qwen2.5-0.5B": Published(494_032_768, "qwen2", (896, 4864, 24, 14, 2, 32_768, 151_936), True),
    "Qwen2.5-7B": Published(7_615_616_512, "qwen2", (3584, 18944, 28, 28, 4, 131_072, 152_064)),
    "Qwen3-0.6B": Published(596_049_920, "qwen3", (1024, 3072, 28, 16, 8, 40_960, 151_936), True),
    "Qwen3-8B": Published(8_190_735_360, "qwen3", (4096, 12288, 36, 32, 8, 40_960, 151_936)),
    "Qwen3-32B": Published(32_762_123_264, "qwen3", (5120, 25600, 64, 64, 8, 40_960, 151_936)),
    "Qwen3-30B-A3B": Published(
        30_532_122_624,
        "qwen3_moe",
        (2048, 6144, 48, 32, 4, 40_960, 151_936),
        others=dict(head_dim=128, moe_intermediate_size=768),
    ),
    "Qwen3-235B-A22B": Published(
        235_093_634_560,
        "qwen3_moe",
        (4096, 12_288, 94, 64, 4, 40_960, 151_936),
        others=dict(head_dim=128, moe_intermediate_size=1536),
    ),
    "Qwen3-Next-80B-A3B": Published(
        79_674_391_296, "qwen3_next", (2048, 5120, 48, 16, 2, 262_144, 151_936)
    ),
    "Mixtral 8x7B": Published(46_702_792_704, "mixtral", (4096, 14_336, 32, 32, 8, 32_768, 32_000)),
    "OLMoE 1B-7B": Published(6_919_161_856, "olmoe", (2048, 1024, 16, 16, 16, 4096, 50_304)),
    "gpt-oss-20b": Published(
        20_914_757_184,
        "gpt_oss",
        (2880, 2880, 24, 64, 8, 131_072, 201_088),
        others=dict(head_dim=64, num_local_experts=32, num_experts_per_tok=4),
    ),
    "gpt-oss-120b": Published(
        116_829_156_672,
        "gpt_oss",
        (2880, 2880, 36, 64, 8, 131_072, 201_088),
        others=dict(head_dim=64, num_local_experts=128, num_experts_per_tok=4),
    ),
    "Gemma 4 E2B": Published(
        4_628_569_344,
        "gemma4_text",
        (1536, 6144, 35, 8, 1, 131_072, 262_144),
        True,
        dict(
            layer_types=[*["sliding_attention"] * 4, "full_attention"] * 7,
            num_kv_shared_layers=20,
            use_double_wide_mlp=True,
        ),
    ),
    "Gemma 4 E4B": Published(
        7_463_013_376,
        "gemma4_text",
        (2560, 10_240, 42, 8, 2, 131_072, 262_144),
        True,
        dict(num_kv_shared_layers=18),
    ),
    "Gemma 4 31B": Published(
        30_697_345_280,
        "gemma4_text",
        (5376, 21_504, 60, 32, 16, 262_144, 262_144),
        True,
        _GEMMA4_LARGE | dict(num_global_key_value_heads=4),
    ),
    "Gemma 4 26B-A4B": Published(
        25_233_141_760,
        "gemma4_text",
        (2816, 2112, 30, 16, 8, 262_144, 262_144),
        True,
        _GEMMA4_LARGE
        | dict(
            num_global_key_value_heads=2,
            enable_moe_block=True,
            num_experts=128,
            top_k_experts=8,
            moe_intermediate_size=704,
        ),
    ),
    "Gemma 2 2B": Published(2_614_341_888, "gemma2", (2304, 9216, 26, 8, 4, 8192, 256_000), True),
    "Gemma 2 9B": Published(9_241_705_984, "gemma2", (3584, 14336, 42, 16, 8, 8192, 256_000), True),
    "Gemma 3 270M": Published(
        268_098_176, "gemma3_text", (640, 2048, 18, 4, 1, 32_768, 262_144), True
    ),
    "Gemma 3 1B": Published(
        999_885_952, "gemma3_text", (1152, 6912, 26, 4, 1, 32_768, 262_144), True
    ),
    "Gemma 3 4B": Published(
        3_880_099_328, "gemma3_text", (2560, 10240, 34, 8, 4, 131_072, 262_208), True
    ),
    "OLMo 2 1B": Published(1_484_916_736, "olmo2", (2048, 8192, 16, 16, 16, 4096, 100_352)),
    "OLMo 2 13B": Published(13_716_198_400, "olmo2", (5120, 13824, 40, 40, 40, 4096, 100_352)),
    "Olmo 3 7B": Published(7_298_011_136, "olmo3", (4096, 11008, 32, 32, 32, 65_536, 100_278)),
    "Granite 3.3 2B": Published(
        2_533_539_840, "granite", (2048, 8192, 40, 32, 8, 131_072, 49_159), True, _GRANITE
    ),
    "Phi-3 mini": Published(3_821_079_552, "phi3", (3072, 8192, 32, 32, 32, 4096, 32_064)),
    "Phi-4": Published(14_659_507_200, "phi3", (5120, 17_920, 40, 40, 10, 16_384, 100_352)),
    "Phi-4 mini": Published(
        3_836_021_760,
        "phi3",
        (3072, 8192, 32, 24, 8, 131_072, 200_064),
        True,
        dict(rope_scaling=_LONGROPE, partial_rotary_factor=0.75),
    ),
    "EXAONE 4.0 1.2B": Published(
        1_279_391_488,
        "exaone4",
        (2048, 4096, 30, 32, 8, 65_536, 102_400),
        True,
        dict(sliding_window=None),
    ),
    "Seed-OSS 36B": Published(
        36_151_104_512,
        "seed_oss",
        (5120, 27_648, 64, 80, 8, 524_288, 155_136),
        others=dict(head_dim=128),
    ),
    "AFM 4.5B": Published(4_620_000_000, "arcee", (2560, 18_432, 36, 20, 4, 65_536, 128_004)),
    "ERNIE 4.5 0.3B": Published(
        360_748_032, "ernie4_5", (1024, 3072, 18, 16, 2, 131_072, 103_424), True
    ),
    "GLM-4 9B 0414": Published(9_400_279_040, "glm4", (4096, 13_696, 40, 32, 2, 32_768, 151_552)),
    "Command R7B": Published(
        8_028_033_024, "cohere2", (4096, 14_336, 32, 32, 8, 131_072, 256_000), True
    ),
}
