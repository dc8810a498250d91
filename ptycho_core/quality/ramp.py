"""The plane wave in an object: what a shift of the diffraction patterns adds to its phase, and nothing else shows."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.quality.alignment import coarse_ramp
from ptycho_core.quality.metrics import Image, Mask

ROUNDS = 20


@attrs.frozen(eq=False)
class Flattened:
    """A field without its ramp and global phase: field · exp(−i (phase_rad + ramp · [x, y])), from pixel [0, 0] on.

    field: complex128 (H, W). ramp_rad_per_px: (x, y).
    """

    field: NDArray[np.complex128]
    ramp_rad_per_px: tuple[float, float]
    phase_rad: float


def flattened(field: Image, inside: Mask) -> Flattened:
    """`field` without the plane wave that is most like it inside the mask: the one of the largest |Σ field · wave*|.

    field: complex (H, W). inside: bool (H, W), not empty. A field that is 0 there is left as it is.
    """
    image = np.asarray(field, np.complex128)
    rows, columns = np.nonzero(inside)
    places = np.stack([rows, columns]).astype(np.float64)
    middle = places.mean(axis=1, keepdims=True)
    values = image[inside]
    ramp = coarse_ramp(np.where(inside, image, 0))
    best = abs(_overlap(values, places - middle, ramp))
    normal = (places - middle) @ (np.abs(values) * (places - middle)).T
    for _ in range(ROUNDS):  # least squares of the phase that is left; a step that does not help is the last
        left = values * np.exp(-1j * (ramp @ (places - middle)))
        residual = np.angle(left * np.conj(left.sum()))
        step = np.linalg.pinv(normal) @ ((places - middle) @ (np.abs(values) * residual))
        if (reached := abs(_overlap(values, places - middle, ramp + step))) <= best:
            break
        ramp, best = ramp + step, reached
    wave = np.exp(-1j * (ramp[0] * np.arange(image.shape[0])[:, None] + ramp[1] * np.arange(image.shape[1])))
    flat = image * wave
    phase = float(np.angle(flat[inside].sum()))
    return Flattened(flat * np.exp(-1j * phase), (float(ramp[1]), float(ramp[0])), phase)


def _overlap(values: Image, places: NDArray[np.float64], ramp: NDArray[np.float64]) -> complex:
    return complex(np.sum(values * np.exp(-1j * (ramp @ places))))
