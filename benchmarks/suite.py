"""Which contender runs on which case, in which environment."""

from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import Batch, full_rows
from benchmarks.flops import Method

ROOT = Path(__file__).parents[1]
OURS, TUNIX, TORCH = (ROOT / name for name in (".venv", ".venv-tunix", ".venv-torch"))


class Contender(NamedTuple):
    """A training step to be timed.

    Attributes:
        title: how tables call it.
        environment: folder of the virtual environment that it runs in.
        module: file of benchmarks/contenders.
        kind: what that file is to do.
        method: what its loss cannot do without; None where operations are not counted.
        packs: whether several documents share a row.
    """

    title: str
    environment: Path
    module: str
    kind: str
    method: Method | None
    packs: bool = False

    @property
    def name(self) -> str:
        """Unique among the contenders."""
        return f"{self.module} {self.kind}"


def _ours(title: str, kind: str, method: Method) -> Contender:
    return Contender(title, OURS, "ours", kind, method, packs=True)


def _adakd(ratio: float) -> Contender:
    title = f"ours, chunked, AdaKD r = {ratio:g}"
    return _ours(title, f"chunked adakd {ratio:g}", Method(ranks=True, keep_ratio=ratio))


PRODUCT = Contender("one matrix product", OURS, "product", "float32", None)
REFERENCE = Contender("tunix, plain forward KL", TUNIX, "tunix", "forward_kl", Method())
CONTENDERS = (
    REFERENCE,
    _ours("ours, chunked, plain reverse KL", "chunked reverse_kl", Method()),
    *map(_adakd, (1.0, 0.75, 0.5, 0.2)),
    _ours(
        "ours, chunked, AdaKD r = 1, kept logits",
        "chunked adakd 1 kept",
        Method(ranks=True, keeps_logits=True),
    ),
    _ours("ours, dense, plain reverse KL", "dense reverse_kl", Method()),
    _ours(
        "ours, dense, AdaKD r = 0.75",
        "dense adakd 0.75",
        Method(ranks=True, keep_ratio=0.75, keeps_logits=True),
    ),
    Contender(
        "torch + transformers, plain reverse KL", TORCH, "torch_loop", "reverse_kl", Method()
    ),
    Contender(
        "torch + transformers, AdaKD r = 0.75",
        TORCH,
        "torch_loop",
        "adakd",
        Method(ranks=True, keep_ratio=0.75, keeps_logits=True),
    ),
    Contender("torch + TRL's GKD loss", TORCH, "torch_loop", "trl_gkd", Method()),
)


class Case(NamedTuple):
    """Batches that every contender trains on: packed for those that pack, else `padded`.

    Attributes:
        name: what `--case` calls it.
        title: how tables call it.
        packed: batches, several documents a row.
        padded: batches of one document a row; the same where there is nothing to pack.
        packers: whether contenders that pack take part.
    """

    name: str
    title: str
    packed: list[Batch]
    padded: list[Batch]
    packers: bool = True

    def batches(self, contender: Contender) -> list[Batch]:
        """What a contender trains on."""
        return self.packed if contender.packs else self.padded


def full_case(rows: int, length: int) -> Case:
    """Full rows: no prompt, no padding."""
    batches = [full_rows(rows, length)]
    return Case(f"full-{rows}x{length}", f"{rows} × {length} tokens, full rows", batches, batches)


class Point(NamedTuple):
    """The loss alone, on some tokens and a vocabulary; in chunks of the default size if 0."""

    how: str
    tokens: int
    vocabulary: int
    chunk_size: int = 0

    @property
    def contender(self) -> Contender:
        """As something to be timed."""
        kind = f"{self.how} {self.tokens} {self.vocabulary} {self.chunk_size or ''}".rstrip()
        return Contender(f"loss alone, {kind}", OURS, "loss_stage", kind, None)


SWEEP = Case("loss", "The loss alone", [], [full_rows(1, 1)])
SWEPT_TOKENS, AT_TOKENS = (256, 512, 1024, 2048, 4096), 512
SWEPT_VOCABULARIES, AT_VOCABULARY = (16_384, 32_768, 49_152, 98_304, 151_936), 49_152
POINTS = tuple(
    Point(how, *size)
    for size in dict.fromkeys(
        [(tokens, AT_VOCABULARY) for tokens in SWEPT_TOKENS]
        + [(AT_TOKENS, vocabulary) for vocabulary in SWEPT_VOCABULARIES]
    )
    for how in ("dense", "chunked")
)
CHUNK_SIZES = (128, 256, 512, 1024)
CHUNK_POINTS = tuple(Point("chunked", 1024, AT_VOCABULARY, size) for size in CHUNK_SIZES)

LARGE = Case("large-loss", "The loss alone, Qwen2-7B → 1.5B", [], [full_rows(1, 1)])


def _large(kind: str) -> Contender:
    return Contender(f"loss alone, 7B → 1.5B, {kind}", OURS, "large_loss", kind, None)


LARGE_PLAIN = _large("plain")
LARGE_RATIOS = (1.0, 0.75, 0.5, 0.375)
LARGE_METHODS = {
    **{
        _large(f"adakd {ratio:g}"): ("AdaKD r = " + f"{ratio:g}", Method(True, ratio))
        for ratio in LARGE_RATIOS
    },
    _large("adakd 1 kept"): ("AdaKD r = 1, kept logits", Method(True, 1.0, True)),
}

ROWS, LENGTH, STEPS = 8, 512, 3


def dolly_cases(rows_file: Path, model: str) -> list[Case]:
    """Real instruction rows: ours packed; peers padded to 512, and to the longest of the batch.

    Args:
        rows_file: JSONL with `instruction`, `input`, `output`.
        model: where the tokenizer comes from.
    """
    from benchmarks.rows import dolly_batches

    packed, padded, longest = dolly_batches(rows_file, model, ROWS, LENGTH, STEPS)
    return [
        Case("dolly", f"Dolly rows, {ROWS} a step, padded to {LENGTH}", packed, padded),
        Case(
            "dolly-longest",
            f"Dolly rows, {ROWS} a step, padded to the longest",
            [],
            longest,
            packers=False,
        ),
    ]
