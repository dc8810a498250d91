"""Canonical numpy arrays ↔ tensors of this framework."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.layouts import HWIO_TO_OIHW, OIHW_TO_HWIO


def to_tensor(name: str, array: NDArray[np.floating], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The array under `name` as a new tensor; kernels become (out, in, kh, kw), channels last in memory."""
    array = np.asarray(array)
    if name.endswith("/kernel"):
        # The copy gives plain strides: an axis of length 1 may have any, and a convolution's gradient minds them.
        array = np.ascontiguousarray(rearrange(array, HWIO_TO_OIHW))
        tensor = torch.tensor(array, dtype=dtype, device=device)
        return tensor.contiguous(memory_format=torch.channels_last)
    return torch.tensor(array, dtype=dtype, device=device)


def to_array(name: str, tensor: Tensor) -> NDArray[np.floating]:
    """The inverse of `to_tensor`: a new array in the canonical layout."""
    array = tensor.detach().cpu().numpy()
    return np.array(rearrange(array, OIHW_TO_HWIO) if name.endswith("/kernel") else array)


def to_tensors(
    weights: Mapping[str, NDArray[np.floating]], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    return {name: to_tensor(name, array, dtype, device) for name, array in weights.items()}


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.floating]]:
    return {name: to_array(name, tensor) for name, tensor in tensors.items()}
