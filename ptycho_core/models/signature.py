"""What an exported program takes and gives (specs/engine.md, Export)."""

from __future__ import annotations

import attrs

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks.registry import build_table
from ptycho_core.settings.model import ModelConfig

CHANNELS_LAST, AMPLITUDE_PHASE = LAYOUTS = ("channels-last", "nchw-amp-phase")
"""(B, N, N, C) → real and imaginary part likewise; (B, 1, N, N) → (B, 2, N, N), amplitude and phase."""
AMPLITUDE, OFFSETS, PROBE, BAD_PIXELS, MEAN_INTENSITY, COUNTS_PER_INTENSITY = (
    "diffraction_amplitude",
    "relative_offsets_px",
    "probe",
    "bad_pixels",
    "mean_intensity",
    "counts_per_intensity",
)
REAL, IMAGINARY, AMPLITUDE_AND_PHASE = "object_real", "object_imaginary", "object_amplitude_phase"


@attrs.frozen
class Value:
    """An input or output. dtype: "float32" or "bool". shape: a text is a length that is free."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    meaning: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} ({', '.join(map(str, self.shape))}), {self.meaning}"


@attrs.frozen
class Signature:
    """layout: one of LAYOUTS."""

    layout: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.outputs)


def signature_of(model: ModelConfig, layout: str = CHANNELS_LAST) -> Signature:
    """That of a network's program.

    Raises ConfigurationError for another layout, and where a network takes several frames and the layout has one.
    """
    if layout not in LAYOUTS:
        remedy, expected = "Choose one of them.", f"one of {', '.join(LAYOUTS)}"
        raise ConfigurationError("export", "layout", expected=expected, received=repr(layout), remedy=remedy)
    canvas, N = bool(build_table(model).canvas), model.N
    measured = "measured amplitude, the square root of the intensity in the unit of the "
    if layout == AMPLITUDE_PHASE:
        if model.channels > 1 and not canvas:
            remedy = f"Choose {CHANNELS_LAST}, or export a model of gridsize 1 or of architecture canvas."
            received = f"groups of {model.channels}"
            raise ConfigurationError(
                "export", "layout", expected=f"{layout} with one frame in a group", received=received, remedy=remedy
            )
        bad = "below 0 at bad pixels" if canvas else "bad pixels 0"
        meaning = measured + f"training scan, DC at [N/2, N/2], {bad}"
        result = "amplitude and phase, rad, of the object patch"
        return Signature(
            layout,
            (Value(AMPLITUDE, "float32", ("batch", 1, N, N), meaning),),
            (Value(AMPLITUDE_AND_PHASE, "float32", ("batch", 2, N, N), result),),
        )
    frames: str | int = "frames" if canvas else model.channels
    patches = ("batch", N, N, frames)
    scan = "scan" if canvas else "training scan"
    inputs = [Value(AMPLITUDE, "float32", patches, f"{measured}{scan}, DC at [N/2, N/2], bad pixels 0")]
    if canvas:
        offsets = "centre of the group minus position of the frame, pixels, x and y"
        probe = "the probe in the unit of the amplitude, real and imaginary part"
        inputs += [
            Value(OFFSETS, "float32", ("batch", 1, 2, frames), offsets),
            Value(PROBE, "float32", ("modes", N, N, 2), probe),
            Value(BAD_PIXELS, "bool", (N, N), "true = bad"),
            Value(MEAN_INTENSITY, "float32", (), "mean of the amplitude² of a good pixel of the scan"),
            Value(COUNTS_PER_INTENSITY, "float32", (), "photons in the unit of amplitude², 1 where that is the photon"),
        ]
    parts = ((REAL, "real"), (IMAGINARY, "imaginary"))
    outputs = [Value(name, "float32", patches, f"{part} part of the object patches") for name, part in parts]
    return Signature(layout, tuple(inputs), tuple(outputs))
