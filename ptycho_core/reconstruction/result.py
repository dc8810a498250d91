"""A reconstruction: what it holds, written to a folder and read again (specs/data.md, Reconstruction)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import DataError, ending
from ptycho_core.physics.canvas import canvas_extent
from ptycho_core.quality.change import change_by_prior, change_in_words
from ptycho_core.quality.frc import FRC, read_curve
from ptycho_core.quality.outliers import RULE, outliers
from ptycho_core.quality.ramp import flattened
from ptycho_core.reconstruction.labelled import to_dataset
from ptycho_core.scans.lengths import Lengths
from ptycho_core.storage.files import make_folder
from ptycho_core.storage.npz import read_npz, write_npz
from ptycho_core.storage.pictures import Picture, shown

NETWORK, SOLVER = "network", "solver"
FILE_NAME = "reconstruction.npz"

RESULT_BYTES = 17
"""Of an object pixel in the file of a reconstruction: object, overlap, known, predicted error."""


def canvas_pixels(positions_px: NDArray[np.float64], N: int) -> int:
    """Pixels of the object that patches of N x N at these positions cover."""
    _, (height, width) = canvas_extent(positions_px, N)
    return height * width


@attrs.frozen(eq=False, kw_only=True)
class Reconstruction:
    """The object of one scan, and how far it can be trusted. None: not known, or not worked out.

    The image
        object_field: complex64 (H, W); its pixel [0, 0] is at coordinate origin_px = (x, y).
        overlap_count: int32 (H, W), patches over each pixel. probe: complex64 (modes, N, N), as it was used.
        known: bool (H, W), where enough light fell; elsewhere the object means nothing.
        object_without_prior: complex64 (H, W), before a prior changed it.
    The frames, P of them
        positions_px: float64 (P, 2), [x, y], where they were placed; given_positions_px: where the scan has them.
        frames: int64 (P,), the scan_index of each. patterns: P.
        intensities: float64 (P,), factor on Σ|P|² for each of them.
    The evidence
        R: Σ(|F| − A)² / ΣA² over the good pixels; H: the same over pixels that were held out of the fit.
        deviance: Poisson deviance a pixel, of held-out pixels where H is known, else of all good ones; deviance_error:
        its standard error. frame_R, frame_deviance: float64 (P,), of each frame.
        predicted_error: float32 (H, W), the trust map: RMS error of the object predicted at each pixel, NaN where it is
        not known; error_factor: κ in it, and error_factor_from: where κ is from.
        frc: of two reconstructions of half of the frames each.
        measured_amplitude, modelled_amplitude: float32 (N, N), of frame `pattern_frame`, one of median misfit.
        worst_measured, worst_modelled: float32 (F, N, N), of the frames of largest R, `worst_frames`: int64 (F,).
    Where it comes from
        method: "network" or "solver". engine: what made it; model_engine: what trained its model, and model_digest
        which model it was (`Model.digest`). source: the scan's
        name. lengths: of its experiment. dose_known: whether intensities are in photons. settings, choices: plain
        values, tables of what was tried. history: a row a sweep. seconds: wall time by step; `total` holds prediction
        and reassembly, not the making of the network.
    """

    object_field: NDArray[np.complex64]
    origin_px: tuple[float, float]
    overlap_count: NDArray[np.int32]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    patterns: int
    seconds: dict[str, float]
    engine: EngineInfo
    model_engine: EngineInfo | None = None
    model_digest: str | None = None
    known: NDArray[np.bool_] | None = None
    object_without_prior: NDArray[np.complex64] | None = None
    given_positions_px: NDArray[np.float64] | None = None
    frames: NDArray[np.int64] | None = None
    intensities: NDArray[np.float64] | None = None
    R: float | None = None
    H: float | None = None
    deviance: float | None = None
    deviance_error: float | None = None
    frame_R: NDArray[np.float64] | None = None
    frame_deviance: NDArray[np.float64] | None = None
    predicted_error: NDArray[np.float32] | None = None
    error_factor: float | None = None
    error_factor_from: str | None = None
    frc: FRC | None = None
    measured_amplitude: NDArray[np.float32] | None = None
    modelled_amplitude: NDArray[np.float32] | None = None
    pattern_frame: int | None = None
    worst_measured: NDArray[np.float32] | None = None
    worst_modelled: NDArray[np.float32] | None = None
    worst_frames: NDArray[np.int64] | None = None
    method: str = NETWORK
    source: str | None = None
    lengths: Lengths = attrs.field(factory=Lengths)
    dose_known: bool | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    choices: Mapping[str, Any] = attrs.field(factory=dict)
    history: Sequence[Mapping[str, Any]] = attrs.field(default=(), converter=tuple)

    def __repr__(self) -> str:
        height, width = self.object_field.shape
        figures = [f"{name} {value:.4g}" for name, value in (("R", self.R), ("H", self.H)) if value is not None]
        parts = (f"{height} x {width} pixels", f"{self.patterns} patterns", self.method, self.engine.name, *figures)
        return f"Reconstruction({', '.join(parts)}, source={self.source and ending(self.source, 60)!r})"

    def _repr_html_(self) -> str:
        """For notebooks: amplitude, and phase without its ramp and mean, where enough light fell."""
        known = np.ones(self.object_field.shape, bool) if self.known is None else self.known
        phase = np.angle(flattened(self.object_field, known).field) if known.any() else np.angle(self.object_field)
        amplitude = np.abs(self.object_field)
        pictures = Picture("amplitude", amplitude, known), Picture("phase, without ramp and mean", phase, known)
        return shown(repr(self), pictures)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `reconstruction.npz` (specs/data.md, Reconstruction), whole or not at all; returns its path.

        A path without an ending is a folder, created if missing; the file in it is `reconstruction.npz`.
        """
        target = Path(path)
        if target.is_dir() or target.suffix == "":
            make_folder(target)
            target = target / FILE_NAME
        arrays: dict[str, Any] = {"object": self.object_field, "origin_px": np.asarray(self.origin_px)}
        arrays |= {name: getattr(self, name) for name in ("overlap_count", "probe", "positions_px", *OPTIONAL)}
        if self.frc is not None:
            arrays |= {"frc_frequency": self.frc.frequency, "frc_correlation": self.frc.correlation}
        arrays["summary"] = np.array(json.dumps(self.summary()))
        write_npz(target, {name: array for name, array in arrays.items() if array is not None})
        return target

    def to_xarray(self) -> Any:
        """The image, the frames and the probe as an `xarray.Dataset`, of the extra `xarray`.

        Coordinates are in nm, and in pixels where the object pixel is not known; `x.attrs["units"]` says which.
        `object` and the other images (y, x); `probe` (mode, probe_y, probe_x), from pixel [N/2, N/2]; `position_x`,
        `position_y` and what is known of each frame (frame): `result.to_xarray()["object"].sel(x=slice(0, 500))`.
        Raises MissingExtraError.
        """
        return to_dataset(self)

    @property
    def pixel_m(self) -> tuple[float, float] | None:
        """(x, y), sides of an object pixel in metres."""
        return self.lengths.object_pixel_m

    @property
    def prior_change(self) -> NDArray[np.float32] | None:
        """float32 (H, W), what the prior changed in units of the predicted error; None where that is not known."""
        if self.object_without_prior is None or self.predicted_error is None or self.known is None:
            return None
        return change_by_prior(self.object_field, self.object_without_prior, self.predicted_error, self.known)

    @property
    def patterns_per_second(self) -> float:
        """Patterns per second, prediction and reassembly together."""
        return self.patterns / self.seconds["total"]

    @property
    def bad_frames(self) -> NDArray[np.int64]:
        """Rows of positions_px whose deviance (R where that is not known) is far above the others', worst first."""
        figures = self.frame_R if self.frame_deviance is None else self.frame_deviance
        return np.zeros(0, np.int64) if figures is None else outliers(figures)

    def summary(self) -> dict[str, Any]:
        """Plain values for a report; what is not known is None."""
        bad = self.bad_frames
        error, change = self.predicted_error, self.prior_change
        unit = {True: "sqrt(photons)", False: "sqrt of the scan's unit", None: None}[self.dose_known]
        facts: dict[str, Any] = _plain(
            {
                "method": self.method,
                "source": self.source,
                "backend": self.engine.name,
                "engine": attrs.asdict(self.engine),
                "model_engine": None if self.model_engine is None else attrs.asdict(self.model_engine),
                "model_digest": self.model_digest,
                "patterns": self.patterns,
                "patterns_per_second": self.patterns_per_second,
                "seconds": self.seconds,
                "object_shape": self.object_field.shape,
                "origin_px": self.origin_px,
                "lengths": self.lengths.as_dict(),
                "dose_known": self.dose_known,
                "units": {"object": "1", "phase": "rad", "probe": unit, "positions": "px", "predicted_error": "1"},
                "R": self.R,
                "H": self.H,
                "deviance": self.deviance,
                "deviance_error": self.deviance_error,
                "deviance_of": None
                if self.deviance is None
                else ("all good pixels" if self.H is None else "held-out pixels"),
                "bad_frames": bad if self.frames is None else self.frames[bad],
                "bad_frames_rule": RULE,
                "lit_pixels": None if self.known is None else self.known.sum(),
                "predicted_error_median": None if error is None or np.isnan(error).all() else np.nanmedian(error),
                "prior_change": None if change is None else change_in_words(change),
                "error_factor": self.error_factor,
                "error_factor_from": self.error_factor_from,
                "resolution": None if self.frc is None else self.frc.as_dict(self.pixel_m),
                "pattern_frame": self.pattern_frame,
                "choices": self.choices,
                "history": self.history,
                "settings": self.settings,
            }
        )
        return facts


OPTIONAL: dict[str, tuple[str, tuple[str, ...]]] = {
    "known": ("b", ("H", "W")),
    "object_without_prior": ("c", ("H", "W")),
    "given_positions_px": ("f", ("P", "2")),
    "frames": ("i", ("P",)),
    "intensities": ("f", ("P",)),
    "frame_R": ("f", ("P",)),
    "frame_deviance": ("f", ("P",)),
    "predicted_error": ("f", ("H", "W")),
    "measured_amplitude": ("f", ("N", "N")),
    "modelled_amplitude": ("f", ("N", "N")),
    "worst_frames": ("i", ("F",)),
    "worst_measured": ("f", ("F", "N", "N")),
    "worst_modelled": ("f", ("F", "N", "N")),
}
"""Arrays that a file may hold besides the required ones: kind of their dtype, and shape."""


def load_reconstruction(path: str | os.PathLike[str]) -> Reconstruction:
    """What `Reconstruction.save` wrote: the file, or the folder that holds `reconstruction.npz`. Raises DataError."""
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    arrays = read_npz(file)
    missing = {"object", "origin_px", "overlap_count", "probe", "positions_px", "summary"} - set(arrays)
    if missing:
        remedy = "Give what `ptycho reconstruct` wrote."
        expected = "the keys of a reconstruction"
        received = f"no {', '.join(sorted(missing))}"
        raise DataError(file, expected=expected, received=received, remedy=remedy)
    optional: dict[str, Any] = _optional_arrays(file, arrays)
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
            model_engine=None if facts["model_engine"] is None else EngineInfo.from_mapping(facts["model_engine"]),
            lengths=Lengths.of(facts.get("lengths", {})),
            frc=_curve(arrays, facts),
            **optional,
            **{name: facts[name] for name in PLAIN if name in facts},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "It is damaged: reconstruct again."
        received = f"{type(error).__name__}: {error}"
        expected = "a reconstruction's facts"
        raise DataError(file, "summary", expected=expected, received=received, remedy=remedy) from error


PLAIN = (
    *("model_digest", "method", "source", "dose_known", "R", "H", "deviance", "deviance_error", "error_factor"),
    *("error_factor_from", "pattern_frame", "settings", "choices", "history"),
)
"""Fields that the summary holds as they are; files of earlier versions lack them."""


def _optional_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Those of `OPTIONAL` that are there, checked against the others."""
    sizes: dict[str, int] = {"2": 2}
    for name, letters in (("object", "HW"), ("positions_px", "P"), ("probe", "_NN")):
        sizes |= dict(zip(letters, arrays[name].shape, strict=False))
    kept = [arrays[name].shape[:1] for name, (_, axes) in OPTIONAL.items() if axes[0] == "F" and name in arrays]
    sizes["F"] = max((shape[0] for shape in kept if shape), default=0)
    found = {}
    for name, (kind, axes) in OPTIONAL.items():
        if name in arrays:
            shape, array = tuple(sizes.get(axis, -1) for axis in axes), arrays[name]
            if array.dtype.kind != kind or array.shape != shape:
                expected, received = f"shape {shape} of kind {kind!r}", f"{array.dtype} of shape {array.shape}"
                remedy = "It is damaged: reconstruct again."
                raise DataError(file, name, expected=expected, received=received, remedy=remedy)
            found[name] = array
    return found


def _curve(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> FRC | None:
    if not {"frc_frequency", "frc_correlation"} <= set(arrays):
        return None
    return read_curve(arrays["frc_frequency"], arrays["frc_correlation"], facts["resolution"]["reason"])


def _plain(value: Any) -> Any:
    """For JSON: numbers of Python, lists, dictionaries with texts as keys; None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a reconstruction's facts hold plain values, no {type(value).__name__}: {value!r}")
