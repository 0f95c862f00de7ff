"""How large a chunk of tokens pays on a device, and fits into its memory."""

from typing import Any, NamedTuple

GIB = 2**30


class ChunkLimits(NamedTuple):
    """What bounds a chunk of C tokens.

    Attributes:
        budget: bytes for the arrays [C, V] that are alive together.
        arrays: how many of these there are, as float32.
        tokens: C beyond which a chunk gains little; None: memory alone decides.
    """

    budget: float
    arrays: int
    tokens: int | None = None


# On a CPU, arrays near the size of its caches are worth more than large products
# (benchmarks/results/table.md, chunk size).
CPU = ChunkLimits(budget=2**27, arrays=6)

# Operations in bfloat16 for each byte to or from memory, and memory in GiB, by data sheet. The
# first name that a device's kind contains counts.
_KNOWN = {
    "tpu v4": (229, 32),
    "tpu v5 lite": (240, 16),
    "tpu v5e": (240, 16),
    "tpu v5": (166, 95),
    "tpu v6": (560, 32),
    "tpu7x": (313, 96),
    "b200": (281, 180),
    "h200": (206, 141),
    "h100": (295, 80),
    "a100-sxm4-40gb": (200, 40),
    "a100-pcie-40gb": (200, 40),
    "a100": (153, 80),
    "l40s": (419, 48),
    "l4": (403, 24),
    "a10": (208, 24),
    "v100": (139, 16),
    "t4": (203, 16),
}
_OTHER = (256, 16)
_SHARE = 8  # of the memory, one part


def limits_of(device: Any) -> ChunkLimits:
    """Of a JAX device, one of an ahead-of-time topology included.

    A chunk costs 2·V·(3·Ds + Dt) operations a token, and (12·Ds + 2·Dt)·V bytes for the heads and
    the gradient, however many tokens it has. With four times as many tokens as the device does
    operations a byte, these bytes take from a quarter (small student) to a half (small teacher) of
    the time of the products; what is left are the logits, which larger chunks do not make fewer.

    Args:
        device: with `platform` and `device_kind`.

    Returns:
        On a CPU: 128 MiB for six arrays. Else: an eighth of the memory for three, and at most four
        tokens for each operation a byte; of an unknown kind, 2 GiB and 1,024 tokens.
    """
    if device.platform == "cpu":
        return CPU
    kind = device.device_kind.lower()
    found = (numbers for name, numbers in _KNOWN.items() if name in kind)
    intensity, memory = next(found, _OTHER)
    return ChunkLimits(memory * GIB / _SHARE, arrays=3, tokens=128 * round(4 * intensity / 128))
