"""A reconstruction as an xarray.Dataset."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import MissingExtraError
from ptycho_core.scans.lengths import Lengths
from tests.core.reconstructions import make_reconstruction


def test_images_frames_and_probe_have_their_axes_in_nanometres() -> None:
    pytest.importorskip("xarray", reason="the extra 'xarray' is not installed")
    result = make_reconstruction(lengths=Lengths(object_pixel_m=(40e-9, 20e-9)))
    labelled = result.to_xarray()
    (left, top), (height, width) = result.origin_px, result.object_field.shape
    assert dict(labelled["object"].sizes) == {"y": height, "x": width}
    assert {labelled[name].attrs["units"] for name in labelled.coords} == {"nm"}
    for row, column in ((0, 0), (3, 5)):
        there = labelled.sel(x=40 * (left + column), y=20 * (top + row), method="nearest")
        assert there["object"].item() == result.object_field[row, column]
        assert there["overlap_count"].item() == result.overlap_count[row, column]
        assert there["known"].item() == result.known[row, column]  # type: ignore[index]
    np.testing.assert_array_equal(labelled["predicted_error"], result.predicted_error)
    np.testing.assert_allclose(labelled["position_x"], 40 * result.positions_px[:, 0])
    np.testing.assert_allclose(labelled["position_y"], 20 * result.positions_px[:, 1])
    np.testing.assert_array_equal(labelled["frame_R"], result.frame_R)
    assert labelled["probe"].dims == ("mode", "probe_y", "probe_x")
    N = result.probe.shape[-1]
    assert labelled["probe"].sel(probe_x=0, probe_y=0, mode=1).item() == result.probe[1, N // 2, N // 2]
    assert (labelled.attrs["source"], labelled.attrs["R"]) == ("star.npz", 0.0038)


def test_what_is_not_known_is_left_out_and_pixels_are_the_unit() -> None:
    pytest.importorskip("xarray", reason="the extra 'xarray' is not installed")
    nothing: dict[str, Any] = dict.fromkeys(("known", "predicted_error", "object_without_prior", "H", "frames"))
    labelled = attrs.evolve(make_reconstruction(), **nothing, lengths=Lengths()).to_xarray()
    assert not set(nothing) & {*labelled.variables, *labelled.attrs}
    assert labelled["x"].attrs["units"] == "px"
    assert labelled["x"][0] == make_reconstruction().origin_px[0]


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ptycho-core\[xarray\]'"):
        make_reconstruction().to_xarray()
