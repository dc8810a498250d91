"""Simulated scans: a probe over an object, its far field, and photon counts (specs/physics.md)."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan
from ptycho_core.simulation.files import is_file, kind_named
from ptycho_core.simulation.objects import OBJECT_KINDS, check_ranges, load_object, make_object, require_area
from ptycho_core.simulation.probes import PROBE_KINDS, make_probe
from ptycho_core.simulation.scans import SCAN_KINDS, make_positions, object_shape

__all__ = [
    "OBJECT_KINDS",
    "PROBE_KINDS",
    "SCAN_KINDS",
    "expected_intensity",
    "make_object",
    "make_positions",
    "make_probe",
    "object_shape",
    "simulate",
    "simulated_diffraction",
]

CHUNK_PIXELS = 2**20  # patch pixels worked on at a time: about 50 MB on the way
GREATEST_FRAME = 9e18  # counts; numpy draws Poisson numbers as int64, up to 9.2e18
HOT_PIXEL_FACTOR = 10  # counts of a hot pixel, in the scan's brightest ones


def simulate(
    *,
    N: int = 64,
    positions: int | ArrayLike = 1000,
    object: str | Path | NDArray[Any] = "lines",
    probe: str | Path | NDArray[Any] = "defocused-zone-plate",
    scan: str = "random",
    photons: float = 1e6,
    step_px: float | None = None,
    modes: int = 1,
    bad_pixels: int = 0,
    amplitude_range: tuple[float, float] = (0.5, 1.0),
    phase_range: tuple[float, float] = (0.0, 0.8),
    noise: bool = True,
    seed: int = 0,
) -> Scan:
    """A simulated scan with known truth; the same arguments give the same scan.

    N: side of a pattern and of an object patch, pixels; even, at least 16.
    positions: how many; or an (M, 2) array [x, y] of patch centres in the coordinates of the object, whose pixel [0, 0]
        is at (0, 0): then `scan` and `step_px` are not used.
    object: a name in OBJECT_KINDS, a file (.npy, .npz or an image) or a complex (H, W) array. Of a file or array the
        central part is used when the positions are generated, and all of it when they are given.
    probe: a name in PROBE_KINDS, a file (.npy, .npz) or a complex (N, N) or (modes, N, N) array. It is scaled to
        `photons` in any case.
    scan: a name in SCAN_KINDS.
    photons: expected counts of a frame, mean over the scan.
    step_px: mean distance of neighbouring positions, object pixels; None is N/8.
    modes: incoherent modes of the probe; a probe given with several keeps its own.
    bad_pixels: number of bad detector pixels at random places, half of them dead (0) and half hot (ten times the
        brightest count), marked in `Scan.bad_pixels`.
    amplitude_range, phase_range (radians): the ends between which an object that is no complex array varies.
    noise: Poisson counts; False gives the expected ones, without a draw.
    seed: of everything random. Object, positions, noise and bad pixels have a generator each, so a change to one leaves
        the draws of the others.

    The result's probe carries the counts: Σ|P|² is what a clear object, |O| = 1, would give a frame. Its object_field
    is the truth, its amplitude the square root of counts (dose_known), and its metadata hold the arguments.

    >>> scan = simulate(N=32, positions=50, object="siemens-star", photons=1e5)
    >>> scan.diffraction_amplitude.shape, scan.probe.shape, scan.positions_px.shape
    ((50, 32, 32), (1, 32, 32), (50, 2))
    >>> round(float((scan.diffraction_amplitude**2).sum() / 50), -4)  # photons per pattern
    100000.0
    """
    _require_integer("N", N, 16, "Use the side of the detector in pixels.")
    if N % 2:
        raise ConfigurationError(
            "simulation", "N", expected="an even number", received=N, remedy=f"Use {N - 1} or {N + 1}."
        )
    _require_integer("modes", modes, 1, "Use 1 for a coherent probe.")
    _require_integer("seed", seed, 0, "Give any non-negative whole number.")
    _require_integer("bad_pixels", bad_pixels, 0, "Use 0 for a flawless detector.")
    if bad_pixels >= N * N:
        expected, remedy = f"less than N² = {N * N}", "Leave some pixels good."
        raise ConfigurationError("simulation", "bad_pixels", expected=expected, received=bad_pixels, remedy=remedy)
    _require_positive("photons", photons, "Give the mean counts of a frame, 1e6 for example.")
    step = N / 8 if step_px is None else step_px
    _require_positive("step_px", step, "Give a distance in object pixels; N/8 is usual.")
    check_ranges(amplitude_range, phase_range)

    generators = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    object_rng, scan_rng, noise_rng, bad_rng = generators  # the order is part of what a seed means

    given = np.ndim(positions) > 0
    if given:
        positions_px = np.array(positions, dtype=np.float64)
    else:
        _require_integer("positions", positions, 1, "Say how many, or give an (M, 2) array.")
        positions_px = make_positions(scan, cast(int, positions), step, scan_rng, N=N)
    shape = object_shape(positions_px, N)
    ranges = {"amplitude_range": amplitude_range, "phase_range": phase_range}
    object_field = _scanned_object(object, shape, object_rng, ranges, whole=given)
    scaled = _probe_with_counts(make_probe(probe, N, modes=modes), object_field, positions_px, photons)

    amplitude = np.empty((len(positions_px), N, N), dtype=np.float32)
    start = 0
    for intensity in simulated_diffraction(object_field, scaled, positions_px):
        counts = noise_rng.poisson(intensity) if noise else intensity
        amplitude[start : start + len(counts)] = np.sqrt(counts)
        start += len(counts)
    if not amplitude.any():
        expected, remedy = "enough for a single count in the scan", "Use more photons."
        raise ConfigurationError("simulation", "photons", expected=expected, received=photons, remedy=remedy)
    bad = _spoil(amplitude, bad_pixels, bad_rng)

    return Scan(
        diffraction_amplitude=amplitude,
        positions_px=positions_px,
        probe=scaled,
        bad_pixels=bad,
        object_field=object_field,
        dose_known=True,
        source="simulation",
        metadata={
            "measurement": "amplitude",
            "amplitude_unit": "sqrt(counts)",
            "N": int(N),
            "positions": len(positions_px),
            "object": _name(object),
            "probe": _name(probe),
            "scan": "given" if given else scan,
            "photons": float(photons),
            "step_px": None if given else float(step),
            "modes": len(scaled),
            "bad_pixels": int(bad_pixels),
            **{key: [float(end) for end in ends] for key, ends in ranges.items()},
            "noise": bool(noise),
            "seed": int(seed),
        },
    )


def simulated_diffraction(
    object_field: NDArray[Any], probe: NDArray[Any], positions_px: ArrayLike
) -> Iterator[NDArray[np.float32]]:
    """Expected intensities at the positions, in order, in pieces of float32 (B, N, N); DC at pixel [N/2, N/2].

    object_field: complex (H, W), pixel [0, 0] at coordinate (0, 0). probe: complex (modes, N, N).
    positions_px: (M, 2), [x, y] of each patch centre. Memory depends on the piece, not on M.
    """
    for piece in _pieces(positions_px, probe.shape[-1]):
        yield expected_intensity(probe, extract_patches(object_field, piece, probe.shape[-1])).astype(np.float32)


def expected_intensity(probe: NDArray[Any], object_patches: NDArray[Any]) -> NDArray[Any]:
    """Far field of incoherent modes: I = Σ_m |fftshift(fft2(P_m · O, norm="ortho"))|², real (B, N, N).

    probe: complex (modes, N, N), sqrt(counts). object_patches: complex (B, N, N). In the precision of its input.
    The transform is orthonormal, so Σ I = Σ_m Σ |P_m · O|² (Parseval). DC is at pixel [N/2, N/2].
    """
    intensity: NDArray[Any] = sum(
        np.abs(fft.fft2(mode * object_patches, norm="ortho", overwrite_x=True)) ** 2 for mode in probe
    )
    return np.asarray(fft.fftshift(intensity, axes=(-2, -1)))


def _pieces(positions_px: ArrayLike, N: int) -> Iterator[NDArray[np.float64]]:
    positions = np.asarray(positions_px, dtype=np.float64)
    size = max(1, CHUNK_PIXELS // N**2)
    return (positions[start : start + size] for start in range(0, len(positions), size))


def _scanned_object(
    source: str | Path | NDArray[Any],
    shape: tuple[int, int],
    rng: np.random.Generator,
    ranges: dict[str, tuple[float, float]],
    *,
    whole: bool,
) -> NDArray[np.complex64]:
    """The object to scan, at least `shape`; all of a file or array where `whole`, else its centre."""
    if not whole or (isinstance(source, str) and (kind_named(source, OBJECT_KINDS) is not None or not is_file(source))):
        return make_object(source, shape, rng, **ranges)
    field = load_object(source, **ranges)
    require_area(field, shape, source=_name(source))
    return field


def _probe_with_counts(
    probe: NDArray[np.complex64],
    object_field: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    photons: float,
) -> NDArray[np.complex64]:
    """The probe scaled so that Σ_m Σ |P_m · O|², the counts of a frame by Parseval, has the mean `photons`."""
    power = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)
    patches = (extract_patches(object_field, piece, probe.shape[-1]) for piece in _pieces(positions_px, len(power)))
    totals = np.concatenate([np.einsum("bij,ij->b", np.abs(patch) ** 2, power) for patch in patches])
    if not totals.any():
        remedy = "Give an object that lets light through where the probe is."
        raise DataError("simulation", "object", expected="some light", received="none", remedy=remedy)
    scale = photons / totals.mean()
    if totals.max() * scale > GREATEST_FRAME:
        received = f"{photons:g}, {totals.max() * scale:.3g} in the brightest frame"
        expected, remedy = f"at most {GREATEST_FRAME:g} in a frame", "Use fewer photons."
        raise ConfigurationError("simulation", "photons", expected=expected, received=received, remedy=remedy)
    return np.asarray(probe * np.sqrt(scale), dtype=np.complex64)


def _spoil(amplitude: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Write `count` bad pixels into every frame, half of them hot; return where they are, bool (N, N)."""
    size = amplitude.shape[-1]
    rows, columns = np.divmod(rng.choice(size * size, count, replace=False), size)
    value = np.zeros(count, dtype=np.float32)
    value[: count // 2] = np.sqrt(HOT_PIXEL_FACTOR) * amplitude.max()
    amplitude[:, rows, columns] = value
    bad = np.zeros((size, size), dtype=np.bool_)
    bad[rows, columns] = True
    return bad


def _name(source: str | Path | NDArray[Any]) -> str:
    return str(source) if isinstance(source, str | Path) else "array"


def _require_integer(field: str, value: Any, least: int, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ConfigurationError(
            "simulation", field, expected=f"a whole number >= {least}", received=repr(value), remedy=remedy
        )


def _require_positive(field: str, value: Any, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < np.inf:
        raise ConfigurationError("simulation", field, expected="a number > 0", received=repr(value), remedy=remedy)
