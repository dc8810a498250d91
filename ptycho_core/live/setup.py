"""What is known of a scan before its first pattern."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.events import finite
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.npz import read_npz, write_npz

PIXEL_TOLERANCE = 0.01  # specs/live.md, Setup


@attrs.frozen(eq=False, kw_only=True)
class Setup:
    """Probe, mask and units of a scan: what every frame of it has in common.

    probe: complex64 (modes, N, N). bad_pixels: bool (N, N), true = bad. dose_known: whether amplitude² is in photons.
    expected: how many frames there will be; None where nobody knows. source: what to call the scan in messages.
    """

    probe: NDArray[np.complex64]
    bad_pixels: NDArray[np.bool_]
    dose_known: bool = False
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    source: str = "scan"
    expected: int | None = None

    @classmethod
    def of(cls, scan: Scan, expected: int | None = None) -> Self:
        """That of a scan, such as an earlier one of the same beam. Raises DataError where its probe is not known."""
        scan.check_probe()
        return cls(
            probe=scan.probe,
            bad_pixels=np.asarray(scan.bad_pixels),
            dose_known=scan.dose_known,
            metadata=dict(scan.metadata),
            source=scan.source,
            expected=expected,
        )

    @property
    def N(self) -> int:
        return int(self.probe.shape[-1])

    @property
    def pixel_m(self) -> tuple[float, float] | None:
        return Lengths.of(self.metadata, self.N).object_pixel_m

    def scan(
        self, amplitude: NDArray[np.float32] | Any, positions_px: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> Scan:
        """The scan of some frames. Raises DataError as `Scan` does."""
        return Scan(
            diffraction_amplitude=amplitude,
            positions_px=positions_px,
            probe=self.probe,
            bad_pixels=self.bad_pixels,
            scan_index=numbers,
            dose_known=self.dose_known,
            metadata=self.metadata,
            source=self.source,
        )

    def disagreement(self, other: Setup) -> str | None:
        """What another setup says otherwise, in words; None where the two are of the same measurement."""
        if other.N != self.N:
            return f"patterns of {other.N} x {other.N} pixels, not {self.N} x {self.N}"
        ours, theirs = self.pixel_m, other.pixel_m
        if ours and theirs and any(abs(b / a - 1) > PIXEL_TOLERANCE for a, b in zip(ours, theirs, strict=True)):
            return f"object pixels of {theirs} m, not {ours} m"
        if not np.array_equal(other.bad_pixels, self.bad_pixels):
            return "another mask of bad pixels"
        same = other.probe.shape == self.probe.shape and np.allclose(other.probe, self.probe, rtol=1e-4)
        return None if same else "another probe"

    def save(self, path: Path) -> None:
        facts = {"metadata": self.metadata, "source": self.source, "dose_known": self.dose_known}
        text = json.dumps(finite({**facts, "expected": self.expected}), default=str)
        write_npz(path, {"probe": self.probe, "bad_pixels": self.bad_pixels, "facts": np.array(text)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """What `save` wrote. Raises DataError."""
        try:
            arrays = read_npz(Path(path))
            facts = json.loads(str(arrays["facts"]))
            return cls(probe=arrays["probe"], bad_pixels=arrays["bad_pixels"], **facts)
        except (KeyError, TypeError, ValueError) as error:
            remedy = "Watch into another folder, or start again with --overwrite."
            expected = "the setup of a live reconstruction"
            raise DataError(path, expected=expected, received=type(error).__name__, remedy=remedy) from error
