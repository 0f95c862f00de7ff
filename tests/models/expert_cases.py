"""Tiny models with experts, by the keys of their config.json."""

SIZES = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    eos_token_id=None,
    pad_token_id=None,
)
SIX = dict(SIZES, num_experts=6, num_experts_per_tok=3)
QWEN = dict(SIX, model_type="qwen3_moe", moe_intermediate_size=20)
EXPERT_CASES = {
    "qwen3_moe": dict(QWEN, head_dim=12, norm_topk_prob=True),
    "qwen3_moe_windows": dict(
        QWEN,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=5,
        tie_word_embeddings=True,
    ),
    "mixtral": dict(SIZES, model_type="mixtral", num_local_experts=4, sliding_window=6),
    "gpt_oss": dict(
        SIZES,
        model_type="gpt_oss",
        num_local_experts=4,
        num_experts_per_tok=2,
        head_dim=12,
        sliding_window=5,
        swiglu_limit=0.6,
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=1000.0,
            factor=4.0,
            original_max_position_embeddings=16,
            truncate=False,
        ),
    ),
    "olmoe": dict(SIX, model_type="olmoe"),
    "olmoe_renormalised": dict(
        SIX, model_type="olmoe", norm_topk_prob=True, attention_bias=True, num_key_value_heads=4
    ),
}
