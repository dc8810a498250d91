"""What crosses module boundaries: a scan, the batches that an engine sees, grouped data (specs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, ending
from ptycho_core.scans.findings import Noticed, ranges
from ptycho_core.scans.frames import Frames, Statistics, measure
from ptycho_core.storage.pictures import Picture, shown

NPZ_KEYS = {
    "diffraction_amplitude": "diff3d",
    "positions_px": "xcoords, ycoords",
    "nominal_positions_px": "xcoords_start, ycoords_start",
    "probe": "probeGuess",
    "object_field": "objectGuess",
}
"""Under which keys an NPZ file holds a field; messages name both."""


@attrs.frozen(eq=False, kw_only=True)
class Scan:
    """One ptychographic scan, checked on construction.

    diffraction_amplitude: float32 (M, N, N), square root of the measured intensity, DC at pixel [N/2, N/2]; an array,
        or `Frames` that read it from a file when it is asked for. Both give arrays when indexed.
    positions_px: float64 (M, 2), [x, y] = [column, row] of each patch CENTRE, pixels of the object grid.
    probe: complex64 (modes, N, N); (N, N) is accepted as one mode.
    bad_pixels: bool (N, N), True = excluded from every loss and set to zero in the input.
    object_field: complex64 (H, W) or None: ground truth or reference; its pixel [0, 0] is at coordinate (0, 0).
    nominal_positions_px: float64 (M, 2): the positions that were asked for; the same as positions_px when unknown.
    scan_index: int64 (M,).
    dose_known: True when diffraction_amplitude² is in photon counts, not in an arbitrary unit.
    probe_known: False where nobody knows the probe: `probe` then stands for none, and only a solve can use the scan.
    source: what to call this scan in messages, usually its file.
    noticed: what reading its file has shown; None for a scan of no file.
    statistics: of the amplitudes, from the pass over them that checks them.
    """

    diffraction_amplitude: NDArray[np.float32] | Frames
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64]
    bad_pixels: NDArray[np.bool_] | None = None
    object_field: NDArray[np.complex64] | None = None
    nominal_positions_px: NDArray[np.float64] | None = None
    scan_index: NDArray[np.int64] | None = None
    dose_known: bool = False
    probe_known: bool = True
    source: str = "scan"
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    noticed: Noticed | None = None
    statistics: Statistics = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        amplitude = self.diffraction_amplitude
        if not isinstance(amplitude, Frames):
            self._refuse_counts(np.asarray(amplitude))
            amplitude = _array(self, "diffraction_amplitude", np.float32, "(M, N, N) real numbers", ndim=3)
        count, height, width = amplitude.shape
        if height != width:
            self._refuse("diffraction_amplitude", "square patterns (M, N, N)", amplitude.shape, "Crop or pad them.")
        if amplitude.size == 0:
            self._refuse("diffraction_amplitude", "at least one pattern", amplitude.shape, "Give a scan with data.")
        positions = _array(self, "positions_px", np.float64, "(M, 2) real numbers", ndim=2)
        if positions.shape != (count, 2):
            remedy = "Give one [x, y] position for every pattern."
            self._refuse("positions_px", f"shape ({count}, 2)", f"shape {positions.shape}", remedy)
        if not np.isfinite(positions).all():
            self._refuse("positions_px", "finite coordinates", "NaN or infinity", "Drop the frames without a position.")

        probe = np.asarray(self.probe)
        object.__setattr__(self, "probe", probe[None] if probe.ndim == 2 else probe)
        probe = _array(self, "probe", np.complex64, "(modes, N, N) complex numbers", ndim=3)
        if probe.shape[1:] != (height, width) or probe.shape[0] == 0:
            remedy = f"Resample the probe to {height} x {width} pixels, the size of the patterns."
            self._refuse("probe", f"shape (modes, {height}, {width})", f"shape {probe.shape}", remedy)
        if not np.isfinite(probe).all() or not probe.any():
            self._refuse("probe", "finite values, not all zero", "NaN, infinity or zeros only", "Give another probe.")

        if self.bad_pixels is None:
            object.__setattr__(self, "bad_pixels", np.zeros((height, width), bool))
        mask = _array(self, "bad_pixels", np.bool_, "(N, N) booleans, True = bad", ndim=2)
        if mask.shape != (height, width) or mask.all():
            expected = f"shape ({height}, {width}) with at least one good pixel"
            self._refuse(
                "bad_pixels",
                expected,
                f"shape {mask.shape}, {mask.sum()} bad",
                "Check that the mask is True where a pixel is bad.",
            )
        if isinstance(amplitude, Frames) and (unmeasured := amplitude.bad_pixels & ~mask).any():
            mask = mask | unmeasured
            object.__setattr__(self, "bad_pixels", mask)

        if self.object_field is not None:
            field = _array(self, "object_field", np.complex64, "(H, W) complex numbers", ndim=2)
            if not np.isfinite(field).all():
                self._refuse("object_field", "finite values", "NaN or infinity", "Drop it: it is optional.")
        if self.nominal_positions_px is None:
            object.__setattr__(self, "nominal_positions_px", positions)
        nominal = _array(self, "nominal_positions_px", np.float64, "(M, 2) real numbers", ndim=2)
        if self.scan_index is None:
            object.__setattr__(self, "scan_index", np.arange(count))
        index = _array(self, "scan_index", np.int64, "(M,) integers", ndim=1)
        if nominal.shape[1] != 2:
            self._refuse("nominal_positions_px", f"shape ({count}, 2)", f"shape {nominal.shape}", "Drop it.")
        for name, length in (("nominal_positions_px", len(nominal)), ("scan_index", len(index))):
            if length != count:
                self._refuse(name, f"{count} entries, one per pattern", length, "Drop it: it is optional.")
        self._check_amplitude(amplitude, mask)  # last, because many patterns take a while

    def _check_amplitude(self, amplitude: NDArray[np.float32] | Frames, mask: NDArray[np.bool_]) -> None:
        if isinstance(amplitude, Frames):
            statistics = amplitude.measure(mask)
        else:
            statistics = measure([amplitude], amplitude.shape, mask)
        if not (np.isfinite(statistics.lowest) and np.isfinite(statistics.largest)):
            self._refuse_infinite(statistics)
        if statistics.lowest < 0:
            received = f"a minimum of {statistics.lowest:g}"
            remedy = (
                "No amplitude is negative: if these are counts, say so, and cut what a background subtraction left "
                "below 0, or mark pixels that are negative as bad"
            )
            state = ("measurement=intensity", "clip_negative", "mask=negative")
            self._refuse("diffraction_amplitude", "values >= 0", received, remedy, state)
        if not statistics.frame_intensity.any():
            remedy = "Check which data set was read, and that the mask is True where a pixel is bad."
            self._refuse("diffraction_amplitude", "some counts in good pixels", "zeros only", remedy)
        object.__setattr__(self, "statistics", statistics)

    def _refuse_counts(self, amplitude: NDArray[Any]) -> None:
        if amplitude.dtype.kind in "iu":
            remedy = (
                "Use Scan.from_counts(counts, positions_px, probe) if these are counts; if they are amplitudes, pass "
                "them as numpy.float32."
            )
            received = f"dtype {amplitude.dtype}, as detectors count"
            self._refuse("diffraction_amplitude", "amplitudes, the square root of the counts", received, remedy)

    def _refuse_infinite(self, statistics: Statistics) -> None:
        """Names the patterns, where these are some, and else the pixels; a bad pixel may be at fault, too."""
        wrong = np.flatnonzero(~np.isfinite(statistics.frame_intensity))
        pattern = np.zeros((0, 0)) if statistics.mean_pattern is None else statistics.mean_pattern
        pixels = int((~np.isfinite(pattern)).sum())
        numbers = wrong if self.noticed is None else self.noticed.frames[wrong]
        received = f"NaN or infinity in {pixels} pixels of {len(wrong)} of {len(self)} patterns: {ranges(numbers)}"
        remedy, state = "Mark those pixels as bad", ("mask=nan",)
        if pixels == pattern.size:
            remedy, state = "Leave those patterns out", ("drop_frames=nan",)
        self._refuse("diffraction_amplitude", "finite values", received, remedy, state)

    def _refuse(self, key: str, expected: object, received: object, remedy: str, state: tuple[str, ...] = ()) -> None:
        key = f"{key} ({NPZ_KEYS[key]})" if key in NPZ_KEYS else key
        raise DataError(self.source, key, expected=expected, received=received, remedy=remedy, state=state)

    @classmethod
    def from_counts(
        cls, counts: NDArray[Any], positions_px: NDArray[np.float64], probe: NDArray[np.complexfloating], **others: Any
    ) -> Scan:
        """A scan of photon counts (M, N, N), as a detector gives them; `others` are further fields.

        Raises DataError for negative counts, such as a background subtraction leaves.
        """
        counts = np.asarray(counts)
        source = others.get("source", "scan")
        if counts.dtype.kind not in "biuf":
            received = f"dtype {counts.dtype}"
            raise DataError(source, "counts", expected="real numbers", received=received, remedy="Convert the array.")
        if counts.size and counts.min() < 0:
            received, remedy = f"a minimum of {counts.min():g}", "Cut them at 0: np.maximum(counts, 0)."
            raise DataError(source, "counts", expected="counts >= 0", received=received, remedy=remedy)
        amplitude = np.sqrt(counts, dtype=np.float64).astype(np.float32)
        return cls(
            diffraction_amplitude=amplitude, positions_px=positions_px, probe=probe, **{"dose_known": True, **others}
        )

    def __repr__(self) -> str:
        probe = f"{len(self.probe)} probe mode{'s'[: len(self.probe) > 1]}" if self.probe_known else "probe unknown"
        known = "" if self.object_field is None else ", object known"
        return f"Scan({len(self)} patterns of {self.N} x {self.N}, {probe}{known}, source={ending(self.source, 60)!r})"

    def _repr_html_(self) -> str:
        """For notebooks: the root of the mean pattern where that is known, the probe and the reference object."""
        pictures, mean = [], self.statistics.mean_pattern
        if mean is not None:
            pictures.append(Picture("mean pattern, its root", np.sqrt(mean), self._good_pixels()))
        if self.probe_known:
            pictures.append(Picture("amplitude of the probe", np.abs(self.probe[0])))
        if self.object_field is not None:
            pictures.append(Picture("phase of the object", np.angle(self.object_field)))
        return shown(repr(self), pictures)

    def _good_pixels(self) -> NDArray[np.bool_]:
        assert self.bad_pixels is not None
        return ~self.bad_pixels

    def __len__(self) -> int:
        return len(self.diffraction_amplitude)

    @property
    def N(self) -> int:
        """Side of a pattern and of an object patch, pixels."""
        return int(self.diffraction_amplitude.shape[-1])

    def check_probe(self) -> None:
        """DataError where nobody knows the probe."""
        if not self.probe_known:
            remedy = "Solve the scan (ptycho solve SCAN --probe auto) and name the probe of the result."
            raise DataError(self.source, "probe", expected="a probe", received="an unknown one (auto)", remedy=remedy)

    def mean_pattern(self) -> NDArray[np.float64]:
        """(N, N), mean of A² over the patterns, bad pixels too. A part of a scan that is read from a file is read."""
        mean = self.statistics.mean_pattern
        if mean is None:
            assert isinstance(self.diffraction_amplitude, Frames) and self.bad_pixels is not None
            frames = self.diffraction_amplitude
            mean = measure(frames.blocks(), frames.shape, self.bad_pixels).mean_pattern
            assert mean is not None
        return mean

    def subset(self, index: NDArray[Any] | slice) -> Scan:
        """The frames chosen by `index` (integers, booleans or a slice), in that order."""
        assert self.nominal_positions_px is not None and self.scan_index is not None
        amplitude = self.diffraction_amplitude
        return attrs.evolve(
            self,
            diffraction_amplitude=amplitude.select(index) if isinstance(amplitude, Frames) else amplitude[index],
            positions_px=self.positions_px[index],
            nominal_positions_px=self.nominal_positions_px[index],
            scan_index=self.scan_index[index],
            noticed=None if self.noticed is None else attrs.evolve(self.noticed, frames=self.noticed.frames[index]),
        )


def _array(scan: Scan, key: str, dtype: type[np.generic], expected: str, *, ndim: int) -> NDArray[Any]:
    """The field as an array of `dtype` and `ndim`, stored back; complex data are never cut to their real part."""
    received = np.asarray(getattr(scan, key))
    kinds = {np.complex64: "biufc", np.bool_: "biu", np.int64: "biu"}.get(dtype, "biuf")
    if received.dtype.kind not in kinds or (dtype is np.bool_ and not np.isin(received, (0, 1)).all()):
        scan._refuse(key, expected, f"dtype {received.dtype}", "Convert the array.")
    if received.ndim != ndim:
        scan._refuse(key, expected, f"shape {received.shape}", "Reshape the array.")
    array = np.ascontiguousarray(received, dtype=dtype)
    object.__setattr__(scan, key, array)
    return array
