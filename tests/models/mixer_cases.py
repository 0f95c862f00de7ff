"""Tiny models whose layers are of several kinds, by the keys of their config.json."""

_QWEN = dict(
    model_type="qwen3_5_text",
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=9,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    linear_num_key_heads=2,
    linear_num_value_heads=6,
    linear_key_head_dim=12,
    linear_value_head_dim=10,
    linear_conv_kernel_dim=4,
    pad_token_id=None,
    eos_token_id=None,
)
_MROPE = dict(mrope_section=[1, 1, 0], mrope_interleaved=True)
_NEXT = dict(
    _QWEN,
    model_type="qwen3_next",
    num_hidden_layers=5,
    moe_intermediate_size=20,
    shared_expert_intermediate_size=28,
    num_experts=6,
    num_experts_per_tok=3,
)
MIXER_CASES = {
    "qwen3_5_text": _QWEN,
    "qwen3_5_text_tied_biased": dict(
        _QWEN,
        num_hidden_layers=5,
        tie_word_embeddings=True,
        attention_bias=True,
        linear_num_value_heads=2,
        linear_conv_kernel_dim=3,
        layer_types=["full_attention", *["linear_attention"] * 2, *["full_attention"] * 2],
        rope_parameters=dict(
            rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5, **_MROPE
        ),
    ),
    "qwen3_next": _NEXT,
    "qwen3_next_not_renormalised": dict(
        _NEXT,
        num_hidden_layers=3,
        norm_topk_prob=False,
        attention_bias=True,
        tie_word_embeddings=True,
        linear_num_value_heads=2,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
}
