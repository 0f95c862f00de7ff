"""The mathematics of token-adaptive distillation, on arrays alone."""
