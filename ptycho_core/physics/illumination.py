"""What lights a scan, and the unit of its counts: the facts that travel with every batch (specs/physics.md, Scale)."""

from __future__ import annotations

import functools

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.physics.weights import probe_mask
from ptycho_core.scans.scan import Scan
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, MEAN_INTENSITY, PROBE, Weights

CLEAR_PROBE_SCALE = 4.0  # specs/physics.md, Scale: the probe_scale at which a clear object has amplitude 1


def _kept(probe: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """A copy that nobody can write to: engines keep what they make of it for as long as it lives."""
    kept = np.array(probe, np.result_type(probe, np.complex64))
    if kept.ndim != 3 or kept.shape[1] != kept.shape[2]:
        raise ValueError(f"probe: expected shape (modes, N, N); received {kept.shape}")
    kept.flags.writeable = False
    return kept


@attrs.frozen(eq=False, kw_only=True)
class Illumination:
    """Probe and data scale. Nothing of it changes: whoever refines a probe makes another, `attrs.evolve(…, probe=…)`.

    probe: complex64 or complex128 (modes, N, N), in the unit of the diffraction amplitude; kept as a copy. input_scale:
    k, a network's input is k times the amplitude. mean_intensity: of a good pixel, in the unit of amplitude².
    counts_per_intensity: 1 where that unit is the photon.
    """

    probe: NDArray[np.complexfloating] = attrs.field(converter=_kept)
    input_scale: float
    mean_intensity: float
    counts_per_intensity: float

    def __repr__(self) -> str:
        modes, N, _ = self.probe.shape
        return f"Illumination({modes} mode{'s'[: modes > 1]} of {N} x {N}, mean intensity {self.mean_intensity:.4g})"

    @classmethod
    def of(
        cls,
        scan: Scan,
        *,
        nphotons: float,
        gauge: str = "mean",
        masked: bool = False,
        probe_scale: float = CLEAR_PROBE_SCALE,
    ) -> Illumination:
        """Measured on the frames of a scan: numbers rounded to float32, in which archives hold them.

        nphotons: mean counts of a frame where the dose is unknown. gauge, masked, probe_scale: `calibrated_probe`.
        """
        mean = mean_frame_intensity(scan)
        return cls(
            probe=calibrated_probe(scan, gauge, masked=masked, probe_scale=probe_scale),
            input_scale=_single(scan.N / 2 / np.sqrt(mean)),
            mean_intensity=_single(mean / int((~np.asarray(scan.bad_pixels)).sum())),
            counts_per_intensity=_single(counts_per_frame(scan, nphotons) / mean),
        )

    @classmethod
    def from_arrays(cls, arrays: Weights) -> Illumination:
        """Of the arrays that `arrays` gives, among any others."""
        pairs = np.asarray(arrays[PROBE])
        return cls(
            probe=np.ascontiguousarray(pairs).view(np.result_type(pairs, np.complex64))[..., 0],
            input_scale=float(arrays[INPUT_SCALE]),
            mean_intensity=float(arrays[MEAN_INTENSITY]),
            counts_per_intensity=float(arrays[COUNTS_PER_INTENSITY]),
        )

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Under their canonical names, as archives hold them: all in the precision of the probe."""
        numbers = {
            INPUT_SCALE: self.input_scale,
            MEAN_INTENSITY: self.mean_intensity,
            COUNTS_PER_INTENSITY: self.counts_per_intensity,
        }
        pairs = self.pairs
        return {PROBE: pairs, **{name: np.array(number, pairs.dtype) for name, number in numbers.items()}}

    @property
    def pairs(self) -> NDArray[np.floating]:
        """The probe as real and imaginary parts, (modes, N, N, 2): a copy."""
        return np.stack([self.probe.real, self.probe.imag], axis=-1)

    @functools.cached_property
    def intensity(self) -> NDArray[np.float64]:
        """(N, N): Σ |P|² over the modes."""
        intensity: NDArray[np.float64] = np.square(self.pairs, dtype=np.float64).sum(axis=(0, 3))
        return intensity


def mean_frame_intensity(scan: Scan) -> float:
    """Mean over the frames of the summed intensity of the good pixels, in the unit of amplitude², float64."""
    return float(scan.statistics.frame_intensity.mean())


def counts_per_frame(scan: Scan, nphotons: float) -> float:
    """Mean counts of a frame: measured where the dose is known, else `nphotons`."""
    return mean_frame_intensity(scan) if scan.dose_known else nphotons


def calibrated_probe(
    scan: Scan, gauge: str, *, masked: bool = False, probe_scale: float = CLEAR_PROBE_SCALE
) -> NDArray[np.complex64]:
    """The scan's probe, complex64 (modes, N, N), in the unit of the diffraction amplitude.

    gauge "mean": the empty beam puts the mean frame intensity into the good pixels, so that a clear object has
    |O| = 1 (without bad pixels and mask: Σ|P|² = mean frame intensity), and is then divided by `probe_scale` / 4, so
    that it has |O| = probe_scale / 4; "given": unchanged. masked: `probe_mask`.
    """
    probe = scan.probe.astype(np.complex128)
    if gauge == "mean":
        lit = probe * probe_mask(scan.N) if masked else probe
        beam = np.fft.fftshift(np.abs(np.fft.fft2(lit, norm="ortho")) ** 2, axes=(-2, -1)).sum(axis=0)
        probe *= np.sqrt(mean_frame_intensity(scan) / beam[~np.asarray(scan.bad_pixels)].sum())
        probe /= probe_scale / CLEAR_PROBE_SCALE
    return probe.astype(np.complex64)


def _single(number: float) -> float:
    return float(np.float32(number))
