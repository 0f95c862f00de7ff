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
}
