"""What goes into a loss besides arrays of tokens, and what comes out besides its value."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Array


class Signals(NamedTuple):
    """What changes from one optimizer step to the next; traced, so that a change never recompiles.

    Attributes:
        keep_ratio: [], share r of response tokens to keep, in (0, 1]; LATF's state before this
            step's update. Only the focus `latf` reads it.
        progress: [], step / total steps, in [0, 1].
        rng: a random key, for the rules that draw.
        learned: what is trained together with the student: `temperature` [] > 0 (CTKD), `projector`
            [Ds, Dt] (hidden states).
        review: [] bool, whether this step uses all tokens. Default: drawn from `rng`, which
            micro-batches with keys of their own would not agree about.
    """

    keep_ratio: Array
    progress: Array
    rng: Array | None = None
    learned: Mapping[str, Array] | None = None
    review: Array | None = None


class Denominators(NamedTuple):
    """By what each term of the loss is divided: token counts of a step, float32 []."""

    kd: Array
    ce: Array
    feature: Array


class Features(NamedTuple):
    """Hidden states after M layers of each model: student [..., M, Ds], teacher [..., M, Dt]."""

    student: Array
    teacher: Array


class LossReport(NamedTuple):
    """What a loss saw, without gradient. Scalars are sums, so micro-batches and devices add up.

    Attributes:
        kd: [], this call's part of L_KD: its numerator over `Denominators.kd`. Nats (times τ² if so
            configured).
        ce: [], this call's part of the cross-entropy with the labels at τ = 1. Nats.
        feature: [], this call's part of the feature term: mean squared distance of normalised
            hidden states.
        monitored_sum: [], numerator of the loss that LATF watches: of the kept tokens, or of all
            response tokens.
        monitored_tokens: [], its denominator: the watched loss is Σ sum / Σ tokens.
        forward_kl_sum: [], Σ over response tokens of KL(p‖q) at τ = 1. Nats; 0 without a teacher.
        reverse_kl_sum: [], Σ over response tokens of KL(q‖p) at τ = 1. Nats; 0 without a teacher.
        response_tokens: [], number of response tokens n.
        selected_tokens: [], number of kept tokens.
        scores: [...], difficulty of each response token, else 0.
        response: bool [...], tokens with a label.
        selected: bool [...], tokens kept by the focus.
        temperature: [...], student temperature τ of each kept token, else τ_base.
        hard: bool [...], tokens whose hidden states are compared.
        gradient_norms: [...], norm of the loss's gradient with respect to each token's logits
            (before the head's scale and soft cap), times Σ w, so that it is that of w·τ²·D where
            nothing else is in the loss; NaN where no gradient was taken. None unless asked for.
    """

    kd: Array
    ce: Array
    feature: Array
    monitored_sum: Array
    monitored_tokens: Array
    forward_kl_sum: Array
    reverse_kl_sum: Array
    response_tokens: Array
    selected_tokens: Array
    scores: Array
    response: Array
    selected: Array
    temperature: Array
    hard: Array
    gradient_norms: Array | None = None


PER_TOKEN = ("scores", "response", "selected", "temperature", "hard", "gradient_norms")


class Difficulty(NamedTuple):
    """What the tokens of a global micro-batch are told apart by. No gradient.

    Attributes:
        scores: [...], slot 1.
        entropy_rank: [...], u in [0, 1]: rank of the teacher's entropy among response tokens; None
            where no rule asks for it.
    """

    scores: Array
    entropy_rank: Array | None = None
