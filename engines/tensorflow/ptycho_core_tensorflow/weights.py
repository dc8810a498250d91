"""Canonical numpy arrays ↔ variables of this framework."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def to_tensor(name: str, array: NDArray[np.floating], dtype: tf.DType) -> tf.Variable:
    """The array under `name` as a new variable; the canonical layout is this framework's own."""
    return tf.Variable(np.asarray(array), dtype=dtype, trainable=False, name=name.replace("/", "_"))


def to_array(tensor: tf.Tensor) -> NDArray[np.floating]:
    """The inverse of `to_tensor`: a new array in the canonical layout."""
    return np.array(tensor.numpy())


def to_tensors(weights: Mapping[str, NDArray[np.floating]], dtype: tf.DType) -> dict[str, tf.Variable]:
    return {name: to_tensor(name, array, dtype) for name, array in weights.items()}


def to_arrays(tensors: Mapping[str, tf.Tensor]) -> dict[str, NDArray[np.floating]]:
    return {name: to_array(tensor) for name, tensor in tensors.items()}
