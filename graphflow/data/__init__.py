"""Datasets and batches: PyTorch's ``torch.utils.data``, and readers and transforms as torchvision's."""

from graphflow.data import transforms
from graphflow.data.collate import default_collate, default_convert
from graphflow.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from graphflow.data.loader import DataLoader
from graphflow.data.randomness import sample_generator
from graphflow.data.readers.cifar import CIFAR10, CIFAR100
from graphflow.data.readers.folder import ImageFolder, load_image
from graphflow.data.readers.idx import MNIST, FashionMNIST, read_idx
from graphflow.data.readers.npy import NpyDataset
from graphflow.data.readers.table import CsvDataset, ParquetDataset
from graphflow.data.samplers import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from graphflow.data.workers import WorkerInfo, get_worker_info

__all__ = [
    "CIFAR10", "CIFAR100", "MNIST", "BatchSampler", "ChainDataset", "ConcatDataset", "CsvDataset",
    "DataLoader", "Dataset", "DistributedSampler", "FashionMNIST", "ImageFolder", "IterableDataset",
    "NpyDataset", "ParquetDataset", "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset",
    "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "WorkerInfo", "default_collate",
    "default_convert", "get_worker_info", "load_image", "random_split", "read_idx", "sample_generator",
    "transforms",
]  # fmt: skip
