"""Networks of one framework, as a user writes them: `architecture = "tests.own_networks:torch_network"`."""

from __future__ import annotations

from typing import Any

from ptycho_core.settings.model import ModelConfig


def torch_network(model: ModelConfig) -> Any:
    import torch

    torch.manual_seed(0)
    convs = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(4, 2, 3, padding=1)
    return torch.nn.Sequential(*convs)


def keras_network(model: ModelConfig) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.layers.Conv2D(4, 3, padding="same", activation="gelu"), keras.layers.Conv2D(2, 3, padding="same")]
    )


def with_batch_norm(model: ModelConfig) -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))


def one_map(model: ModelConfig) -> Any:
    import torch

    return torch.nn.Conv2d(1, 1, 1)


def nothing(model: ModelConfig) -> Any:
    return 3


def broken(model: ModelConfig) -> Any:
    raise RuntimeError("no such layer")


def failing(model: ModelConfig) -> Any:
    import torch

    class Failing(torch.nn.Conv2d):
        def forward(self, x: Any) -> Any:
            raise ValueError("not today")

    return Failing(1, 2, 1)
