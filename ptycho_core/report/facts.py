"""What a file is and holds, as plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, visible
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import CHECKPOINT_NAME
from ptycho_core.models.container import MANIFEST, member_names
from ptycho_core.models.model import ARCHIVE_NAME
from ptycho_core.physics.illumination import mean_frame_intensity
from ptycho_core.physics.weights import outside_centre_mask
from ptycho_core.published import published_facts
from ptycho_core.quality.area import probe_width_px
from ptycho_core.quality.judging import judge
from ptycho_core.reconstruction.result import FILE_NAME, load_reconstruction
from ptycho_core.report.model_facts import model_or_checkpoint_facts
from ptycho_core.scans.beam import beam_centroid
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.outlying import steps_px
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import UNREADABLE

PAIR = ("diffraction.h5", "product.h5")
"""A folder with one of them stands for the scan in both."""
PREFIXES = ("", "m", "µ", "n", "p")
BYTES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def inspect_file(path: Path, options: ReadOptions | None = None) -> dict[str, Any]:
    """The facts of a scan, read as `options` say, or those of `archive_facts`; recognised by content."""
    facts = archive_facts(path)
    return scan_facts(load_scan(path, options), path) if facts is None else facts


def archive_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a model of ours or a published one, a checkpoint or a reconstruction; None for any other file.

    A folder stands for the model in it, else the checkpoint, else the reconstruction.
    """
    target = path
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        remedy = "Give a file."
        raise DataError(path, expected="a file", received="a pipe or a device", remedy=remedy)
    if path.is_dir():
        files = [path / name for name in (ARCHIVE_NAME, CHECKPOINT_NAME, FILE_NAME)]
        target = next((file for file in files if file.exists()), files[0])
        if not target.exists() and any((path / name).is_file() for name in PAIR):
            return None
    try:
        members = set(member_names(target))
    except UNREADABLE as error:
        if path.is_dir():
            remedy = "Give a scan, a folder with a model archive, or a reconstruction."
            raise DataError(target, expected="a readable model archive", received=error, remedy=remedy) from error
        members = set()  # no archive: a scan, or nothing that can be read
    if MANIFEST in members:
        return model_or_checkpoint_facts(target)
    if any(name.endswith(".dill") for name in members):
        return published_facts(target)
    if {"object.npy", "origin_px.npy"} <= members:
        return {"kind": "reconstruction", **load_reconstruction(target).summary()}
    return None


def scan_facts(scan: Scan, path: Path | None = None) -> dict[str, Any]:
    """A scan in numbers, for JSON; None for what is not known. path: its file. No pass over the patterns is made.

    storage: "memory", or "file" where patterns are read when they are asked for. Intensities are of good pixels, in
    photons where dose_known; largest_pixel_intensity is of bad ones too. power_outside_centre: part of the mean pattern
    outside the central N/2 square. probe_fwhm_px: diameter of the disk as large as the area, holes filled, where Σ|P|²
    is at least half its peak. step_px: median distance to the nearest other position. Pairs are [x, y]; centroid is
    (row, column) of the bright part of the mean pattern. findings: what `judge` notices.
    """
    bad = np.asarray(scan.bad_pixels)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    width, steps = probe_width_px(scan.probe) if scan.probe_known else None, steps_px(scan.positions_px)
    step = float(np.median(steps)) if len(steps) else None
    lengths = Lengths.of(scan.metadata, scan.N).as_dict()
    pixel = lengths["object_pixel_m"]
    power = (np.abs(scan.probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    return {
        "kind": "scan",
        "source": scan.source,
        "reader": scan.metadata.get("reader"),
        "file_bytes": path.stat().st_size if path is not None and path.is_file() else None,
        "patterns": len(scan),
        "N": scan.N,
        "storage": "file" if isinstance(scan.diffraction_amplitude, Frames) else "memory",
        "amplitude_bytes": int(scan.diffraction_amplitude.nbytes),
        "bad_pixels": int(bad.sum()),
        "dose_known": scan.dose_known,
        "mean_frame_intensity": mean_frame_intensity(scan),
        "largest_frame_intensity": float(scan.statistics.frame_intensity.max()),
        "largest_pixel_intensity": float(scan.statistics.largest) ** 2,
        "smallest_frame_intensity": float(scan.statistics.frame_intensity.min()),
        "centroid": list(beam_centroid(scan.mean_pattern(), ~bad)),
        "power_outside_centre": _power_outside_centre(scan.mean_pattern() * ~bad),
        "probe_modes": len(scan.probe) if scan.probe_known else 0,
        "probe_mode_shares": (power / power.sum()).tolist() if scan.probe_known else [],
        "probe_fwhm_px": width,
        "step_px": step,
        "step_per_probe_fwhm": None if step is None or width is None else step / width,
        "x_range_px": [float(low[0]), float(high[0])],
        "y_range_px": [float(low[1]), float(high[1])],
        "extent_px": (high - low).tolist(),
        "extent_m": None if pixel is None else ((high - low) * pixel).tolist(),
        **lengths,
        "object_shape": None if scan.object_field is None else list(scan.object_field.shape),
        "metadata": dict(scan.metadata),
        "findings": [finding.as_dict() for finding in judge(scan)],
    }


def scan_table(facts: Mapping[str, Any]) -> str:
    """The facts of a scan as text, with their units; what is not known is left out."""
    unit = "photons" if facts["dose_known"] else "(arbitrary unit)"
    where = "in memory" if facts["storage"] == "memory" else "read from the file when asked for"
    shares = ", ".join(f"{100 * share:.3g} %" for share in facts["probe_mode_shares"])
    modes = "1 mode" if facts["probe_modes"] == 1 else f"{facts['probe_modes']} modes ({shares})"
    (left, right), (top, bottom) = facts["x_range_px"], facts["y_range_px"]
    step, extent = facts["step_px"], facts["extent_m"]
    width = facts["probe_fwhm_px"]
    near = "" if step is None else f"{step:.3g} px to the nearest neighbour (median)"
    known = {
        "source": facts["source"],
        "reader": facts["reader"],
        "file": None if facts["file_bytes"] is None else _bytes(facts["file_bytes"]),
        "patterns": f"{facts['patterns']} of {facts['N']} x {facts['N']} pixels, {_bytes(facts['amplitude_bytes'])} "
        f"as amplitudes, {where}",
        "intensity": f"mean {facts['mean_frame_intensity']:.4g} {unit} per pattern, largest "
        f"{facts['largest_frame_intensity']:.4g}, smallest {facts['smallest_frame_intensity']:.4g}, brightest pixel "
        f"{facts['largest_pixel_intensity']:.4g}",
        "outside centre": f"{100 * facts['power_outside_centre']:.3g} % of the intensity outside the central half",
        "direct beam": "centroid at row {:.2f}, column {:.2f}".format(*facts["centroid"]),
        "bad pixels": str(facts["bad_pixels"]),
        "probe": "unknown" if width is None else f"{modes}, {width:.4g} px wide (FWHM)",
        "positions": f"x {left:.2f} … {right:.2f} px, y {top:.2f} … {bottom:.2f} px"
        + ("" if extent is None else f" ({_pair(extent)})"),
        "step": None
        if step is None
        else near
        if width is None
        else f"{near}, {facts['step_per_probe_fwhm']:.2f} of the probe's width",
        "energy": _of(facts, "photon_energy_eV", "{:.6g} eV (photons)")
        or _of(facts, "electron_energy_eV", "{:.6g} eV (electrons)"),
        "wavelength": None if facts["wavelength_m"] is None else _metres(facts["wavelength_m"]),
        "distance": None if facts["detector_distance_m"] is None else _metres(facts["detector_distance_m"]),
        "detector pixel": None if facts["detector_pixel_m"] is None else _pair(facts["detector_pixel_m"]),
        "object pixel": None if facts["object_pixel_m"] is None else _pair(facts["object_pixel_m"]),
        "object": None if facts["object_shape"] is None else "{1} x {0} pixels".format(*facts["object_shape"]),
    }
    shown = {"reader", *(field.name for field in attrs.fields(Lengths))}
    others = {
        f"metadata.{visible(name)}": " ".join(visible(str(value)).split())
        for name, value in facts["metadata"].items()
        if name not in shown
    }
    lines = {**{name: value for name, value in known.items() if value is not None}, **others}
    longest = max(map(len, lines))
    return "\n".join(f"{name:{longest}}  {value}" for name, value in lines.items())


def _power_outside_centre(pattern: NDArray[np.float64]) -> float:
    return float((pattern * outside_centre_mask(len(pattern))).sum() / pattern.sum())


def _of(facts: Mapping[str, Any], name: str, form: str) -> str | None:
    return None if facts[name] is None else form.format(facts[name])


def _bytes(count: int) -> str:
    power = min(max(count.bit_length() - 1, 0) // 10, len(BYTES) - 1)
    return f"{count} bytes" if power == 0 else f"{count / 1024**power:.1f} {BYTES[power]}"


def _metres(length: float) -> str:
    power = min(max(int(np.floor(np.log10(length) / 3 + 1e-9)), -len(PREFIXES) + 1), 0) if length > 0 else 0
    return f"{length / 1000.0**power:.4g} {PREFIXES[-power]}m"


def _pair(lengths: Sequence[float]) -> str:
    return " x ".join(_metres(length) for length in lengths)
