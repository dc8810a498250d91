"""Constants and scaling of the forward model, the same for every engine (specs/physics.md)."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.architecture import Weights
from ptycho_core.config import ModelConfig
from ptycho_core.contracts import Scan

INTENSITY_FLOOR = 1e-8  # specs/physics.md, Losses: predicted counts are at least this
MODULUS_FLOOR = 1e-6  # specs/physics.md, Losses: sqrt(|z|² + floor²) - floor stands for |z|, differentiable at 0
PROBE_WEIGHT_FLOOR = 1e-3  # specs/physics.md, Groups: of the peak of the summed probe intensity
MERGE_EPSILON = {
    "probe": 1e-6,
    "uniform": 1e-6,
    "central": 1e-3,
}  # specs/physics.md, Groups: added to the summed weights
ADAM_EPSILON = 1e-8  # specs/physics.md, Optimiser
AGC_FLOOR = 1e-3  # specs/physics.md, Optimiser: smallest norm of a unit's weights that its gradient is measured by

CLEAR_PROBE_SCALE = 4.0  # specs/physics.md, Scale: the probe_scale at which a clear object has amplitude 1

PROBE = "probe/field"  # (modes, N, N, 2): real and imaginary part
LOG_SCALE = "intensity/log_scale"  # (): predicted amplitude is multiplied by exp of it
INPUT_SCALE = "data/input_scale"  # (): k, network input = k · amplitude
MEAN_INTENSITY = "data/mean_intensity"  # (): of the training set, a good pixel
COUNTS_PER_INTENSITY = "data/counts_per_intensity"  # (): 1 where the dose is known


@attrs.frozen
class DataScale:
    """What a training set fixes for good; stored among the weights and reused for every later scan."""

    input_scale: float
    mean_intensity: float
    counts_per_intensity: float
    mean_counts_per_frame: float

    def as_weights(self) -> dict[str, NDArray[np.float32]]:
        """The scalars under their canonical names."""
        return {
            INPUT_SCALE: np.array(self.input_scale, np.float32),
            MEAN_INTENSITY: np.array(self.mean_intensity, np.float32),
            COUNTS_PER_INTENSITY: np.array(self.counts_per_intensity, np.float32),
        }


def mean_frame_intensity(scan: Scan) -> float:
    """Mean over the frames of the summed intensity of the good pixels, in the unit of amplitude², float64."""
    return float(scan.statistics.frame_intensity.mean())


def measure_scale(scan: Scan, nphotons: float) -> DataScale:
    """k = sqrt((N/2)² / mean frame intensity) and its companions; nphotons counts a frame where the dose is unknown."""
    mean = mean_frame_intensity(scan)
    counts = mean if scan.dose_known else nphotons
    return DataScale(
        input_scale=float(scan.N / 2 / np.sqrt(mean)),
        mean_intensity=mean / int((~np.asarray(scan.bad_pixels)).sum()),
        counts_per_intensity=counts / mean,
        mean_counts_per_frame=counts,
    )


def calibrated_probe(
    scan: Scan, gauge: str, *, masked: bool = False, scale: float = CLEAR_PROBE_SCALE
) -> NDArray[np.float32]:
    """The probe as the parameter (modes, N, N, 2) float32.

    gauge "mean": the empty beam puts the mean frame intensity into the good pixels, so that a clear object has
    |O| = 1 (without bad pixels and mask: Σ|P|² = mean frame intensity), and is then divided by `scale` / 4, so that it
    has |O| = scale / 4; "given": unchanged. masked: `probe_mask`.
    """
    probe = scan.probe.astype(np.complex128)
    if gauge == "mean":
        lit = probe * probe_mask(scan.N) if masked else probe
        beam = np.fft.fftshift(np.abs(np.fft.fft2(lit, norm="ortho")) ** 2, axes=(-2, -1)).sum(axis=0)
        probe *= np.sqrt(mean_frame_intensity(scan) / beam[~np.asarray(scan.bad_pixels)].sum())
        probe /= scale / CLEAR_PROBE_SCALE
    return np.stack([probe.real, probe.imag], axis=-1).astype(np.float32)


def complex_probe(weights: Weights) -> NDArray[np.complex64]:
    """The probe parameter of a set of weights as complex64 (modes, N, N)."""
    field = np.asarray(weights[PROBE])
    return np.asarray(field[..., 0] + 1j * field[..., 1], np.complex64)


def probe_mask(N: int) -> NDArray[np.float64]:
    """Disk of radius N/4 about pixel [N/2, N/2]: 1 inside, 0 outside; (N, N)."""
    distance = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    return (distance <= N / 4).astype(np.float64)


def outside_centre_mask(N: int) -> NDArray[np.float64]:
    """1 outside the central N/2 square, 0 inside; (N, N)."""
    mask = np.ones((N, N))
    mask[N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 0
    return mask


def smoothing_matrix(N: int, sigma: float) -> NDArray[np.float64]:
    """G (N, N): a field f smoothed by a Gaussian of `sigma` pixels is G f Gᵀ; zero outside, cut at 4 sigma."""
    radius = int(4 * sigma + 0.5)
    distance = np.arange(N)[:, None] - np.arange(N)[None]
    kernel = np.where(np.abs(distance) <= radius, np.exp(-0.5 * (distance / sigma) ** 2), 0)
    taps = np.arange(-radius, radius + 1)
    return np.asarray(kernel / np.exp(-0.5 * (taps / sigma) ** 2).sum())


def reassembly_weight(
    weights: Weights, model: ModelConfig, weighting: str, middle_trim: int | None = None
) -> NDArray[np.float64]:
    """(N, N) weight of a patch on the object canvas: summed |P|² over its peak, or 1; 0 where it predicts nothing.

    Nothing is predicted outside the central N/2 square with pad_object and without probe_big, and outside a probe mask.
    middle_trim: 0 outside the central square of so many pixels, too; a larger one than N changes nothing.
    """
    weight = np.ones((model.N, model.N))
    if weighting == "probe":
        weight = np.square(weights[PROBE], dtype=np.float64).sum(axis=(0, 3))
        weight /= weight.max()
    if model.probe_mask:
        weight = weight * probe_mask(model.N)
    if model.pad_object and not model.probe_big:
        weight = weight * (1 - outside_centre_mask(model.N))
    if middle_trim is not None and middle_trim < model.N:
        centre = slice((model.N - middle_trim) // 2, (model.N - middle_trim) // 2 + middle_trim)
        trimmed = np.zeros_like(weight)
        trimmed[centre, centre] = weight[centre, centre]
        weight = trimmed
    return weight


def merge_weight(probe: NDArray[np.floating], model: ModelConfig) -> NDArray[np.float64]:
    """(N, N) weight of a patch in a merge, constant in training. probe: (modes, N, N, 2).

    "probe": summed |P|² (masked where probe_mask) in units of its peak, plus PROBE_WEIGHT_FLOOR; "uniform": 1;
    "central": 1 in the central N/2 square, else 0.
    """
    if model.merge_weights == "uniform":
        return np.ones((model.N, model.N))
    if model.merge_weights == "central":
        return 1 - outside_centre_mask(model.N)
    intensity = np.square(probe, dtype=np.float64).sum(axis=(0, 3))
    if model.probe_mask:
        intensity *= probe_mask(model.N)
    return np.asarray(intensity / intensity.max() + PROBE_WEIGHT_FLOOR)
