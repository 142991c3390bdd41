"""``torch.backends.mps``: tensors never live on Apple's GPUs."""


def is_available() -> bool:
    """Whether tensors can be put on ``mps``: never."""
    return False


def is_built() -> bool:
    """Whether there is code for ``mps``: no."""
    return False
