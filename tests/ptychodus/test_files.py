"""Ptychodus 1.7 opens what we write, we open what it saves, and both mean the same by a product."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="ptychodus is not installed")

from ptycho_core import Reconstruction, load_model, load_scan, save_scan, simulate
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import DataError
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan
from ptycho_core.simulation import expected_intensity
from tests.ptychodus.conftest import LENGTHS, Case, Ptychodus


@pytest.fixture(scope="module")
def scan() -> Scan:
    made = simulate(N=32, positions=12, object="lines", photons=1e4, modes=2, bad_pixels=3, seed=2)
    return attrs.evolve(made, metadata=LENGTHS, scan_index=np.arange(12)[::-1] * 2)


def counts_of(scan: Scan) -> Any:
    return np.rint(np.square(np.asarray(scan.diffraction_amplitude, np.float64)))


def check_product(product: Any, scan: Scan) -> None:
    """The product is the scan: positions, probe, object, energy, distance."""
    geometry = product.object_.get_geometry()
    positions = product.probe_positions
    middles = np.stack(
        [
            geometry.map_probe_positions_to_object_x_px(positions),
            geometry.map_probe_positions_to_object_y_px(positions),
        ],
        axis=1,
    )
    np.testing.assert_allclose(middles, scan.positions_px - 0.5, rtol=0, atol=1e-9)  # of patches of 32 pixels
    np.testing.assert_array_equal(product.probes.get_array()[0], scan.probe)
    np.testing.assert_array_equal(product.object_.get_layer(0), scan.object_field)
    assert product.metadata.photon_energy_eV == pytest.approx(LENGTHS["photon_energy_eV"], rel=1e-12)
    assert product.metadata.detector_distance_m == pytest.approx(LENGTHS["detector_distance_m"], rel=1e-12)


def test_ptychodus_opens_the_pair_that_we_write(core: Any, scan: Scan, tmp_path: Path) -> None:
    save_scan(tmp_path / "pair", scan, format="ptychodus")
    api = core.workflow_api
    data = api.load_assembled_diffraction_data(tmp_path / "pair" / "diffraction.h5")
    product = api.load_product(tmp_path / "pair" / "product.h5", file_type="HDF5", diffraction=data)
    assembled = data.get_assembled_data()
    np.testing.assert_array_equal(assembled.get_patterns(), counts_of(scan))
    np.testing.assert_array_equal(assembled.get_bad_pixels(), scan.bad_pixels)
    np.testing.assert_array_equal(assembled.get_indexes(), scan.scan_index)
    pixel = assembled.get_pixel_geometry()
    assert [pixel.width_m, pixel.height_m] == LENGTHS["detector_pixel_m"]
    check_product(product.get_product(), scan)
    assert len(product.get_reconstruct_input().product.probe_positions) == len(scan)


def test_ptychodus_opens_the_cxi_file_that_we_write(core: Any, scan: Scan, tmp_path: Path) -> None:
    path = tmp_path / "scan.cxi"
    save_scan(path, scan)
    readers = core.plugin_registry
    dataset = readers.diffraction_file_readers.get_strategy_by_name("CXI").read(path)
    patterns = np.concatenate([array.get_patterns() for array in dataset])
    np.testing.assert_array_equal(patterns, counts_of(scan))
    np.testing.assert_array_equal(dataset.get_bad_pixels(), scan.bad_pixels)
    metadata = dataset.get_metadata()
    assert abs(metadata.detector_distance_m) == pytest.approx(LENGTHS["detector_distance_m"])
    assert metadata.photon_energy_eV == pytest.approx(LENGTHS["photon_energy_eV"])
    check_product(readers.product_file_readers.get_strategy_by_name("CXI").read(path), scan)


def test_we_open_the_pair_that_ptychodus_saves(
    simulated: Case, opened: Callable[[Case], Ptychodus], core: Any, tmp_path: Path
) -> None:
    api = core.workflow_api
    data = api.load_assembled_diffraction_data(simulated.pair / "diffraction.h5")
    data.save_assembled_data(tmp_path / "diffraction.h5")
    product = api.load_product(simulated.pair / "product.h5", file_type="HDF5", diffraction=data)
    product.save_product(tmp_path / "product.h5", file_type="HDF5")
    found, expected = load_scan(tmp_path / "diffraction.h5"), simulated.scan
    np.testing.assert_array_equal(found.diffraction_amplitude, expected.diffraction_amplitude)
    np.testing.assert_allclose(found.positions_px, expected.positions_px, rtol=0, atol=1e-9)
    for name in ("probe", "object_field", "bad_pixels", "scan_index"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name, value in LENGTHS.items():
        assert found.metadata[name] == pytest.approx(value, rel=1e-12), name


def test_the_same_product_diffracts_alike_in_both(tmp_path: Path) -> None:
    """Positions, probe and object of a pair are one model: half a pixel between them would show as 14 %."""
    from ptychodus.api.io import load_product
    from ptychodus.api.simulate.diffraction import generate_diffraction_data

    made = simulate(N=32, positions=20, object="lines", noise=False, seed=1)
    whole = attrs.evolve(made, positions_px=np.round(made.positions_px), nominal_positions_px=None, metadata=LENGTHS)
    save_scan(tmp_path, whole, format="ptychodus")
    theirs = generate_diffraction_data(load_product(tmp_path / "product.h5")).get_patterns()
    assert whole.object_field is not None
    ours = expected_intensity(whole.probe, extract_patches(whole.object_field, whole.positions_px, 32))
    theirs, ours = (each / each.sum(axis=(1, 2)).mean() for each in (theirs, ours))
    # Where rounding puts a whole position just below, Ptychodus shifts the probe by a pixel instead, round the border.
    assert np.abs(theirs - ours).max() / ours.max() < 0.01


def test_ptychodus_opens_scans_as_npz_reconstructions_and_models_by_our_plugin(
    core: Any, scan: Scan, tmp_path: Path
) -> None:
    readers = core.plugin_registry
    assert scan.object_field is not None
    save_scan(tmp_path / "scan.npz", scan)
    dataset = readers.diffraction_file_readers.get_strategy_by_name("PtychoCoreScan").read(tmp_path / "scan.npz")
    np.testing.assert_array_equal(np.concatenate([array.get_patterns() for array in dataset]), counts_of(scan))
    np.testing.assert_array_equal(dataset.get_bad_pixels(), scan.bad_pixels)
    np.testing.assert_array_equal(next(iter(dataset)).get_indexes(), scan.scan_index)
    check_product(readers.product_file_readers.get_strategy_by_name("PtychoCoreScan").read(tmp_path / "scan.npz"), scan)
    archive = Path(__file__).parents[1] / "data" / "model-1-cnn.h5.zip"
    probes = readers.probe_file_readers.get_strategy_by_name("PtychoCoreModel").read(archive)
    np.testing.assert_array_equal(probes.get_array()[0], load_model(archive).illumination.probe)
    engine = EngineInfo("none", "none", "0", (), ())
    result = Reconstruction(
        object_field=scan.object_field,
        origin_px=(0.0, 0.0),
        overlap_count=np.ones(scan.object_field.shape, np.int32),
        probe=scan.probe,
        positions_px=scan.positions_px,
        patterns=12,
        seconds={"total": 1.0},
        engine=engine,
        model_engine=engine,
    )
    result.save(tmp_path / "reconstruction.npz")
    for kind, expected in (("object", scan.object_field[None]), ("probe", scan.probe[None])):
        reader = getattr(readers, f"{kind}_file_readers").get_strategy_by_name("PtychoCoreReconstruction")
        np.testing.assert_array_equal(reader.read(tmp_path / "reconstruction.npz").get_array(), expected)
    save_scan(tmp_path / "unknown.npz", attrs.evolve(scan, metadata={}))
    with pytest.raises(DataError, match="photon_energy_eV"):
        readers.product_file_readers.get_strategy_by_name("PtychoCoreScan").read(tmp_path / "unknown.npz")


def test_the_plugin_is_installed_as_a_module_of_two_lines(core: Any, tmp_path: Path) -> None:
    from ptychodus.api.plugins import PluginRegistry

    from ptycho_core.integrations.ptychodus_plugin import install

    path = install(tmp_path)
    assert len(path.read_text().splitlines()) == 2
    registry = PluginRegistry()
    runpy.run_path(str(path))["register_plugins"](registry)
    assert registry.probe_file_readers.find_plugin("PtychoCoreModel") is not None
    assert registry.object_file_readers.find_plugin("PtychoCoreReconstruction") is not None
