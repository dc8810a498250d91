"""What a user may have to state about a scan file; each statement is explained once, where it is defined."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.fields import at_least, check_effects, given, setting
from ptycho_core.vocabulary import Measurement

positive = at_least(0, exclusive=True)


@attrs.frozen(kw_only=True)
class ReadOptions:
    """How to read a scan file, where the file does not say (specs/data.md, Readers)."""

    reader: str | None = setting(None, "Reader to use; if unset, the format is recognised by content.", name=True)
    measurement: Measurement | None = setting(
        None, "What the patterns hold: counts (intensity) or their square root (amplitude).", common=True
    )
    dataset: str | None = setting(
        None, "Data set of the patterns (M, H, W): its path in an HDF5 file, its key in an NPZ file."
    )
    positions: str | None = setting(
        None,
        "Positions: FILE, FILE:DATASET or a data set of the scan's own file, (M, 2); or 'X,Y', the names of two data "
        "sets (M,). FILE may be HDF5, NPY, NPZ or a text table.",
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
        beside={"positions": given},
    )
    position_scale: float = setting(1.0, "Factor on the positions, after their unit is converted.", positive)
    transpose_positions: bool = setting(False, "Swap the x and y coordinates, before any mirroring.")
    flip_x: bool = setting(False, "Mirror the x coordinates.")
    flip_y: bool = setting(False, "Mirror the y coordinates.")
    probe: str | None = setting(
        None,
        "Probe (N, N) or (modes, N, N), complex: FILE, FILE:DATASET or a data set of the scan's own file; "
        "auto: unknown, to be found by a solve.",
        common=True,
    )
    transpose_probe: bool = setting(False, "Swap rows and columns of the probe, before any reversal.")
    flip_probe_rows: bool = setting(False, "Reverse the order of the probe's rows.")
    flip_probe_columns: bool = setting(False, "Reverse the order of the probe's columns.")
    object: str | None = setting(
        None, "Reference object (H, W), complex, with pixel [0, 0] at coordinate (0, 0); named as the probe is."
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
    distance_m: float | None = setting(None, "Distance from object to detector in metres.", positive)
    detector_pixel_m: float | None = setting(
        None, "Side of a detector pixel as stored, before binning, in metres.", positive
    )
    dc: Literal["centre", "corner"] | None = setting(
        None, "Where the direct beam is stored: centre is [H // 2, W // 2], corner is [0, 0]; centre if unset."
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
        None, "Mask (H, W) of the stored patterns, non-zero where a pixel is bad: FILE, FILE:DATASET or a data set."
    )

    def __attrs_post_init__(self) -> None:
        check_effects(self)
        if self.energy_eV is not None and self.wavelength_m is not None:
            received = f"energy_eV = {self.energy_eV} and wavelength_m = {self.wavelength_m}"
            expected, remedy = "left out where wavelength_m is given", "Leave one of them out."
            raise ConfigurationError("ReadOptions", "energy_eV", expected=expected, received=received, remedy=remedy)
        if (self.centre_row is None) != (self.centre_column is None):
            received = f"centre_row = {self.centre_row} and centre_column = {self.centre_column}"
            expected, remedy = "given together with centre_column", "Give both of them."
            raise ConfigurationError("ReadOptions", "centre_row", expected=expected, received=received, remedy=remedy)
        if self.centre_row is not None and self.dc == "corner":
            expected, remedy = "left out where dc = corner", "Leave one of them out."
            raise ConfigurationError(
                "ReadOptions", "centre_row", expected=expected, received=self.centre_row, remedy=remedy
            )

    @property
    def centre(self) -> tuple[int, int] | None:
        if self.centre_row is None or self.centre_column is None:
            return None
        return self.centre_row, self.centre_column

    @property
    def turned_positions(self) -> bool:
        return self.transpose_positions or self.flip_x or self.flip_y
