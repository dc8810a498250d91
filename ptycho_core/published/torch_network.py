"""Networks of the published PyTorch implementation: which of them are ours too, and their weights by our names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError
from ptycho_core.layouts import OIHW_TO_HWIO
from ptycho_core.models.container import shown
from ptycho_core.networks.table import Table
from ptycho_core.settings.model import ModelConfig

UNKNOWN = "It is a variant that cannot be imported (docs/published.md): train it again."

SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "mode": ("Unsupervised",),
    "architecture": ("cnn",),
    "amp_activation": ("silu", "sigmoid", "swish", "relu", "softplus"),
    "cnn_output_mode": ("amp_phase",),
    "use_shared_decoder": (False,),
    "batch_norm": (False,),
    "use_legacy_decoder_channel_override": (False,),
    "eca_encoder": (False,),
    "cbam_decoder": (False,),
    "eca_decoder": (False,),
    "spatial_decoder": (False,),
}
"""Settings of the network that must have these values: with others it computes something that our table does not.

Of eca_encoder and the attention of the decoders the published versions differ in whether they apply them at all.
"""
REQUIRED = "use_legacy_decoder_channel_override"
"""Older versions, which do not know it, add the outer path to the centre too, and no archive of theirs says so."""

DECODERS = {"amplitude": ("decoder_amp", "amp"), "phase": ("decoder_phase", "phase")}
"""Our branch → the published decoder and its last stage."""


def check_settings(settings: Mapping[str, Any], source: str) -> None:
    """Refuse by name the settings of a network that cannot be ours."""
    if REQUIRED not in settings:
        expected, received = f"the setting {REQUIRED}", "an archive of an older version, without it"
        raise ArchiveError(source, "model_config", expected=expected, received=received, remedy=UNKNOWN)
    for name, values in SUPPORTED.items():
        value = settings.get(name, values[0])
        if value not in values:
            expected = " or ".join(repr(one) for one in values)
            raise ArchiveError(
                source, f"model_config.{name}", expected=expected, received=shown(repr(value), 60), remedy=UNKNOWN
            )


def read_network(state: object, source: str, table: Table, model: ModelConfig) -> dict[str, NDArray[np.floating]]:
    """The weights by our names, from the published ones. Raises ArchiveError where they are of another network."""
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        expected, received = "a dictionary of weights", f"a {type(state).__name__}"
        raise ArchiveError(source, expected=expected, received=received, remedy="Save its state_dict().")
    first = "encoder.blocks.0.conv1.weight"
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    if len(prefixes) != 1:
        received = ", ".join(shown(name, 80) for name in list(state)[:4]) or "none"
        raise ArchiveError(
            source, expected=f"the weights of one network, {first} among them", received=received, remedy=UNKNOWN
        )
    given = {name.removeprefix(prefixes[0]): array for name, array in state.items() if name.startswith(prefixes[0])}
    weights: dict[str, NDArray[np.floating]] = {}
    used = set()
    for name, shape in table.parameters.items():
        theirs = published_name(name)
        if theirs not in given and name.endswith("spatial/conv/bias"):
            weights[name] = np.zeros(shape, np.float32)  # the published gate of the pixels has none
            continue
        if theirs not in given:
            raise ArchiveError(
                source, prefixes[0] + theirs, expected=f"the weights of {name}", received="nothing", remedy=UNKNOWN
            )
        used.add(theirs)
        weights[name] = _to_ours(name, given[theirs], shape, f"{source}: {prefixes[0]}{theirs}")
    surplus = sorted(name for name in set(given) - used if not _unused(name, model))
    if surplus:
        received = f"{len(surplus)} others: {', '.join(shown(name, 80) for name in surplus[:4])}"
        raise ArchiveError(
            source, expected=f"the weights of {model.architecture} alone", received=received, remedy=UNKNOWN
        )
    return weights


def published_name(name: str) -> str:
    """`encoder/block0/conv1/kernel` → `encoder.blocks.0.conv2.weight`."""
    *path, part = name.split("/")
    last = {"kernel": "weight", "bias": "bias"}[part]
    match path:
        case ["encoder", block, conv]:
            return f"encoder.blocks.{_number(block)}.{_conv(conv)}.{last}"
        case ["encoder", block, "cbam", *gate]:
            return f"encoder.blocks.{_number(block)}.attention.{_gate(gate)}.{last}"
        case ["bottleneck", "cbam", *gate]:
            return f"bottleneck_cbam.{_gate(gate)}.{last}"
        case [branch, "head", "conv"]:
            return f"{'.'.join(DECODERS[branch])}.conv1.{last}"
        case [branch, "outer", "conv"]:
            return f"{'.'.join(DECODERS[branch])}.conv2.{last}"
        case [branch, "outer", conv]:
            return f"{'.'.join(DECODERS[branch])}.conv_up_block.{_conv(conv)}.{last}"
        case [branch, block, conv]:
            return f"{DECODERS[branch][0]}.blocks.{_number(block)}.{_conv(conv)}.{last}"
    raise KeyError(name)


def _number(block: str) -> str:
    return block.removeprefix("block")


def _conv(conv: str) -> str:
    return {"conv0": "conv1", "conv1": "conv2"}[conv]


def _gate(path: Iterable[str]) -> str:
    gates = {
        ("channel", "conv0"): "ChannelGate.mlp.1",
        ("channel", "conv1"): "ChannelGate.mlp.3",
        ("spatial", "conv"): "SpatialGate.compress",
    }
    first, second = path
    return gates[first, second]


def _unused(name: str, model: ModelConfig) -> bool:
    """Weights that the published network has and does not use: the outer path without `probe_big`."""
    return not model.probe_big and (
        ".conv_up_block." in name
        or name.endswith((".amp.conv2.weight", ".amp.conv2.bias", ".phase.conv2.weight", ".phase.conv2.bias"))
    )


def _to_ours(name: str, array: object, shape: tuple[int, ...], source: str) -> NDArray[np.floating]:
    """A kernel (out, in, kh, kw), or (out, in) of a linear layer, as (kh, kw, in, out); a bias as it is."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise ArchiveError(
            source, expected="an array of floating-point numbers", received=f"a {type(array).__name__}", remedy=UNKNOWN
        )
    if name.endswith("/kernel"):
        array = array[..., None, None] if array.ndim == 2 else array
        array = rearrange(array, OIHW_TO_HWIO) if array.ndim == 4 else array
    if array.shape != shape:
        raise ArchiveError(source, expected=f"{name} of shape {shape}", received=f"{array.shape}", remedy=UNKNOWN)
    return np.ascontiguousarray(array, np.float32)


def model_settings(settings: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our ModelConfig that the published network's own settings determine, rather than the flat dictionary.

    Its amplitude is a sigmoid or, whatever else is configured, a swish; its border is always that of pad_object.
    """
    stated = settings.get("amp_activation", flat.get("amp_activation", "silu"))
    return {
        "architecture": "published_torch",
        "amp_activation": "sigmoid" if stated == "sigmoid" else "swish",
        "pad_object": True,
        "cbam_encoder": bool(settings.get("cbam_encoder", False)),
        "cbam_bottleneck": bool(settings.get("cbam_bottleneck", False)),
    }
