"""Token-adaptive knowledge distillation of large language models in JAX."""

import os
from typing import TYPE_CHECKING, Any

# transformers advises to install PyTorch, which nothing here needs.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

if TYPE_CHECKING:
    from adakd_jax.hf.export import save_pretrained
    from adakd_jax.hf.load import load_pretrained

__all__ = ["load_pretrained", "save_pretrained"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: help pages and mistakes in flags need not wait for JAX."""
    if name == "load_pretrained":
        from adakd_jax.hf.load import load_pretrained

        return load_pretrained
    if name == "save_pretrained":
        from adakd_jax.hf.export import save_pretrained

        return save_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
