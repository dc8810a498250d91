"""The functions that losses and optimisers are written with once for all engines, of this framework's tensors."""

from __future__ import annotations

import tensorflow as tf

Axis = int | tuple[int, ...] | None


class TensorFlowArrays:
    """`Arrays` of ptycho_core/engine/losses.py."""

    abs = staticmethod(tf.abs)
    exp = staticmethod(tf.exp)
    log = staticmethod(tf.math.log)
    sqrt = staticmethod(tf.sqrt)
    square = staticmethod(tf.square)
    sign = staticmethod(tf.sign)
    where = staticmethod(tf.where)

    def maximum(self, x: tf.Tensor, least: tf.Tensor | float) -> tf.Tensor:
        return tf.maximum(x, least)

    def minimum(self, x: tf.Tensor, most: tf.Tensor | float) -> tf.Tensor:
        return tf.minimum(x, most)

    def sum(self, x: tf.Tensor, axis: Axis = None) -> tf.Tensor:
        return tf.reduce_sum(x, axis=axis)

    def mean(self, x: tf.Tensor, axis: Axis = None) -> tf.Tensor:
        return tf.reduce_mean(x, axis=axis)

    def constant(self, x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(x)


XP = TensorFlowArrays()
