"""The fields of `ReadOptions` as keyword parameters: what editors complete and type checkers check."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict

from ptycho_core.vocabulary import Measurement


class ReadSettings(TypedDict, total=False):
    """Each is explained where `ReadOptions` defines it: `help(ReadOptions.crop)`."""

    reader: str | None
    measurement: Measurement | None
    dataset: str | None
    follow_links: Path | None
    frames: str | None
    drop_frames: str | None
    positions: str | None
    position_order: Literal["xy", "yx"] | None
    position_unit: Literal["px", "m"] | None
    position_scale: float
    transpose_positions: bool
    flip_x: bool
    flip_y: bool
    affine: str | None
    rotate_positions: float
    scan_shape: str | None
    scan_step: str | None
    scan_rotation: float
    probe: str | None
    probe_parts: Literal["real-imaginary", "amplitude-phase"] | None
    probe_origin: Literal["centre", "corner"]
    probe_plane: Literal["object", "far"]
    probe_pixel_m: float | None
    resample_probe: bool
    transpose_probe: bool
    flip_probe_rows: bool
    flip_probe_columns: bool
    object: str | None
    companion: Path | None
    energy_eV: float | None
    wavelength_m: float | None
    voltage_kV: float | None
    distance_m: float | None
    detector_pixel_m: float | None
    dc: Literal["centre", "corner"] | None
    centre: Literal["auto"] | None
    centre_row: int | None
    centre_column: int | None
    transpose: bool
    flip_rows: bool
    flip_columns: bool
    crop: int | None
    bin: int
    pad: int | None
    bad_pixels: str | None
    good_pixels: str | None
    mask: str | None
    saturation: float | None
    dark: str | None
    background: float | None
    clip_negative: bool
