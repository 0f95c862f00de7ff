"""Token-adaptive knowledge distillation of large language models in JAX."""
