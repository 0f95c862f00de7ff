"""Faults, tried: a real training is killed, starved and lied to, and what it does is written
down.
"""

import os

# The runs are tiny, and so are the models that are made for them here.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
