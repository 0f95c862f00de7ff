"""Signals: a wish to save in the train loop, an end elsewhere, even while Python cannot listen."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adakd_jax.training.interrupt import PATIENCE_SECONDS, StopRequest

# Minutes in one call of compiled code, during which no handler runs; as long as a compilation.
BUSY = """
import hashlib
import threading
from adakd_jax.training.interrupt import end_when_terminated
end_when_terminated()
threading.Timer(1.0, print, ("busy",), {"flush": True}).start()  # when the call is under way
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
"""


@pytest.fixture
def unwatched():
    """Without the thread that a command of an earlier test in this process may have left, which
    would take the signals raised here for its own, and end the process.
    """
    watcher = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(watcher)


@pytest.mark.usefixtures("unwatched")
def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"
        told = capfd.readouterr().err
        assert "SIGTERM: saves after this step" in told and "SIGTERM again" in told
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_program_that_is_busy_in_compiled_code():
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "busy\n"
    began = time.monotonic()
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0 and "nothing unsaved; the same command continues" in told
    assert PATIENCE_SECONDS <= time.monotonic() - began < PATIENCE_SECONDS + 20
