"""The evaluation sets that have a name, and the settings that papers on distillation report with.

MiniLLM (arXiv 2306.08543) assembled the sets; DistiLLM (2402.03898), AdaKD (2510.11615) and EGAD
(2605.01732) report on them.
"""

from types import MappingProxyType
from typing import Literal, NamedTuple

from adakd_jax.config.data import HubSource

SuiteName = Literal["dolly", "self_inst", "vicuna", "sinst", "uinst_short"]

SEEDS = (10, 20, 30, 40, 50)
SAMPLING = MappingProxyType(
    {"max_new_tokens": 256, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
)


class Suite(NamedTuple):
    """A named evaluation set.

    Attributes:
      title: what tables call it.
      rows: how many the published file has.
      hub: where to download it; None: it is only read from a local file.
    """

    title: str
    rows: int
    hub: HubSource | None


SUITES: MappingProxyType[SuiteName, Suite] = MappingProxyType(
    {
        "dolly": Suite("DollyEval", 500, HubSource(name="MiniLLM/dolly", files="valid.jsonl")),
        "self_inst": Suite(
            "Self-Instruct", 242, HubSource(name="MiniLLM/self-inst", files="valid.jsonl")
        ),
        "vicuna": Suite("Vicuna", 80, HubSource(name="MiniLLM/Vicuna", files="valid.jsonl")),
        "sinst": Suite("S-NI", 1694, HubSource(name="MiniLLM/sinst", files="11_/valid.jsonl")),
        # Not the papers' UnNI, whose references are long: it has a name of its own everywhere.
        "uinst_short": Suite("UnNI, short answers", 1050, None),
    }
)
