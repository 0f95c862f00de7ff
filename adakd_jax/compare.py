"""Compares two evaluations example by example: `python -m adakd_jax.compare EVALUATION OTHER`."""

import sys
from collections.abc import Sequence

from pydantic import Field, PositiveInt

from adakd_jax.config.parse import parse
from adakd_jax.config.stage import Stage

PROG = "python -m adakd_jax.compare"


class CompareCommand(Stage):
    """What is compared."""

    first: str = Field(description="folder that adakd_jax.evaluate --output wrote")
    second: str = Field(description="another, of the same rows; of each its first model counts")
    resamples: PositiveInt = Field(default=10_000, description="bootstrap resamples")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config, _ = parse(
        CompareCommand,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description="Says by how much two evaluated models differ, by a paired bootstrap.",
        positionals=("first", "second"),
        requires_config=False,
    )
    # Imported late: help and mistakes in flags do not wait for JAX.
    from adakd_jax.console import Console
    from adakd_jax.eval.command import user_errors
    from adakd_jax.eval.comparison import compare
    from adakd_jax.eval.evaluation_file import read_evaluation
    from adakd_jax.eval.table import compared_table

    with user_errors(PROG):
        name, one = read_evaluation(config.first)
        other_name, other = read_evaluation(config.second)
        compared = compare(one, other, resamples=config.resamples)
    print(f"first: {name}\nsecond: {other_name}")
    Console().print(compared_table(compared))


if __name__ == "__main__":
    main()
