"""Tiny models with what is peculiar to each family, by the keys of their config.json."""

from tests.models.expert_cases import EXPERT_CASES
from tests.models.mixer_cases import MIXER_CASES

SIZES = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
FOUR = dict(SIZES, num_hidden_layers=4)
MULTIPLIERS = dict(
    embedding_multiplier=3.0,
    logits_scaling=2.0,
    residual_multiplier=0.4,
    attention_multiplier=0.2,
)
OPT = dict(
    vocab_size=61,
    hidden_size=32,
    ffn_dim=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
    pad_token_id=1,
)
GEMMA = dict(SIZES, num_hidden_layers=4, head_dim=16, sliding_window=6)
CASES = {
    "gpt2": dict(model_type="gpt2", vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "gpt2_untied": dict(
        model_type="gpt2",
        vocab_size=61,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        n_inner=40,
        activation_function="relu",
        tie_word_embeddings=False,
        scale_attn_weights=False,
    ),
    "llama": dict(SIZES, model_type="llama"),
    "llama_tied_biased_head_dim": dict(
        SIZES,
        model_type="llama",
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        head_dim=12,
        hidden_act="gelu",
    ),
    "llama3_rope": dict(SIZES, model_type="llama", rope_parameters=LLAMA3),
    "llama_linear_rope": dict(
        SIZES,
        model_type="llama",
        rope_parameters=dict(rope_type="linear", rope_theta=100.0, factor=2.0),
    ),
    "mistral": dict(SIZES, model_type="mistral", sliding_window=5),
    "mistral_global": dict(SIZES, model_type="mistral", sliding_window=None),
    "qwen2": dict(SIZES, model_type="qwen2", tie_word_embeddings=True),
    "qwen2_windows": dict(
        SIZES, model_type="qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "qwen3": dict(SIZES, model_type="qwen3", head_dim=12, attention_bias=True),
    "qwen3_layer_types": dict(
        SIZES,
        model_type="qwen3",
        head_dim=8,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma2": dict(
        GEMMA,
        model_type="gemma2",
        query_pre_attn_scalar=24,
        attn_logit_softcapping=4.0,
        final_logit_softcapping=5.0,
    ),
    "gemma3_text": dict(
        GEMMA,
        model_type="gemma3_text",
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=2.0, rope_theta=1000.0),
            sliding_attention=dict(rope_type="default", rope_theta=50.0),
        ),
    ),
    "smollm3": dict(
        FOUR, model_type="smollm3", pad_token_id=0, rope_parameters=dict(rope_theta=50.0)
    ),
    "smollm3_windows": dict(
        FOUR,
        model_type="smollm3",
        pad_token_id=0,
        tie_word_embeddings=False,
        attention_bias=True,
        mlp_bias=True,
        use_sliding_window=True,
        sliding_window=5,
        no_rope_layers=[1, 0, 0, 1],
    ),
    "olmo2": dict(SIZES, model_type="olmo2"),
    "olmo2_biased": dict(SIZES, model_type="olmo2", attention_bias=True, tie_word_embeddings=True),
    "olmo3": dict(
        FOUR,
        model_type="olmo3",
        sliding_window=5,
        rope_parameters=dict(
            full_attention=dict(
                rope_type="yarn",
                rope_theta=500.0,
                factor=4.0,
                original_max_position_embeddings=16,
                attention_factor=1.2,
            ),
            sliding_attention=dict(rope_type="default", rope_theta=500.0),
        ),
    ),
    "granite": dict(SIZES, model_type="granite", **MULTIPLIERS),
    "granite_biased": dict(
        SIZES,
        model_type="granite",
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        **MULTIPLIERS,
    ),
    "granite4": dict(
        SIZES,
        model_type="granitemoehybrid",
        layer_types=["full_attention"] * 3,
        num_local_experts=0,
        shared_intermediate_size=48,
        position_embedding_type="rope",
        mamba_n_heads=2,
        **MULTIPLIERS,
    ),
    "granite4_without_positions": dict(
        SIZES,
        model_type="granitemoehybrid",
        layer_types=["full_attention"] * 3,
        num_local_experts=0,
        shared_intermediate_size=48,
        position_embedding_type="nope",
        mamba_n_heads=2,
        tie_word_embeddings=True,
        **MULTIPLIERS,
    ),
    "phi3": dict(SIZES, model_type="phi3", pad_token_id=0, sliding_window=6),
    "phi3_longrope": dict(
        SIZES,
        model_type="phi3",
        pad_token_id=0,
        tie_word_embeddings=True,
        original_max_position_embeddings=16,
        rope_parameters=dict(
            rope_type="longrope",
            rope_theta=100.0,
            partial_rotary_factor=0.5,
            short_factor=[1.0, 1.5],
            long_factor=[2.0, 3.0],
        ),
    ),
    "mistral_small": dict(
        SIZES, model_type="mistral", head_dim=16, sliding_window=None, hidden_act="silu"
    ),
    "ministral3": dict(
        SIZES,
        model_type="ministral3",
        head_dim=16,
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=100.0,
            factor=8.0,
            original_max_position_embeddings=8,
            llama_4_scaling_beta=0.3,
            mscale=1.0,
            mscale_all_dim=1.0,
            beta_fast=4.0,
            beta_slow=1.0,
        ),
    ),
    "exaone4": dict(FOUR, model_type="exaone4", sliding_window=5, sliding_window_pattern=2),
    "exaone4_global": dict(
        FOUR,
        model_type="exaone4",
        sliding_window=None,
        layer_types=["full_attention"] * 4,
        tie_word_embeddings=True,
        rope_parameters=LLAMA3,
    ),
    "seed_oss": dict(SIZES, model_type="seed_oss", head_dim=12),
    "seed_oss_biased": dict(
        SIZES,
        model_type="seed_oss",
        head_dim=12,
        attention_out_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    ),
    "arcee": dict(
        SIZES,
        model_type="arcee",
        rope_parameters=dict(
            rope_type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=16
        ),
    ),
    "arcee_biased": dict(
        SIZES, model_type="arcee", attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "ernie4_5": dict(SIZES, model_type="ernie4_5", head_dim=12),
    "ernie4_5_biased": dict(SIZES, model_type="ernie4_5", head_dim=8, use_bias=True),
    "glm4": dict(SIZES, model_type="glm4", head_dim=16, pad_token_id=0),
    "glm4_unbiased": dict(
        SIZES, model_type="glm4", head_dim=8, pad_token_id=0, attention_bias=False
    ),
    "cohere2": dict(FOUR, model_type="cohere2", pad_token_id=0, sliding_window=5),
    "cohere2_biased": dict(
        FOUR,
        model_type="cohere2",
        pad_token_id=0,
        sliding_window=5,
        attention_bias=True,
        layer_types=["sliding_attention", "full_attention"] * 2,
        logit_scale=0.5,
    ),
    "gpt_neox": dict(SIZES, model_type="gpt_neox"),
    "gpt_neox_in_turn": dict(
        SIZES,
        model_type="gpt_neox",
        use_parallel_residual=False,
        attention_bias=False,
        tie_word_embeddings=True,
        rope_parameters=dict(
            rope_type="linear", rope_theta=100.0, factor=2.0, partial_rotary_factor=0.5
        ),
    ),
    "opt": dict(OPT, model_type="opt"),
    "opt_unbiased": dict(
        OPT,
        model_type="opt",
        enable_bias=False,
        tie_word_embeddings=False,
        activation_function="gelu",
    ),
    "llama_yarn": dict(
        SIZES,
        model_type="llama",
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=100.0,
            factor=4.0,
            original_max_position_embeddings=16,
            truncate=False,
            beta_fast=4.0,
        ),
    ),
    "qwen3_dynamic": dict(
        SIZES,
        model_type="qwen3",
        head_dim=12,
        max_position_embeddings=12,
        rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=3.0),
    ),
}
CASES |= EXPERT_CASES | MIXER_CASES
# The first case of each family.
ONE_EACH = {case["model_type"]: name for name, case in reversed(CASES.items())}
