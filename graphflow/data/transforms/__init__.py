"""Transforms of images, as ``torchvision.transforms``.

An image is a uint8 array of shape (H, W) or (H, W, C), as readers give it, a Pillow image, or a tensor of
shape (..., C, H, W). What a transform is given decides what it returns: arrays stay arrays, Pillow images
Pillow images, tensors tensors. Random transforms draw from `sample_generator`, so that a DataLoader's samples
are the same for any number of workers, and after resuming.
"""

from graphflow.data.transforms.choice import RandomApply, RandomChoice, RandomOrder
from graphflow.data.transforms.color import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
)
from graphflow.data.transforms.convert import (
    Compose,
    ConvertImageDtype,
    Lambda,
    Normalize,
    PILToTensor,
    ToPILImage,
    ToTensor,
)
from graphflow.data.transforms.geometry import (
    CenterCrop,
    FiveCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    TenCrop,
)
from graphflow.data.transforms.image import InterpolationMode
from graphflow.data.transforms.resize import Resize
from graphflow.data.transforms.warp import RandomAffine, RandomRotation

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "FiveCrop", "GaussianBlur", "Grayscale",
    "InterpolationMode", "Lambda", "Normalize", "PILToTensor", "Pad", "RandomAffine", "RandomApply",
    "RandomChoice", "RandomCrop", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert",
    "RandomOrder", "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize", "TenCrop",
    "ToPILImage", "ToTensor",
]  # fmt: skip
