"""What an engine is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.parts import Part
from ptycho_core.physics.illumination import Illumination


@attrs.frozen(eq=False, kw_only=True)
class Batch:
    """What an engine is given: numpy arrays and plain values, channels last; B groups of C overlapping frames.

    diffraction_amplitude: float32 (B, N, N, C), square root of the intensity, bad pixels zero.
    relative_offsets_px: float32 (B, 1, 2, C), [x, y] on axis 2, -(position - group centre).
    canvas_padding_px: border of the merge canvas on each side; at least max |relative offset|, one for a whole run.
    bad_pixels: bool (N, N).
    illumination: probe and data scale, of the whole batch; another batch may have another.
    object_patches: complex64 (B, N, N, C) ground truth at the same positions, or None.
    held_out: int64 (B, H), which frames of each group a network of a canvas does not see; None is none of them.
    scan: which of the scans of a run it is of, from 1; None where there is one.
    whole: of how many groups the batch is that this is one process's share of, which may be empty; None: it is all.
    """

    diffraction_amplitude: NDArray[np.float32]
    relative_offsets_px: NDArray[np.float32]
    canvas_padding_px: int
    bad_pixels: NDArray[np.bool_]
    illumination: Illumination
    object_patches: NDArray[np.complex64] | None = None
    held_out: NDArray[np.int64] | None = None
    scan: int | None = None
    whole: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.illumination.probe.shape[-1] != self.diffraction_amplitude.shape[1]:
            expected, received = self.diffraction_amplitude.shape[1:3], self.illumination.probe.shape
            raise ValueError(f"batch: expected a probe (modes, {expected[0]}, {expected[1]}); received {received}")

    def __repr__(self) -> str:
        groups, N, _, members = self.diffraction_amplitude.shape
        return f"Batch({groups} groups of {members} patterns of {N} x {N}, {self.illumination!r})"

    def __len__(self) -> int:
        return len(self.diffraction_amplitude)

    @property
    def seen(self) -> Batch:
        """The frames that are not held out, as a batch of smaller groups."""
        if self.held_out is None:
            return self
        rest = np.ones((len(self), self.diffraction_amplitude.shape[3]), bool)
        np.put_along_axis(rest, self.held_out, False, axis=1)
        return self._of_frames(np.nonzero(rest)[1].reshape(len(self), -1))

    @property
    def compared(self) -> Batch:
        """The frames whose loss it is: those that are held out, or all where none is."""
        return self if self.held_out is None else self._of_frames(self.held_out)

    def _of_frames(self, chosen: NDArray[np.int64]) -> Batch:
        """chosen: (B, n), of each group."""
        index = chosen[:, None, None]
        truth = self.object_patches
        return attrs.evolve(
            self,
            diffraction_amplitude=np.take_along_axis(self.diffraction_amplitude, index, axis=3),
            relative_offsets_px=np.take_along_axis(self.relative_offsets_px, index, axis=3),
            object_patches=None if truth is None else np.take_along_axis(truth, index, axis=3),
            held_out=None,
        )

    @property
    def share(self) -> float:
        """The weight of its mean in that of the whole batch."""
        return 1.0 if self.whole is None else len(self) / self.whole

    def parts(self, size: int) -> Iterator[Batch]:
        """Views of at most `size` groups each, in order."""
        return (self._groups(slice(start, start + size)) for start in range(0, len(self), size))

    def shares(self, batches: Sequence[int], part: Part) -> Iterator[Batch]:
        """Of groups that are a part of every one of `batches`, numbers of groups: each part, empty ones too."""
        start = 0
        for whole in batches:
            own = part.of(whole)
            stop = start + own.stop - own.start
            yield attrs.evolve(self._groups(slice(start, stop)), whole=whole)
            start = stop

    def _groups(self, groups: slice) -> Batch:
        """A view of some of the groups."""
        return Batch(
            diffraction_amplitude=self.diffraction_amplitude[groups],
            relative_offsets_px=self.relative_offsets_px[groups],
            canvas_padding_px=self.canvas_padding_px,
            bad_pixels=self.bad_pixels,
            illumination=self.illumination,
            object_patches=None if self.object_patches is None else self.object_patches[groups],
            held_out=None if self.held_out is None else self.held_out[groups],
            scan=self.scan,
        )
