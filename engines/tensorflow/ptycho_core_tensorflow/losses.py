"""Loss terms of specs/physics.md, Losses: the same numbers as every other engine's for the same batch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs
import tensorflow as tf

from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR


@attrs.frozen(eq=False, kw_only=True)
class Compared:
    """What the terms compare; None is what no term of the objective does.

    patches, truth: (2, B, C, N, N), real and imaginary part. predicted, measured: counts (B, C, N, N). good: (N, N), 1
    or 0. mean_counts: (), of the training set, a good pixel. lit: (N, N), weights of pixels that are compared with a
    truth of any phase; None where it is compared as it is.
    """

    patches: tf.Tensor
    truth: tf.Tensor | None = None
    predicted: tf.Tensor | None = None
    measured: tf.Tensor | None = None
    good: tf.Tensor | None = None
    mean_counts: tf.Tensor | None = None
    lit: tf.Tensor | None = None

    @functools.cached_property
    def deviance(self) -> tf.Tensor:
        """Half of it, a mean over the good pixels."""
        return masked_mean(half_deviance(self.predicted, self.measured), self.good)


def nll(of: Compared) -> tf.Tensor:
    return of.deviance / of.mean_counts


def reduced_deviance(of: Compared) -> tf.Tensor:
    return 2 * tf.stop_gradient(of.deviance)


def amplitude_mae(of: Compared) -> tf.Tensor:
    return masked_mean(amplitude_error(of.predicted, of.measured), of.good) / tf.sqrt(of.mean_counts)


def total_variation(of: Compared) -> tf.Tensor:
    """Mean |difference| of neighbouring pixels along x plus along y."""
    along_x = of.patches[..., :, 1:] - of.patches[..., :, :-1]
    along_y = of.patches[..., 1:, :] - of.patches[..., :-1, :]
    return tf.reduce_mean(modulus(along_x)) + tf.reduce_mean(modulus(along_y))


def realspace_mae(of: Compared) -> tf.Tensor:
    if of.lit is None:
        return tf.reduce_mean(modulus(of.patches - of.truth))
    error = modulus(of.patches - in_phase(of.truth, of.patches, of.lit))
    return tf.reduce_mean(of.lit * error) / tf.reduce_mean(of.lit)


TERMS: dict[str, Callable[[Compared], tf.Tensor]] = {
    term.__name__: term for term in (nll, reduced_deviance, amplitude_mae, total_variation, realspace_mae)
}


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


def masked_mean(x: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """Mean over the good pixels of x (B, C, N, N); good (N, N), 1 or 0."""
    return tf.reduce_sum(tf.reduce_mean(x * good, axis=(0, 1))) / tf.reduce_sum(good)


def half_deviance(predicted: tf.Tensor, measured: tf.Tensor) -> tf.Tensor:
    """Poisson negative log likelihood without its constant, per pixel: I - n + n ln(n / I); 0 for a perfect fit."""
    predicted = tf.maximum(predicted, INTENSITY_FLOOR)
    ratio = tf.where(measured > 0, measured, predicted) / predicted
    return predicted - measured + measured * tf.math.log(ratio)


def amplitude_error(predicted: tf.Tensor, measured: tf.Tensor) -> tf.Tensor:
    """| sqrt(I) - sqrt(n) |, per pixel; predicted and measured counts."""
    return tf.abs(tf.sqrt(tf.maximum(predicted, INTENSITY_FLOOR)) - tf.sqrt(measured))


def modulus(field: tf.Tensor) -> tf.Tensor:
    """|z| of a field (2, …), with a gradient at 0."""
    return tf.sqrt(tf.reduce_sum(tf.square(field), axis=0) + MODULUS_FLOOR**2) - MODULUS_FLOOR
