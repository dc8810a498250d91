"""One scan as two that share no frame: to train on and to test with."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ConfigurationError
from ptycho_core.scans.scan import Scan

AXES = ("x", "y")


@attrs.frozen(eq=False, kw_only=True)
class Split:
    """Two parts of a scan, their frames in its order; lazy where the scan is.

    train_index, test_index, left_out: int64, which frames of the scan; together every frame once.
    axis, cut_px: of a spatial split: the coordinate that was cut, and where.
    """

    train: Scan
    test: Scan
    train_index: NDArray[np.int64]
    test_index: NDArray[np.int64]
    left_out: NDArray[np.int64]
    how: str
    seed: int | None = None
    axis: str | None = None
    cut_px: float | None = None
    margin_px: float = 0.0

    def __repr__(self) -> str:
        cut = f" at {self.axis} = {self.cut_px:g} px" if self.cut_px is not None else ""
        counts = f"{len(self.train_index)} patterns to train, {len(self.test_index)} to test"
        return f"Split({counts}, {len(self.left_out)} left out, {self.how}{cut})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: numbers of frames, and how they were chosen."""
        return {
            "how": self.how,
            "seed": self.seed,
            "axis": self.axis,
            "cut_px": self.cut_px,
            "margin_px": self.margin_px,
            "train_frames": len(self.train_index),
            "test_frames": len(self.test_index),
            "left_out_frames": len(self.left_out),
        }


def split(
    scan: Scan,
    test_fraction: float = 0.2,
    how: Literal["spatial", "random"] = "spatial",
    *,
    seed: int = 0,
    axis: Literal["x", "y"] | None = None,
    margin_px: float = 0.0,
) -> Split:
    """A training and a test scan; round(test_fraction · M) frames, at least 1, are for the test.

    how: "spatial" cuts the scanned area across `axis` (None: the one along which it is longer); the frames of greater
        coordinates are the test. "random" draws the test frames with `seed`: they overlap those of the training.
    margin_px: spatial only. Frames within half of it from the cut are left out of both, so that positions on the two
        sides are at least so far apart; from N + 1 on no patch of the test shares a pixel with one of the training.
    ConfigurationError: a value out of range, or a part that is left without a frame.

    >>> from ptycho_core import simulate
    >>> parts = split(simulate(N=16, positions=20), 0.25)
    >>> len(parts.train), len(parts.test)
    (15, 5)
    """
    count = len(scan)
    if not _is_number(test_fraction) or not 0 < test_fraction < 1:
        expected, received, remedy = "a number between 0 and 1", repr(test_fraction), "0.2 puts a fifth into the test."
        raise ConfigurationError("split", "test_fraction", expected=expected, received=received, remedy=remedy)
    if how not in ("spatial", "random"):
        raise ConfigurationError(
            "split", "how", expected="'spatial' or 'random'", received=repr(how), remedy="Choose one of these."
        )
    if axis is not None and axis not in AXES:
        remedy = "Choose the coordinate to cut across."
        raise ConfigurationError("split", "axis", expected="'x', 'y' or none", received=repr(axis), remedy=remedy)
    if not _is_number(margin_px) or not 0 <= margin_px < np.inf:
        expected, remedy = "a number of pixels >= 0", "Use 0 to keep every frame."
        raise ConfigurationError("split", "margin_px", expected=expected, received=repr(margin_px), remedy=remedy)
    if how == "random" and (axis is not None or margin_px):
        given = "axis" if axis is not None else "margin_px"
        expected, remedy = "none in a random split", "Use how='spatial', or leave it out."
        raise ConfigurationError("split", given, expected=expected, received=repr(axis or margin_px), remedy=remedy)
    if count < 2:
        raise ConfigurationError(
            "split", "scan", expected="one of at least 2 patterns", received=count, remedy="Give a longer scan."
        )

    tests = min(max(round(test_fraction * count), 1), count - 1)
    if how == "random":
        chosen = np.random.default_rng(seed).permutation(count)[:tests]
        return _parts(scan, np.isin(np.arange(count), chosen), np.zeros(count, bool), how=how, seed=seed)
    along = int(np.argmax(np.ptp(scan.positions_px, axis=0))) if axis is None else AXES.index(axis)
    coordinate = scan.positions_px[:, along]
    order = np.argsort(coordinate, kind="stable")
    is_test = np.zeros(count, bool)
    is_test[order[count - tests :]] = True
    cut = float(coordinate[order[count - tests - 1 : count - tests + 1]].mean())
    near = np.abs(coordinate - cut) < margin_px / 2
    return _parts(scan, is_test, near, how=how, axis=AXES[along], cut_px=cut, margin_px=float(margin_px))


def _parts(scan: Scan, is_test: NDArray[np.bool_], left_out: NDArray[np.bool_], **how: Any) -> Split:
    train, test = np.flatnonzero(~is_test & ~left_out), np.flatnonzero(is_test & ~left_out)
    if not (len(train) and len(test)):
        received = f"{len(train)} for training, {len(test)} for the test; {int(left_out.sum())} are near the cut"
        expected, remedy = "small enough to leave patterns on both sides of the cut", "Use a smaller margin."
        raise ConfigurationError("split", "margin_px", expected=expected, received=received, remedy=remedy)
    return Split(
        train=scan.subset(train),
        test=scan.subset(test),
        train_index=train,
        test_index=test,
        left_out=np.flatnonzero(left_out),
        **how,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
