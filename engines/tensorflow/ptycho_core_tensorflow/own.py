"""A keras.Model as a layer (specs/model.md, Networks of one framework)."""

from __future__ import annotations

import tensorflow as tf

from ptycho_core.errors import BackendError, ConfigurationError
from ptycho_core.networks.own import OwnNetwork
from ptycho_core.registry import faults_of


def run_model(x: tf.Tensor, *, own: OwnNetwork, **parameters: tf.Tensor) -> tf.Tensor:
    """Maps (B, N, N, C) → (B, N, N, 2C), with these parameters in place of the model's."""
    if x.dtype.name != own.module.compute_dtype:
        expected, remedy = f"numbers of {own.module.compute_dtype}, as its layers compute", "Set precision to 32-true."
        source = f"architecture {own.place!r}"
        raise BackendError(source, "precision", expected=expected, received=x.dtype.name, remedy=remedy)
    values = [parameters[each.path.replace("/", ".")] for each in own.module.trainable_variables]
    with faults_of(f"architecture {own.place!r}", "a network that computes its maps"):
        y, _ = own.module.stateless_call(values, [], x)
    sought, given = (*x.shape[1:3], 2 * x.shape[3]), tuple(y.shape[1:])
    if sought != given:
        remedy = "Return amplitude, then phase, of every pattern: (B, N, N, 2C) for (B, N, N, C)."
        raise ConfigurationError(f"architecture {own.place!r}", expected=sought, received=given, remedy=remedy)
    return y
