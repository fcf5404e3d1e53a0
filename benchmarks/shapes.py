"""Shapes of models that are measured with random weights; needs no library."""

SHAPES: dict[str, dict[str, int]] = {
    "34M": {"hidden_size": 384, "intermediate_size": 1280, "num_hidden_layers": 8,
            "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64,
            "vocab_size": 49_152},
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
             "vocab_size": 151_936},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
             "vocab_size": 151_936},
    "8B": {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36,
           "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
           "vocab_size": 151_936},
}  # fmt: skip
"""By what people call them: settings of `Qwen3Config`."""
