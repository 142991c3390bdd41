"""The data and the network of job.toml."""

import graphflow as gf
from graphflow import nn
from graphflow.data import Dataset, TensorDataset, random_split

SPLIT_SEED = 0  # which digits are for testing must not depend on the training's seed


def data() -> list[Dataset]:
    """The 1,797 digits that come with scikit-learn, 60% for training, 20% each for validation and testing.

    Inputs are (64,) float32 in [0, 1], targets class numbers 0 to 9.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn: pip install 'graphflow[examples]'") from None
    pixels, digits = load_digits(return_X_y=True)
    dataset = TensorDataset(gf.tensor(pixels / 16, dtype=gf.float32), gf.tensor(digits, dtype=gf.int64))
    return list(random_split(dataset, [0.6, 0.2, 0.2], seed=SPLIT_SEED))


def model() -> nn.Module:
    """64 pixels to 10 class scores."""
    return nn.Sequential(
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(128, 10),
    )
