"""How large the error of an object is, pixel by pixel, without a truth (specs/physics.md, Trust map).

An object pixel that S photons fell on has a random error of 1/√(2S) at best. Where positions, probe or object are
wrong, the patterns around it do not fit their counts, and X, their deviance a pixel, rises; both errors grow as √(X/S).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import scipy  # its submodules load on first use: this module imports fast
from numpy.typing import NDArray

from ptycho_core.physics.canvas import summed_weight
from ptycho_core.quality.alignment import align
from ptycho_core.quality.area import inside_hull
from ptycho_core.quality.frc import FRC, frc
from ptycho_core.quality.metrics import Mask
from ptycho_core.quality.truth import Imaged, as_truth, on_grid

ERROR_FACTOR = 4.0  # specs/physics.md, Trust map: κ where no split halves tell it
LIT, DARK = 0.02, 0.01  # specs/physics.md, Trust map: what counts as lit
DOUBTFUL, DOUBTFUL_TIMES = 0.2, 3.0  # specs/physics.md, Trust map: errors that leave a lit pixel unknown
FACTOR_PX, LEAST_SHARE = 8.0, 1e-3  # specs/physics.md, Trust map: σ over which κ is averaged, where halves tell it
SMOOTHED_PX = 2.0  # specs/physics.md, Trust map: σ over which an error is RMS
LARGEST_SHIFT_PX = 3.0  # of a half against the whole, where both have solved for their own probe


@attrs.frozen(eq=False, kw_only=True)
class TrustMap:
    """predicted_error: float32 (H, W), RMS, in the unit of the object; NaN where it is not known.

    known: bool (H, W), where enough light fell for an error that is not too large. factor: the median κ.
    factor_from: in words.
    """

    predicted_error: NDArray[np.float32]
    known: Mask
    factor: float
    factor_from: str


@attrs.frozen(eq=False, kw_only=True)
class SplitHalf:
    """Two reconstructions of half of the frames each.

    frc: of the two. error: float64 (H, W), |O₁ − O₂| / 2, RMS over a Gaussian of σ 2 px, NaN where not known: the error
    of the whole, as far as it differs between the halves. compared: bool (H, W), where both are known and scanned.
    """

    frc: FRC
    error: NDArray[np.float64]
    compared: Mask


def trust_map(
    *,
    positions_px: NDArray[np.float64],
    probe: NDArray[np.complex64],
    origin_px: tuple[float, float],
    shape: tuple[int, int],
    frame_deviance: NDArray[np.float64],
    intensities: NDArray[np.float64] | None = None,
    counts_per_intensity: float = 1.0,
    halves: SplitHalf | None = None,
) -> TrustMap:
    """κ √(X / 2S), with S = Σ|P|² of all frames placed, in counts, and X the mean of their deviance weighted by it.

    As its RMS over a Gaussian of σ 2 px of what is known.

    frame_deviance: (P,), Poisson deviance a pixel of each frame, best of held-out pixels; NaN takes no part.
    intensities: (P,), factor on |P|² of each frame. counts_per_intensity: counts in one unit of |P|².
    halves: they give κ, pixel by pixel and smooth, so that the map agrees with their difference; without them κ is
    `ERROR_FACTOR` everywhere.
    """
    weight = np.square(np.abs(probe), dtype=np.float64).sum(axis=0)
    factors = np.ones(len(positions_px)) if intensities is None else np.asarray(intensities, np.float64)
    told = np.isfinite(frame_deviance)

    def placed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return summed_weight(positions_px, weight, origin_px=origin_px, shape=shape, factors=values)

    light, judged = placed(factors), placed(factors * told)
    lit = lit_pixels(light) & lit_pixels(judged)
    with np.errstate(divide="ignore", invalid="ignore"):
        misfit = placed(factors * np.where(told, frame_deviance, 0)) / judged
        error = np.sqrt(misfit / (2 * light * counts_per_intensity))
        usual = np.sqrt(np.median(misfit[lit]) / (2 * light * counts_per_intensity)) if lit.any() else error
    factor: NDArray[np.float64] = np.full(shape, ERROR_FACTOR)
    source = "the default"
    if halves is not None and (both := lit & halves.compared & (halves.error > 0) & (error > 0)).any():
        factor, source = _factor(halves.error, _smoothed(error, lit), both), "split halves"
    known = lit.copy()
    if lit.any():  # by its light alone: where patterns or halves do not fit, the object is doubtful, not unknown
        known &= ERROR_FACTOR * usual <= max(DOUBTFUL, DOUBTFUL_TIMES * ERROR_FACTOR * float(np.median(usual[lit])))
    return TrustMap(
        predicted_error=_smoothed(factor * error, known).astype(np.float32),
        known=known,
        factor=float(np.median(factor[lit])) if lit.any() else ERROR_FACTOR,
        factor_from=source,
    )


def _factor(found: NDArray[np.float64], told: NDArray[np.float64], both: Mask) -> NDArray[np.float64]:
    """(H, W): found over told, the mean of its logarithm over a Gaussian of `both`; the median far from them."""
    ratio = np.log(found[both] / told[both])
    usual = float(np.median(ratio))
    excess, share = np.zeros(both.shape), both.astype(np.float64)
    excess[both] = ratio - usual
    excess, share = (scipy.ndimage.gaussian_filter(values, FACTOR_PX) for values in (excess, share))
    return np.asarray(np.exp(usual + excess / (share + LEAST_SHARE)))


def lit_pixels(light: NDArray[np.float64]) -> Mask:
    """Where more than `LIT` of the usual light fell: of the median over pixels with more than `DARK` of the largest.

    light: (H, W). None where there is no light at all.
    """
    shone = light > DARK * light.max(initial=0.0)
    return np.asarray(light > LIT * np.median(light[shone])) if shone.any() else shone


# ---- split halves ----------------------------------------------------------------------------------------------------


def halves_of(positions_px: NDArray[np.float64], seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The frames in two halves, every second of neighbours, so that both cover the scan as evenly as it was covered.

    positions_px: (M, 2), M ≥ 2. Neighbours are taken in pairs, in the order of the leaves of a k-d tree; which of
    a pair goes into which half is drawn.

    >>> halves_of(np.array([[0.0, 0.0], [1.0, 0.0], [50.0, 0.0], [51.0, 0.0]]))  # neighbours go into different halves
    (array([0, 2]), array([1, 3]))
    """
    order = scipy.spatial.cKDTree(positions_px, leafsize=1).indices.astype(np.int64)
    pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
    pairs = np.random.default_rng(seed).permuted(pairs, axis=1)
    first, second = pairs.T
    if len(order) % 2:
        first = np.append(first, order[-1])
    return np.sort(first), np.sort(second)


def split_half(
    whole: Imaged, positions_px: NDArray[np.float64], solve: Callable[[NDArray[np.int64]], Imaged], *, seed: int = 0
) -> SplitHalf:
    """Solve two halves of the frames and compare them, on the canvas of the whole.

    positions_px: (M, 2), of the scan's frames. solve: gives the object of the frames at these indices. Before they are
    compared, each half loses global phase, scale, phase ramp and shift against the whole, as the three may differ in
    them; so the errors are those of the whole.
    """
    return compare_halves(whole, *(solve(index) for index in halves_of(positions_px, seed)))


def compare_halves(whole: Imaged, first: Imaged, second: Imaged) -> SplitHalf:
    """Of two reconstructions of half of the frames each; see `split_half`. DataError where they do not overlap."""
    height, width = whole.object_field.shape
    everywhere = np.ones((height, width), bool)
    known = everywhere if whole.known is None else whole.known
    inside = inside_hull(known, whole.positions_px, whole.origin_px)
    placed = [on_grid(as_truth(half), whole) for half in (first, second)]
    for _, covered in placed:
        inside = inside & covered
    alignments = [align(field, whole.object_field, inside, max_shift_px=LARGEST_SHIFT_PX) for field, _ in placed]
    one, other = (alignment.aligned for alignment in alignments)
    inside = alignments[0].mask & alignments[1].mask
    return SplitHalf(frc=frc(one, other, inside), error=_smoothed(np.abs(one - other) / 2, inside), compared=inside)


def _smoothed(error: NDArray[np.float64], inside: Mask) -> NDArray[np.float64]:
    """RMS over a Gaussian of the pixels inside; NaN outside."""
    power = scipy.ndimage.gaussian_filter(np.where(inside, np.square(error), 0), SMOOTHED_PX)
    share = scipy.ndimage.gaussian_filter(inside.astype(np.float64), SMOOTHED_PX)
    return np.where(inside, np.sqrt(power / np.maximum(share, np.finfo(np.float64).tiny)), np.nan)
