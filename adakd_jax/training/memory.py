"""How much memory a run has used."""

import re
import sys
from pathlib import Path

import jax

GIB = 2**30


def peak_memory() -> dict[str, float]:
    """Peaks since the start of this process, in GiB: of the process on the host (where the
    operating system tells), and of the fullest of its devices (CPU devices do not tell).
    """
    peaks = {}
    if (host := _host_bytes()) is not None:
        peaks["host_peak_gib"] = host / GIB
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    devices = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    if devices:
        peaks["device_peak_gib"] = max(devices) / GIB
    return peaks


def _host_bytes() -> int | None:
    # Linux's getrusage also counts what started this process (a notebook's kernel, say).
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
