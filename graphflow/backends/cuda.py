"""The switches of ``torch.backends.cuda``; see `graphflow.backends`."""


class Precision:
    """Whether matrix products may round their operands to fewer bits; they never do."""

    allow_tf32 = False


matmul = Precision()
