"""Every test runs on the CPU, with shapes checked and warnings as errors."""

import importlib.util
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Compiling is what these tests spend their time on: optimising tiny programs does not pay.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

from jaxtyping import install_import_hook

# Not `config`: pydantic checks its own types.
CHECKED = ("axes", "sharding", "data", "models", "pruning", "hf", "distill", "training", "eval")
install_import_hook([f"adakd_jax.{name}" for name in CHECKED], "beartype.beartype")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/adakd_jax/tests"))
# Small programs too: most of a warm run would be compiling them again.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# The parity extra; .ci/run installs it and runs these files.
collect_ignore_glob = []
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob.append("*/test_parity_*.py")
if importlib.util.find_spec("peft") is None:
    collect_ignore_glob.append("*/test_parity_peft.py")


@pytest.fixture(scope="module", autouse=True)
def few_programs_are_kept():
    """A program on the CPU holds some hundred memory mappings, and Linux grants a process 65,530:
    past them LLVM ends it with a segmentation fault.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()


@pytest.fixture
def libtpu(monkeypatch):
    """Compiles for TPUs that are not there."""
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    # Otherwise two test processes at once are one too many.
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # What is compiled for an absent device cannot be read back from the compilation cache.
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
