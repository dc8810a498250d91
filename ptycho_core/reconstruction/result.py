"""A reconstruction: what it holds, written to a folder and read again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import DataError
from ptycho_core.storage.npz import read_npz, write_npz


@attrs.frozen(eq=False, kw_only=True)
class Reconstruction:
    """The object of one scan.

    object_field: complex64 (H, W); its pixel [0, 0] is at coordinate origin_px = (x, y).
    overlap_count: int32 (H, W), patches over each pixel. probe: complex64 (modes, N, N), as the model holds it.
    seconds: wall time by step; `total` holds prediction and reassembly, not the making of the network.
    """

    object_field: NDArray[np.complex64]
    origin_px: tuple[float, float]
    overlap_count: NDArray[np.int32]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    patterns: int
    seconds: dict[str, float]
    engine: EngineInfo
    model_engine: EngineInfo

    def save(self, path: Path) -> None:
        """Write `reconstruction.npz` (specs/data.md, Reconstruction), whole or not at all."""
        arrays = {
            "object": self.object_field,
            "origin_px": np.asarray(self.origin_px),
            "overlap_count": self.overlap_count,
            "probe": self.probe,
            "positions_px": self.positions_px,
            "summary": np.array(json.dumps(self.summary())),
        }
        write_npz(path, arrays)

    @property
    def patterns_per_second(self) -> float:
        """Patterns a second, prediction and reassembly together."""
        return self.patterns / self.seconds["total"]

    def summary(self) -> dict[str, object]:
        """Plain values for a report."""
        return {
            "backend": self.engine.name,
            "engine": attrs.asdict(self.engine),
            "model_engine": attrs.asdict(self.model_engine),
            "patterns": self.patterns,
            "patterns_per_second": self.patterns_per_second,
            "seconds": self.seconds,
            "object_shape": list(self.object_field.shape),
            "origin_px": list(self.origin_px),
        }


def load_reconstruction(path: str | os.PathLike[str]) -> Reconstruction:
    """What `Reconstruction.save` wrote: the file, or the folder that holds `reconstruction.npz`. Raises DataError."""
    file = Path(path)
    file = file / "reconstruction.npz" if file.is_dir() else file
    arrays = read_npz(file)
    missing = {"object", "origin_px", "overlap_count", "probe", "positions_px", "summary"} - set(arrays)
    if missing:
        remedy = "Give what `ptycho reconstruct` wrote."
        expected = "the keys of a reconstruction"
        received = f"no {', '.join(sorted(missing))}"
        raise DataError(file, expected=expected, received=received, remedy=remedy)
    try:
        facts = json.loads(str(arrays["summary"]))
        x, y = arrays["origin_px"]
        return Reconstruction(
            object_field=arrays["object"],
            origin_px=(float(x), float(y)),
            overlap_count=arrays["overlap_count"],
            probe=arrays["probe"],
            positions_px=arrays["positions_px"],
            patterns=facts["patterns"],
            seconds=facts["seconds"],
            engine=EngineInfo.from_mapping(facts["engine"]),
            model_engine=EngineInfo.from_mapping(facts["model_engine"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        remedy = "It is damaged: reconstruct again."
        received = f"{type(error).__name__}: {error}"
        expected = "a reconstruction's facts"
        raise DataError(file, "summary", expected=expected, received=received, remedy=remedy) from error
