"""The switches of ``torch.backends.cudnn``; see `graphflow.backends`."""

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """Whether cuDNN is used: never."""
    return False
