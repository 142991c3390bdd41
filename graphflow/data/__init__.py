"""Datasets and batches: PyTorch's ``torch.utils.data``."""

from graphflow.data.collate import default_collate
from graphflow.data.dataset import Dataset, Subset, TensorDataset, random_split
from graphflow.data.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate", "random_split"]
