"""An op and a network of your own, in one file outside the package, trained on every engine that is installed.

    python examples/own_op_and_network.py

The op is described once, with one short function for each engine; the network is a table and exists in all of them.
Frameworks are imported inside the functions, so that an engine that is not installed is not missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_core import (
    ExecutionConfig,
    ModelConfig,
    TrainingConfig,
    fit,
    reconstruct,
    register_architecture,
    register_op,
    registered_engines,
    simulate,
)
from ptycho_core.engine.registry import is_installed
from ptycho_core.networks.table import INPUT, Table, TableBuilder

# -- the op: a leaky rectifier with a learned gain for each channel ------------------------------------------------


def leaky_torch(x: Any, *, gain: Any, slope: float) -> Any:
    """Maps are (B, C, H, W) here."""
    import torch

    return gain[:, None, None] * torch.where(x > 0, x, slope * x)


def leaky_tensorflow(x: Any, *, gain: Any, slope: float) -> Any:
    """Maps are (B, H, W, C)."""
    import tensorflow as tf

    return gain * tf.where(x > 0, x, tf.constant(slope, x.dtype) * x)


def leaky_reference(x: Any, *, gain: Any, slope: float) -> Any:
    """float64 numpy, (B, H, W, C), with the way back: from the gradient by the output to those by x and gain."""
    bent, bend = np.where(x > 0, x, slope * x), np.where(x > 0, 1.0, slope)
    return gain * bent, lambda g: (g * gain * bend, (g * bent).sum(axis=(0, 1, 2)))


def leaky_onnx(graph: Any, x: str, *, gain: str, slope: float) -> str:
    """For `ptycho export`: names of nodes in, the name of a node out; maps are (B, C, H, W)."""
    axes = graph.constant("leaky/axes", np.array([1, 2], np.int64))
    return str(graph.node("Mul", [graph.node("Unsqueeze", [gain, axes]), graph.node("LeakyRelu", [x], alpha=slope)]))


register_op(
    "leaky",
    "`gain` · x where x is positive, `slope` · `gain` · x elsewhere, a gain for each channel",
    settings={"slope": 0.1},
    parameters=lambda layer: {"gain": (layer.out_channels,)},
    initial={"gain": 1.0},
    torch=leaky_torch,
    tensorflow=leaky_tensorflow,
    reference=leaky_reference,
    onnx=leaky_onnx,
)


# -- the network: one trunk at half the resolution, two heads ------------------------------------------------------


@register_architecture("leaky_trunk")
def leaky_trunk(model: ModelConfig) -> Table:
    """(B, N, N, C) → amplitude and phase (B, N, N, C)."""
    width, channels = 8 * model.n_filters_scale, model.channels if model.object_big else 1
    table = TableBuilder(channels)
    x = table.max_pool("trunk/pool", table.conv("trunk/conv0", INPUT, width, "linear", kernel_size=5))
    for block in range(3):
        y = table.op(f"trunk/block{block}/leaky", "leaky", x, slope=0.2)
        y = table.conv(f"trunk/block{block}/conv", y, width, "linear")
        x = table.add(f"trunk/block{block}/sum", x, y)
    x = table.upsample("trunk/upsample", table.op("trunk/leaky", "leaky", x))
    amplitude = table.conv("amplitude/conv", x, channels, "sigmoid")
    return table.finish(
        amplitude=table.scale("amplitude/scale", amplitude, model.amplitude_ceiling),
        phase=table.scale("phase/scale", table.conv("phase/conv", x, channels, "tanh"), np.pi),
    )


def main() -> dict[str, Any]:
    """Train for two epochs on every installed engine; the largest difference of their objects decides."""
    scan = simulate(N=32, positions=80, photons=1e5, seed=1)
    model = ModelConfig(N=32, n_filters_scale=1, architecture="leaky_trunk")
    objects: dict[str, Any] = {}
    for backend in sorted(name for name in registered_engines() if is_installed(name)):
        config = TrainingConfig(model=model, backend=backend, nepochs=2, n_groups=80, learning_rate=4e-3)
        run = fit(scan, config, execution=ExecutionConfig(accelerator="cpu"))
        for report in run:
            print(f"{backend}: epoch {report.epoch}, loss {report.train['total']:.5f}")
        objects[backend] = reconstruct(scan, run.model).object_field
    first, *others = objects
    for other in others:
        difference = np.abs(objects[other] - objects[first]).max() / np.abs(objects[first]).max()
        print(f"{first} and {other}: objects differ by {difference:.1e} of the peak")
        if difference > 1e-3:
            raise SystemExit("the engines do not agree: look at the functions of the op")
    return objects


if __name__ == "__main__":
    main()
