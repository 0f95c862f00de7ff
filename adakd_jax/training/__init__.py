"""The jitted train step, its state, its loop and its checkpoints."""
