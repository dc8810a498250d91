"""What the network is."""

from __future__ import annotations

from typing import Literal

import attrs

from ptycho_core.errors import NoEffectError
from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import (
    at_least,
    check_effects,
    fields_of,
    only,
    setting,
    what_is_set,
)

CANVAS, CANVAS_GROUP = "canvas", 16
"""The architecture that works on the canvas of a group, and the patterns in one of its groups."""
CNN = "cnn"
"""The one that works on patches: what files name by leaving `architecture` out (specs/archive.md)."""
GENERATORS = ("fno", "ffno", "uno", "hybrid_resnet")
"""Those of other publications, which have heads of their own: real and imaginary part (specs/model.md)."""
NO_GENERATOR = (
    *("amp_activation", "probe_big", "pad_object", "amplitude_ceiling"),
    *("cbam_encoder", "cbam_bottleneck", "cbam_decoder", "eca_encoder", "eca_decoder", "spatial_decoder"),
)
"""Settings that they do not know."""
NO_CANVAS = (
    *("gridsize", "amp_activation", "object_big", "probe_big", "pad_object", "gaussian_smoothing_sigma"),
    *("amplitude_ceiling", "merge_weights", "cbam_encoder", "cbam_bottleneck", "cbam_decoder"),
    *("eca_encoder", "eca_decoder", "spatial_decoder"),
)
"""Settings that it does not know."""


@explained
@attrs.define(kw_only=True)
class ModelConfig:
    """What the network is: fixed once it is trained, stored in its archive.

    >>> ModelConfig(N=64, architecture="cnn", gridsize=2).gridsize
    2
    >>> ModelConfig(architecture="cnn", amp_activation="tanh").validate()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ptycho_core.errors.ConfigurationError: ModelConfig: amp_activation must be ...
    """

    __repr__ = what_is_set

    N: int = setting(64, "Side of a diffraction pattern and of an object patch, pixels.", at_least(16))
    gridsize: int = setting(1, "A group holds gridsize² overlapping patterns.", at_least(1), common=True)
    group_size: int | None = setting(
        None, "Patterns in a group, any number; gridsize² if unset, and 16 with architecture = canvas.", at_least(1)
    )
    n_filters_scale: int = setting(2, "Multiplier of the width of every layer.", at_least(1))
    model_type: Literal["pinn", "supervised"] = setting(
        "pinn",
        "pinn: compare the predicted far field with the measurement; supervised: compare patches with ground truth.",
    )
    amp_activation: Literal["sigmoid", "swish", "softplus", "relu"] = setting(
        "sigmoid", "Activation of the amplitude head; silu is another spelling of swish.", spellings={"silu": "swish"}
    )
    object_big: bool = setting(
        True,
        "Merge the patches of a group into one object before the forward model; otherwise every pattern stands alone.",
    )
    probe_big: bool = setting(True, "With pad_object: also predict the object outside the central N/2 square.")
    probe_mask: bool = setting(False, "Multiply the probe by a circular mask of radius N/4.")
    pad_object: bool = setting(True, "Predict the central N/2 square and pad it with zeros.")
    probe_scale: float = setting(
        4.0,
        "The calibrated probe is divided by probe_scale / 4, which is then the amplitude of a clear object.",
        at_least(0, exclusive=True),
    )
    gaussian_smoothing_sigma: float = setting(
        0.0,
        "Standard deviation in pixels of a Gaussian smoothing of the exit wave; 0 for none.",
        at_least(0),
        beside={"model_type": only("pinn")},
    )
    architecture: str = setting(
        CANVAS,
        "Name of the network, or MODULE:FUNCTION that makes one of a single framework.",
        name=True,
        common=True,
    )
    canvas_blocks: int = setting(
        6, "Blocks of a data step and a correction.", at_least(1), beside={"architecture": only("canvas")}
    )
    warm_sweeps: int = setting(
        0,
        "Data steps with momentum before the first block; better images above 1e5 photons per pattern, noise below.",
        at_least(0),
        beside={"architecture": only("canvas")},
    )
    spectral_modes: int | None = setting(
        None,
        "Fourier modes that spectral convolutions keep each way; if unset 12, at most half the side of their maps.",
        at_least(1),
        beside={"architecture": only(*GENERATORS)},
    )
    spectral_blocks: int | None = setting(
        None,
        "Blocks of a spectral convolution; if unset 4, and 6 of hybrid_resnet.",
        at_least(1),
        beside={"architecture": only("fno", "ffno", "hybrid_resnet")},
    )
    amplitude_ceiling: float = setting(
        2.0,
        "Largest amplitude of a sigmoid head; an untrained network predicts half of it.",
        at_least(0, exclusive=True),
        beside={"amp_activation": only("sigmoid")},
    )
    merge_weights: Literal["probe", "uniform", "central"] = setting(
        "probe",
        "Weights of the patches in a merge: probe intensity, a plain count, or the central N/2 square only.",
        beside={"object_big": only(True), "gridsize": at_least(2), "model_type": only("pinn")},
    )
    cbam_encoder: bool = setting(False, "Channel and spatial attention (CBAM) in every block of the encoder.")
    cbam_bottleneck: bool = setting(False, "Channel and spatial attention (CBAM) between encoder and decoders.")
    cbam_decoder: bool = setting(False, "Channel and spatial attention (CBAM) in every block of the decoders.")
    eca_encoder: bool = setting(False, "Efficient channel attention (ECA) in every block of the encoder.")
    eca_decoder: bool = setting(False, "Efficient channel attention (ECA) in every block of the decoders.")
    spatial_decoder: bool = setting(False, "Spatial attention in every block of the decoders.")

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Refuse a field that has no effect with the others as they are: on construction, and when a run starts."""
        check_effects(self)
        fields = fields_of(type(self))
        unknown = {CANVAS: NO_CANVAS, **dict.fromkeys(GENERATORS, NO_GENERATOR)}
        for name in unknown.get(self.architecture, ()):
            usual = fields[name].default
            if getattr(self, name) != usual:
                shown = str(usual).lower() if isinstance(usual, bool) else usual
                expected, received = f"architecture = {CNN}", f"architecture = {self.architecture}"
                if name not in NO_GENERATOR:
                    expected += " or another one of patches"
                remedy = f"Set architecture to {CNN} (--architecture {CNN}), or leave {name} at {shown}"
                raise NoEffectError(
                    "ModelConfig",
                    name,
                    expected=expected,
                    received=received,
                    remedy=f"{remedy} and set group_size." if name == "gridsize" else f"{remedy}.",
                )
        if self.group_size is not None and self.gridsize != 1:
            received, remedy = f"group_size = {self.group_size}", "Leave gridsize at 1."
            raise NoEffectError(
                "ModelConfig", "gridsize", expected="group_size is unset", received=received, remedy=remedy
            )

    @property
    def channels(self) -> int:
        """C, patterns per group."""
        if self.group_size is not None:
            return self.group_size
        return CANVAS_GROUP if self.architecture == CANVAS else self.gridsize**2

    @property
    def merges(self) -> bool:
        """Whether the patches of a group become one object before the forward model and the losses."""
        return self.object_big and self.channels > 1 and self.model_type == "pinn"
