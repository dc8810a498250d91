"""A reconstruction as an xarray.Dataset: named axes, coordinates in nm (specs/data.md, Reconstruction)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_core.errors import MissingExtraError

if TYPE_CHECKING:
    from ptycho_core.reconstruction.result import Reconstruction

NM = 1e9
IMAGES = {
    "object": "object_field",
    "overlap_count": "overlap_count",
    "known": "known",
    "object_without_prior": "object_without_prior",
    "predicted_error": "predicted_error",
}
"""Variable → field (H, W)."""
FRAMES = ("frames", "intensities", "frame_R", "frame_deviance")
"""Fields (P,), variables of the same name."""


def to_dataset(result: Reconstruction) -> Any:
    """See `Reconstruction.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise MissingExtraError.of("xarray", "xarray", "xarray", setting="to_xarray") from error
    (across, down), unit = (1.0, 1.0), "px"
    if result.pixel_m is not None:
        (across, down), unit = (NM * result.pixel_m[0], NM * result.pixel_m[1]), "nm"
    (height, width), N = result.object_field.shape, result.probe.shape[-1]
    (left, top), (x_px, y_px) = result.origin_px, np.asarray(result.positions_px).T
    centred = np.arange(N) - N // 2
    coordinates = {
        "x": ("x", (left + np.arange(width)) * across),
        "y": ("y", (top + np.arange(height)) * down),
        "probe_x": ("probe_x", centred * across),
        "probe_y": ("probe_y", centred * down),
        "position_x": ("frame", x_px * across),
        "position_y": ("frame", y_px * down),
    }
    variables: dict[str, Any] = {"probe": (("mode", "probe_y", "probe_x"), result.probe)}
    variables |= {name: (("y", "x"), getattr(result, field)) for name, field in IMAGES.items()}
    variables |= {name: (("frame",), getattr(result, name)) for name in FRAMES}
    held = {name: (axes, array) for name, (axes, array) in variables.items() if array is not None}
    facts = {name: getattr(result, name) for name in ("source", "method", "R", "H", "deviance")}
    facts["engine"] = result.engine.name
    known = {name: value for name, value in facts.items() if value is not None}  # a netCDF file holds no None
    return xarray.Dataset(held, {name: (*axis, {"units": unit}) for name, axis in coordinates.items()}, known)
