"""The parts of a batch training job: its description, the user's code, checkpoints, progress, signals."""
