"""What a user may have to state about a scan file; each statement is explained once, where it is defined."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import attrs

from ptycho_core.errors import ConfigurationError, NoEffectError
from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import at_least, check_effects, given, setting, what_is_set
from ptycho_core.settings.words import is_frame_list, is_frame_slice, is_mask, is_matrix, is_shape, is_step
from ptycho_core.vocabulary import Measurement

positive = at_least(0, exclusive=True)


EXCLUSIVE = (
    ("energy_eV", "wavelength_m", "voltage_kV"),
    ("positions", "scan_step"),
    ("bad_pixels", "good_pixels"),
    ("centre", "centre_row"),
    ("probe_pixel_m", "resample_probe"),
)
"""Settings that say the same in several ways."""


def finite(value: float) -> str | None:
    """A check: any number but NaN and infinity."""
    return None if abs(value) < float("inf") else "a finite number"


@explained
@attrs.frozen(kw_only=True)
class ReadOptions:
    """How to read a scan file, where the file does not say (specs/data.md, Readers)."""

    __repr__ = what_is_set

    reader: str | None = setting(None, "Reader to use; if unset, the format is recognised by content.", name=True)
    measurement: Measurement | None = setting(
        None, "What the patterns hold: counts (intensity) or their square root (amplitude).", common=True
    )
    dataset: str | None = setting(
        None, "Data set of the patterns (M, H, W): its path in an HDF5 file, its key in an NPZ file.", place=True
    )
    follow_links: Path | None = setting(
        None, "Folder whose files may be read where the scan's file links to them; its own folder always is."
    )
    frames: str | None = setting(None, "Patterns to read: START:STOP or START:STOP:STEP.", is_frame_slice)
    drop_frames: str | None = setting(
        None,
        "Patterns to leave out: numbers, ranges and kinds, such as 7,50-60,empty. Kinds: empty; outliers (in dose); "
        "nan; unplaced (without a position, or positions without a pattern); stray (far away); unwritten (in HDF5).",
        is_frame_list,
    )
    positions: str | None = setting(
        None,
        "Positions: FILE, FILE:DATASET or a data set of the scan's own file, (M, 2); or 'X,Y', the names of two data "
        "sets (M,). FILE may be HDF5, NPY, NPZ or a text table, its columns by heading or number (FILE:samx,samy).",
        place=True,
        common=True,
    )
    position_order: Literal["xy", "yx"] | None = setting(
        None,
        "Order of the two coordinates: xy is column, row; yx is row, column.",
        beside={"positions": given},
    )
    position_unit: Literal["px", "m"] | None = setting(
        None,
        "Unit of the positions: object pixels (px) of the patterns as stored, or metres (m).",
    )
    position_scale: float = setting(1.0, "Factor on the positions, after their unit is converted.", positive)
    transpose_positions: bool = setting(False, "Swap the x and y coordinates, before any mirroring.")
    flip_x: bool = setting(False, "Mirror the x coordinates.")
    flip_y: bool = setting(False, "Mirror the y coordinates.")
    affine: str | None = setting(
        None, "Matrix on the positions, after any mirroring: a,b,c,d makes x' = a x + b y, y' = c x + d y.", is_matrix
    )
    rotate_positions: float = setting(
        0.0, "Angle in degrees by which the positions are turned at last, from x (columns) to y (rows).", finite
    )
    scan_shape: str | None = setting(
        None,
        "Raster of the scan in place of positions: ROWS,COLUMNS; taken from patterns (rows, columns, H, W).",
        is_shape,
        beside={"scan_step": given},
    )
    scan_step: str | None = setting(
        None, "Step of a raster, in the unit of the positions: one number, or two as Y,X.", is_step
    )
    scan_rotation: float = setting(
        0.0,
        "Angle in degrees of a raster's rows against the detector's, from x to y.",
        finite,
        beside={"scan_step": given},
    )
    probe: str | None = setting(
        None,
        "Probe (N, N) or (modes, N, N), complex: FILE, FILE:DATASET or a data set of the scan's own file; "
        "auto: unknown, to be found by a solve.",
        place=True,
        common=True,
    )
    probe_parts: Literal["real-imaginary", "amplitude-phase"] | None = setting(
        None, "What the two layers of a real probe (2, N, N) are, or two arrays 'A,B' named as the probe."
    )
    probe_origin: Literal["centre", "corner"] = setting("centre", "Where the middle of the probe is in its array.")
    probe_plane: Literal["object", "far"] = setting(
        "object", "Where the probe is: at the object, or in the far field at the detector."
    )
    probe_pixel_m: float | None = setting(
        None, "Side of a pixel of the probe in metres, to resample it to the object pixels of the scan.", positive
    )
    resample_probe: bool = setting(
        False, "Cut or pad a probe of another number of pixels of the same size about its middle."
    )
    transpose_probe: bool = setting(False, "Swap rows and columns of the probe, before any reversal.")
    flip_probe_rows: bool = setting(False, "Reverse the order of the probe's rows.")
    flip_probe_columns: bool = setting(False, "Reverse the order of the probe's columns.")
    object: str | None = setting(
        None,
        "Reference object (H, W), complex, with pixel [0, 0] at coordinate (0, 0); named as the probe is.",
        place=True,
    )
    companion: Path | None = setting(
        None,
        "The other file of a pair (diffraction and product, patterns and parameters); if unset, it is looked for in "
        "the same folder.",
    )
    energy_eV: float | None = setting(None, "Photon energy in eV; overrides the file.", positive, common=True)
    wavelength_m: float | None = setting(
        None, "Wavelength in metres, in place of the photon energy, as for electrons.", positive
    )
    voltage_kV: float | None = setting(
        None, "Accelerating voltage of electrons in kV, in place of the photon energy.", positive
    )
    distance_m: float | None = setting(None, "Distance from object to detector in metres.", positive)
    detector_pixel_m: float | None = setting(
        None, "Side of a detector pixel as stored, before binning, in metres.", positive
    )
    dc: Literal["centre", "corner"] | None = setting(
        None, "Where the direct beam is stored: centre is [H // 2, W // 2], corner is [0, 0]; centre if unset."
    )
    centre: Literal["auto"] | None = setting(
        None, "auto: the direct beam is at the centroid of the mean pattern; unset: in the middle, or as stated."
    )
    centre_row: int | None = setting(None, "Row of the direct beam in the stored patterns.", at_least(0))
    centre_column: int | None = setting(None, "Column of the direct beam in the stored patterns.", at_least(0))
    transpose: bool = setting(False, "Swap rows and columns of the patterns, before any reversal.")
    flip_rows: bool = setting(False, "Reverse the order of the patterns' rows.")
    flip_columns: bool = setting(False, "Reverse the order of the patterns' columns.")
    crop: int | None = setting(
        None, "Keep this many detector pixels each way, centred on the direct beam.", at_least(2), common=True
    )
    bin: int = setting(
        1, "Sum the counts of blocks of this many by this many detector pixels, after cropping.", at_least(1)
    )
    pad: int | None = setting(
        None, "Pad the patterns to this many pixels each way, after cropping and binning.", at_least(2)
    )
    bad_pixels: str | None = setting(
        None,
        "Mask (H, W) of the stored patterns, non-zero where a pixel is bad: FILE, FILE:DATASET or a data set.",
        place=True,
    )
    good_pixels: str | None = setting(
        None,
        "Mask (H, W), non-zero where a pixel is good, in place of the file's own mask; named as bad_pixels is.",
        place=True,
    )
    mask: str | None = setting(
        None, "Pixels to mark as bad that are so in any pattern: nan, negative, saturated, with commas.", is_mask
    )
    saturation: float | None = setting(
        None, "Stored value from which on a pixel is saturated; the largest of an integer type if unset.", positive
    )
    dark: str | None = setting(
        None,
        "Background (H, W) or (k, H, W), averaged, to take off the counts: FILE, FILE:DATASET or a data set.",
        place=True,
    )
    background: float | None = setting(None, "Counts per pixel to take off.", positive)
    clip_negative: bool = setting(False, "Set values below 0 to 0, as a background subtraction leaves them.")

    def __attrs_post_init__(self) -> None:
        check_effects(self)
        for names in EXCLUSIVE:
            self._one_of(*names)
        if self.position_unit is not None and self.positions is None and self.scan_step is None:
            raise NoEffectError(
                "ReadOptions",
                "position_unit",
                expected="positions is set",
                received=f"position_unit = {self.position_unit!r} and positions is unset",
                remedy="Set positions, or leave position_unit unset.",
            )
        if (self.centre_row is None) != (self.centre_column is None):
            received = f"centre_row = {self.centre_row} and centre_column = {self.centre_column}"
            expected, remedy = "given together with centre_column", "Give both of them."
            raise ConfigurationError("ReadOptions", "centre_row", expected=expected, received=received, remedy=remedy)
        centre = "centre_row" if self.centre is None else "centre"
        if getattr(self, centre) is not None and self.dc == "corner":
            expected, remedy = "left out where dc = corner", "Leave one of them out."
            raise ConfigurationError(
                "ReadOptions", centre, expected=expected, received=getattr(self, centre), remedy=remedy
            )

    def _one_of(self, *names: str) -> None:
        """Refuse two settings that say the same in two ways."""
        first, *rest = [name for name in names if getattr(self, name) not in (None, False)] or [""]
        if rest:
            received = " and ".join(f"{name} = {getattr(self, name)}" for name in (first, *rest))
            expected, remedy = f"left out where {rest[0]} is given", "Leave one of them out."
            raise ConfigurationError("ReadOptions", first, expected=expected, received=received, remedy=remedy)

    @property
    def stated_centre(self) -> tuple[int, int] | None:
        if self.centre_row is None or self.centre_column is None:
            return None
        return self.centre_row, self.centre_column

    @property
    def turned_positions(self) -> bool:
        return self.transpose_positions or self.flip_x or self.flip_y or self.bent_positions

    @property
    def bent_positions(self) -> bool:
        return self.affine is not None or self.rotate_positions != 0


_OF_ONE_FILE = ("frames", "drop_frames", "companion", "object", "scan_shape")
_PLACES = ("position_order", "position_unit", "scan_rotation", "scan_shape")


def read_like(reading: ReadOptions, stated: Collection[str], *, same_file: bool) -> dict[str, Any]:
    """The settings by which another scan was read, as far as they can hold for this one, beneath those `stated`.

    same_file: whether it is that scan. Of another one, what names its frames or the files of its positions is left out.
    """
    usual = ReadOptions()
    values = {
        field.name: value
        for field in attrs.fields(ReadOptions)
        if (value := getattr(reading, field.name)) != getattr(usual, field.name)
    }
    left = set(stated)
    for names in EXCLUSIVE:
        if left.intersection(names):
            left.update(names)
    if "centre_row" in left or "centre_column" in left or "dc" in left:
        left.update(("centre_row", "centre_column", "centre", "dc"))
    if not same_file:
        left.update(_OF_ONE_FILE)
        if reading.positions is not None and Path(reading.positions.partition(":")[0]).is_file():
            left.add("positions")
    if "positions" in left and "scan_step" not in stated and "positions" not in stated:
        left.update(_PLACES)
    return {name: value for name, value in values.items() if name not in left}
