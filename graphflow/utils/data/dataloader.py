"""``torch.utils.data.dataloader``'s place."""

from graphflow.data.collate import default_collate, default_convert
from graphflow.data.loader import DataLoader
from graphflow.data.workers import get_worker_info

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]
