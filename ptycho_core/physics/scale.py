"""What a training set fixes for good: data scale and calibrated probe (specs/physics.md, Scale)."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.physics.weights import probe_mask
from ptycho_core.scans.scan import Scan
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, MEAN_INTENSITY, PROBE, Weights

CLEAR_PROBE_SCALE = 4.0  # specs/physics.md, Scale: the probe_scale at which a clear object has amplitude 1


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
    """k = sqrt((N/2)² / mean frame intensity) and its companions; nphotons: mean count per frame of an unknown dose."""
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
