"""A torch.nn.Module or a keras.Model of your own, trained, archived and read again in its own engine.

    python examples/own_module.py
    ptycho train scan.npz --import examples/own_module.py --architecture own_module:torch_network --no-pad-object

A function makes the network from the configuration. Its archive holds the function's import path and its weights.
"""

from __future__ import annotations

from typing import Any

from ptycho_core import ModelConfig, Reconstruction, TrainingConfig, load_model, reconstruct, simulate, train
from ptycho_core.engine.registry import is_installed

FACTORIES = {"torch": "own_module:torch_network", "tensorflow": "own_module:keras_network"}


def torch_network(model: ModelConfig) -> Any:
    """Amplitudes (B, C, N, N) → C amplitudes and C phases (B, 2C, N, N)."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(model.channels, 16, 5, padding=2),
        torch.nn.GELU(),
        torch.nn.GroupNorm(4, 16),
        torch.nn.Conv2d(16, 2 * model.channels, 3, padding=1),
        torch.nn.Tanh(),
    )


def keras_network(model: ModelConfig) -> Any:
    """The same with channels last: (B, N, N, C) → (B, N, N, 2C)."""
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Conv2D(16, 5, padding="same", activation="gelu"),
            keras.layers.GroupNormalization(4),
            keras.layers.Conv2D(2 * model.channels, 3, padding="same", activation="tanh"),
        ]
    )


def main(backend: str) -> Reconstruction:
    """The object by a network of one framework, from its archive."""
    scan = simulate(object="dead-leaves", N=32, positions=60, photons=1e5, seed=1)
    model = ModelConfig(N=32, architecture=FACTORIES[backend], pad_object=False)
    trained = train(scan, TrainingConfig(model=model, backend=backend, nepochs=2, n_groups=60))
    print(backend, *(f"{row['total']:.4f}" for row in trained.history))
    return reconstruct(scan, load_model(trained.save(f"{backend}_model")))


if __name__ == "__main__":
    import sys

    sys.modules["own_module"] = sys.modules[__name__]  # run as a script, it is not found by its name
    for name in filter(is_installed, FACTORIES):
        print(main(name))
