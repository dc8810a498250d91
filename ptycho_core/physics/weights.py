"""Masks and weights on the pixels of a patch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.settings.model import ModelConfig

PROBE_WEIGHT_FLOOR = 1e-3  # specs/physics.md, Groups: of the peak of the summed probe intensity
MERGE_EPSILON = {
    "probe": 1e-6,
    "uniform": 1e-6,
    "central": 1e-3,
}  # specs/physics.md, Groups: added to the summed weights


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
    intensity: NDArray[np.float64], model: ModelConfig, weighting: str, middle_trim: int | None = None
) -> NDArray[np.float64]:
    """(N, N) weight of a patch on the object canvas: summed |P|² over its peak, or 1; 0 where it predicts nothing.

    intensity: (N, N), Σ |P|² over the modes. Nothing is predicted outside the central N/2 square with pad_object and
    without probe_big, and outside a probe mask.
    middle_trim: 0 outside the central square of so many pixels, too; a larger one than N changes nothing.
    """
    weight = np.ones((model.N, model.N))
    if weighting == "probe":
        weight = intensity / intensity.max()
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


def merge_weight(intensity: NDArray[np.float64], model: ModelConfig) -> NDArray[np.float64]:
    """(N, N) weight of a patch in a merge, constant in training. intensity: (N, N), Σ |P|² over the modes.

    "probe": summed |P|² (masked where probe_mask) in units of its peak, plus PROBE_WEIGHT_FLOOR; "uniform": 1;
    "central": 1 in the central N/2 square, else 0.
    """
    if model.merge_weights == "uniform":
        return np.ones((model.N, model.N))
    if model.merge_weights == "central":
        return 1 - outside_centre_mask(model.N)
    if model.probe_mask:
        intensity = intensity * probe_mask(model.N)
    return np.asarray(intensity / intensity.max() + PROBE_WEIGHT_FLOOR)


def canvas_border(N: int, padding: int, block: int) -> int:
    """The least border from `padding` on with which a canvas has whole blocks: N + 2 border is a multiple of block.

    N: a multiple of 2 where block is one.
    """
    return (-(-(N + 2 * padding) // block) * block - N) // 2


def lit_probe(intensity: NDArray[np.float64], model: ModelConfig) -> NDArray[np.float64]:
    """(N, N): Σ |P|² over the modes as data steps weigh it, within the probe mask where there is one."""
    return intensity * probe_mask(model.N) if model.probe_mask else intensity


def rms_radius_px(intensity: NDArray[np.float64]) -> float:
    """Of a probe's intensity (N, N), about its centroid."""
    rows, columns = np.indices(intensity.shape)
    y, x = (np.average(along, weights=intensity) for along in (rows, columns))
    return float(np.sqrt(np.average((rows - y) ** 2 + (columns - x) ** 2, weights=intensity)))
