"""Loss terms of specs/physics.md, Losses, that are written in this framework: those of complex numbers.

The others stand once in ptycho_core/engine/losses.py.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ptycho_core.engine.losses import Compared
from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR


def realspace_mae(of: Compared) -> tf.Tensor:
    if of.lit is None:
        return tf.reduce_mean(of.modulus(of.patches - of.truth))
    error = of.modulus(of.patches - in_phase(of.truth, of.patches, of.lit))
    return tf.reduce_mean(of.lit * error) / tf.reduce_mean(of.lit)


TERMS: dict[str, Callable[[Compared], tf.Tensor]] = {"realspace_mae": realspace_mae}


# -- what they are made of -----------------------------------------------------------------------------------------


def in_scale(truth: tf.Tensor, of_truth: tf.Tensor, measured: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """The truth (2, B, C, N, N), each group's in the scale in which its intensities sum up to the measured ones."""
    shown, sought = (tf.reduce_sum(good * x, axis=(1, 2, 3)) for x in (of_truth, measured))
    return truth * tf.sqrt(sought / tf.maximum(shown, INTENSITY_FLOOR))[:, None, None, None]


def in_phase(truth: tf.Tensor, patches: tf.Tensor, lit: tf.Tensor) -> tf.Tensor:
    """The truth (2, B, C, N, N), each group's turned as fits the patches best where they are lit; a constant turn."""
    known, shown = tf.complex(*tf.unstack(truth)), tf.complex(*tf.unstack(tf.stop_gradient(patches)))
    alike = tf.reduce_sum(tf.cast(lit, known.dtype) * tf.math.conj(known) * shown, axis=(1, 2, 3), keepdims=True)
    turned = alike / tf.cast(tf.maximum(tf.abs(alike), MODULUS_FLOOR**2), known.dtype) * known
    return tf.stack([tf.math.real(turned), tf.math.imag(turned)])
