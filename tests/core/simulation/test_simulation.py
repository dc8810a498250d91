"""Simulated scans follow the conventions of specs/physics.md, and everything in them follows from the seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from ptycho_core import simulation
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.scans.scan import Scan
from ptycho_core.simulation import (
    OBJECT_KINDS,
    PROBE_KINDS,
    SCAN_KINDS,
    expected_intensity,
    make_object,
    make_positions,
    make_probe,
    object_shape,
    simulate,
)
from ptycho_core.simulation.probes import add_modes


def small_scan(**changes: Any) -> Scan:
    return simulate(**{"N": 32, "positions": 40, "photons": 1e4, "seed": 7, **changes})


def random_field(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def counts(scan: Scan) -> NDArray[np.float64]:
    return scan.diffraction_amplitude.astype(np.float64) ** 2


# --- everything is a function of the seed ---


@pytest.mark.parametrize("scan_kind", SCAN_KINDS)
@pytest.mark.parametrize("object_kind", OBJECT_KINDS)
def test_the_same_seed_gives_the_same_scan(object_kind: str, scan_kind: str) -> None:
    first, second = (small_scan(object=object_kind, scan=scan_kind, bad_pixels=4) for _ in range(2))
    for name in ("diffraction_amplitude", "positions_px", "probe", "bad_pixels", "object_field"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_kinds_are_found_in_any_case() -> None:
    asked: dict[str, Any] = {"N": 16, "positions": 4, "seed": 3}
    usual = simulate(object="siemens-star", probe="disk", scan="raster", **asked)
    other = simulate(object="Siemens-Star", probe="Disk", scan="RASTER", **asked)
    for name in ("positions_px", "probe", "object_field"):
        np.testing.assert_array_equal(getattr(usual, name), getattr(other, name))


@pytest.mark.parametrize("scan_kind", SCAN_KINDS)
@pytest.mark.parametrize("object_kind", OBJECT_KINDS)
def test_another_seed_gives_another_object_and_other_positions(object_kind: str, scan_kind: str) -> None:
    first, second = (small_scan(object=object_kind, scan=scan_kind, seed=seed) for seed in (1, 2))
    assert not np.allclose(first.positions_px, second.positions_px)
    assert first.object_field is not None
    assert second.object_field is not None
    height, width = np.minimum(first.object_field.shape, second.object_field.shape)
    assert not np.allclose(first.object_field[:height, :width], second.object_field[:height, :width])


def test_a_change_to_one_part_leaves_the_draws_of_the_others() -> None:
    scan = small_scan()
    for other in (
        small_scan(photons=1e5),
        small_scan(object="points"),
        small_scan(probe="disk", modes=3),
        small_scan(noise=False),
    ):
        np.testing.assert_array_equal(other.positions_px, scan.positions_px)
    for other in (small_scan(photons=1e5), small_scan(probe="disk"), small_scan(positions=scan.positions_px)):
        np.testing.assert_array_equal(other.object_field, scan.object_field)
    np.testing.assert_array_equal(
        small_scan(positions=scan.positions_px).diffraction_amplitude, scan.diffraction_amplitude
    )
    spoiled = small_scan(bad_pixels=20)
    good = ~spoiled.bad_pixels  # type: ignore[operator]
    np.testing.assert_array_equal(spoiled.diffraction_amplitude[:, good], scan.diffraction_amplitude[:, good])
    np.testing.assert_array_equal(small_scan(bad_pixels=20, scan="fermat").bad_pixels, spoiled.bad_pixels)


def test_object_and_positions_do_not_share_their_random_numbers() -> None:
    children = np.random.SeedSequence(7).spawn(2)
    scan = small_scan()
    from_object_stream = make_positions("random", 40, 4.0, np.random.default_rng(children[0]), N=32)
    from_scan_stream = make_positions("random", 40, 4.0, np.random.default_rng(children[1]), N=32)
    np.testing.assert_array_equal(scan.positions_px, from_scan_stream)
    assert not np.allclose(scan.positions_px, from_object_stream)


def test_the_size_of_the_pieces_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_scan(noise=False)
    monkeypatch.setattr(simulation, "CHUNK_PIXELS", 7 * 32**2)
    np.testing.assert_allclose(small_scan(noise=False).diffraction_amplitude, whole.diffraction_amplitude, atol=1e-4)


# --- physics ---


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("photons", [1e2, 1e6, 1e12])
def test_the_mean_of_the_expected_counts_is_the_number_of_photons(photons: float, modes: int) -> None:
    scan = small_scan(photons=photons, modes=modes, noise=False)
    assert counts(scan).sum(axis=(1, 2)).mean() == pytest.approx(photons, rel=1e-5)
    assert scan.dose_known


def test_the_mean_of_noisy_counts_is_the_number_of_photons() -> None:
    scan = small_scan(photons=1e4, positions=100)
    assert counts(scan).sum(axis=(1, 2)).mean() == pytest.approx(1e4, abs=5 * np.sqrt(1e4 / 100))


@pytest.mark.parametrize("amplitude", [1.0, 0.5])
def test_the_probe_carries_the_counts_of_a_clear_object(amplitude: float) -> None:
    scan = small_scan(object=np.full((99, 99), amplitude * np.exp(0.3j)), photons=1e4, noise=False)
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(1e4 / amplitude**2, rel=1e-5)


def test_the_far_field_keeps_the_power_of_every_mode() -> None:
    probe, patches = random_field((3, 16, 16)), random_field((5, 16, 16), 1)
    intensity = expected_intensity(probe, patches)
    power = np.sum(np.abs(probe[:, None] * patches) ** 2, axis=(0, 2, 3))
    np.testing.assert_allclose(intensity.sum(axis=(1, 2)), power, rtol=1e-12)


def test_expected_intensity_is_the_centred_sum_over_a_direct_fourier_sum() -> None:
    N, probe, patches = 8, random_field((2, 8, 8)), random_field((3, 8, 8), 1)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(N) - N // 2, np.arange(N)) / N) / np.sqrt(N)
    reference = sum(np.abs(kernel @ (mode * patches) @ kernel.T) ** 2 for mode in probe)
    np.testing.assert_allclose(expected_intensity(probe, patches), reference, rtol=1e-10)


def test_amplitudes_are_those_of_bilinear_patches_around_the_positions() -> None:
    N, object_field, probe = 16, random_field((50, 60)) * 0.5, random_field((2, 16, 16), 1)
    positions = np.array([[20.0, 25.0], [20.25, 25.0], [31.7, 12.4], [51.0, 41.0]])
    scan = simulate(N=N, positions=positions, object=object_field, probe=probe, photons=1e5, noise=False)

    offsets = np.arange(N) - N // 2
    rows = np.broadcast_to(positions[:, 1, None, None] + offsets[None, :, None], (4, N, N))
    columns = np.broadcast_to(positions[:, 0, None, None] + offsets[None, None, :], (4, N, N))
    patches = map_coordinates(object_field.real, [rows, columns], order=1) + 1j * map_coordinates(
        object_field.imag, [rows, columns], order=1
    )
    intensity = sum(np.abs(np.fft.fft2(mode * patches)) ** 2 / N**2 for mode in probe)
    intensity = np.fft.fftshift(intensity, axes=(1, 2))
    intensity *= 1e5 / intensity.sum(axis=(1, 2)).mean()
    np.testing.assert_allclose(counts(scan), intensity, atol=1e-5 * intensity.max())


def test_the_direct_beam_of_a_flat_object_is_at_the_centre_pixel() -> None:
    scan = small_scan(object=np.ones((99, 99), complex), probe="disk", noise=False)
    for pattern in scan.diffraction_amplitude:
        assert np.unravel_index(pattern.argmax(), pattern.shape) == (16, 16)


def test_a_phase_ramp_to_the_right_moves_the_beam_to_the_right() -> None:
    ramp = np.broadcast_to(np.exp(2j * np.pi * 3 * np.arange(99) / 32), (99, 99))
    scan = small_scan(object=ramp, probe="disk", noise=False)
    assert np.unravel_index(scan.diffraction_amplitude[0].argmax(), (32, 32)) == (16, 19)


def test_counts_are_whole_and_as_noisy_as_poisson() -> None:
    positions = np.full((2000, 2), 20.0)
    noisy = counts(simulate(N=16, positions=positions, photons=2e5, seed=3))
    expected = counts(simulate(N=16, positions=positions[:1], photons=2e5, seed=3, noise=False))[0]
    np.testing.assert_allclose(noisy, np.round(noisy), atol=1e-3)
    bright = expected > 5
    assert bright.sum() > 100
    deviation = noisy[:, bright] - expected[bright]
    assert np.mean(deviation**2 / expected[bright]) == pytest.approx(1, abs=0.02)
    assert np.abs(deviation.mean(axis=0) / np.sqrt(expected[bright] / 2000)).max() < 5


def test_bad_pixels_are_marked_half_of_them_dead_and_half_hot() -> None:
    scan, flawless = small_scan(bad_pixels=11), small_scan()
    bad = scan.bad_pixels
    assert bad is not None
    assert bad.sum() == 11
    values = scan.diffraction_amplitude[:, bad]
    assert np.ptp(values, axis=0).max() == 0
    assert (values[0] == 0).sum() == 6
    assert (values[0] > 3 * flawless.diffraction_amplitude.max()).sum() == 5


def test_metadata_hold_the_arguments() -> None:
    expected = {
        "measurement": "amplitude",
        "amplitude_unit": "sqrt(counts)",
        "N": 32,
        "positions": 40,
        "object": "grf",
        "probe": "disk",
        "scan": "raster",
        "photons": 1e4,
        "step_px": 4.0,
        "modes": 2,
        "bad_pixels": 3,
        "amplitude_range": [0.2, 0.9],
        "phase_range": [-1.0, 1.0],
        "noise": False,
        "seed": 7,
    }
    arguments = {key: value for key, value in expected.items() if key not in ("measurement", "amplitude_unit")}
    assert simulate(**arguments).metadata == expected  # type: ignore[arg-type]


# --- objects ---


@pytest.mark.parametrize("kind", OBJECT_KINDS)
@pytest.mark.parametrize("shape", [(70, 230), (17, 5)])
def test_patterns_fill_their_range(kind: str, shape: tuple[int, int]) -> None:
    pattern = OBJECT_KINDS[kind](shape, np.random.default_rng(0))
    assert pattern.shape == shape
    assert pattern.dtype == np.float64
    assert pattern.min() >= 0
    assert pattern.max() <= 1
    assert np.ptp(pattern) > 0.8


@pytest.mark.parametrize("kind", ["lines", "siemens-star", "points"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_window_has_structure(kind: str, seed: int) -> None:
    pattern = OBJECT_KINDS[kind]((200, 230), np.random.default_rng(seed))
    windows = sliding_window_view(pattern, (32, 32))[::4, ::4]
    assert windows.std(axis=(2, 3)).min() > 0.05


@pytest.mark.parametrize("kind", ["lines", "siemens-star"])
def test_fine_detail_is_strong_enough_to_train_on(kind: str) -> None:
    pattern = OBJECT_KINDS[kind]((192, 192), np.random.default_rng(0))
    power = np.abs(np.fft.fft2(pattern - pattern.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(192)[None, :])
    assert power[frequency > 0.1].sum() > 0.1 * power.sum()
    upright, lying = power[:, :20].sum(), power[:20].sum()  # edges in every direction
    assert 0.5 < upright / lying < 2


def test_high_pattern_means_low_amplitude_and_high_phase() -> None:
    ranges = {"amplitude_range": (0.25, 0.75), "phase_range": (-0.5, 1.5)}
    pattern = OBJECT_KINDS["lines"]((60, 60), np.random.default_rng(5))
    object_field = make_object("lines", (60, 60), np.random.default_rng(5), **ranges)
    assert object_field.dtype == np.complex64
    np.testing.assert_allclose(np.abs(object_field), 0.75 - 0.5 * pattern, atol=1e-6)
    np.testing.assert_allclose(np.angle(object_field), -0.5 + 2 * pattern, atol=1e-5)


# --- probes ---


@pytest.mark.parametrize("kind", PROBE_KINDS)
@pytest.mark.parametrize("N", [32, 64, 128])
def test_probes_are_compact_and_centred(kind: str, N: int) -> None:
    probe = make_probe(kind, N)
    assert probe.shape == (1, N, N)
    assert probe.dtype == np.complex64
    power = np.abs(probe[0].astype(complex)) ** 2
    assert power.sum() == pytest.approx(1, rel=1e-5)
    axis = np.arange(N) - N // 2
    assert np.abs([axis @ power.sum(axis=0), axis @ power.sum(axis=1)]).max() < 0.05
    assert power[np.hypot(axis[:, None], axis[None, :]) < 3 * N / 8].sum() > 0.97
    assert max(power[0].max(), power[:, 0].max()) < 2e-3 * power.max()


@pytest.mark.parametrize("kind", PROBE_KINDS)
def test_only_the_disk_has_a_flat_phase(kind: str) -> None:
    (probe,) = make_probe(kind, 64)
    lit = np.abs(probe) > 0.1 * np.abs(probe).max()
    assert (np.ptp(np.angle(probe[lit])) > 2) == (kind != "disk")


@pytest.mark.parametrize("kind", PROBE_KINDS)
def test_modes_are_orthogonal_with_the_stated_occupancy(kind: str) -> None:
    single = make_probe(kind, 32)[0].astype(complex)
    modes = add_modes(single, 6, [10, 5, 2, 1, 1, 1]).reshape(6, -1)
    gram = modes.conj() @ modes.T
    np.testing.assert_allclose(gram, np.diag([0.5, 0.25, 0.1, 0.05, 0.05, 0.05]), atol=1e-6)
    np.testing.assert_allclose(modes[0], single.ravel() * np.sqrt(0.5), atol=1e-6)
    default = make_probe(kind, 32, modes=3)
    np.testing.assert_allclose(np.sum(np.abs(default) ** 2, axis=(1, 2)), np.array([4, 2, 1]) / 7, rtol=1e-5)


# --- positions ---


@pytest.mark.parametrize("kind", SCAN_KINDS)
@pytest.mark.parametrize("count", [1, 2, 400])
def test_every_patch_lies_inside_the_object_with_a_margin(kind: str, count: int) -> None:
    positions = make_positions(kind, count, 5.0, np.random.default_rng(0), N=32)
    assert positions.shape == (count, 2)
    assert positions.dtype == np.float64
    np.testing.assert_allclose(positions.min(axis=0), 17)
    height, width = object_shape(positions, 32)
    assert (positions + 16 <= [width - 1, height - 1]).all()
    assert (positions + 16 > [[width - 2, height - 2]]).any(axis=0).all()  # and no larger than needed


@pytest.mark.parametrize("kind", SCAN_KINDS)
def test_there_is_one_position_for_every_square_step(kind: str) -> None:
    positions = make_positions(kind, 900, 5.0, np.random.default_rng(0), N=32)
    centre = (positions.min(axis=0) + positions.max(axis=0)) / 2
    near = np.abs(positions - centre).max(axis=1) < 40
    assert near.sum() * 25 / 80**2 == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("kind", "least"), [("raster", 0.5), ("fermat", 0.85)])
def test_ordered_scans_keep_their_distance(kind: str, least: float) -> None:
    positions = make_positions(kind, 300, 5.0, np.random.default_rng(0), N=32)
    distances = cKDTree(positions).query(positions, k=2)[0][:, 1]
    assert least * 5 <= distances.min()
    assert distances.max() < 1.5 * 5
    assert np.ptp(distances) > 0.1  # jittered, or a spiral


# --- files ---


def test_object_under_its_key_is_cropped_to_its_centre(tmp_path: Path) -> None:
    stored = random_field((50, 41))
    np.savez(tmp_path / "o.npz", objectGuess=stored, other=np.ones((3, 3), complex), probeGuess=np.ones((64, 64)))
    np.save(tmp_path / "o.npy", stored)
    for name in ("o.npz", "o.npy"):
        object_field = make_object(str(tmp_path / name), (30, 21), np.random.default_rng(0))
        np.testing.assert_array_equal(object_field, stored[10:40, 10:31].astype(np.complex64))


def test_the_only_2d_member_is_the_object_and_the_data_beside_it_are_not_read(tmp_path: Path) -> None:
    stored = random_field((20, 20)).astype(np.complex64)
    np.savez(tmp_path / "o.npz", picture=stored, diff3d=np.ones((2, 4, 4)), pickled=np.array([{}], dtype=object))
    np.testing.assert_array_equal(make_object(tmp_path / "o.npz", (20, 20), np.random.default_rng(0)), stored)


def test_given_positions_refer_to_the_corner_of_a_given_object(tmp_path: Path) -> None:
    stored = random_field((60, 60)).astype(np.complex64)
    np.save(tmp_path / "o.npy", stored)
    for source in (stored, tmp_path / "o.npy"):
        scan = simulate(N=16, positions=[[20.0, 30.0]], object=source, noise=False)
        np.testing.assert_array_equal(scan.object_field, stored)


def test_generated_positions_use_the_centre_of_a_given_object() -> None:
    stored = random_field((201, 200)).astype(np.complex64)
    scan = small_scan(object=stored)
    assert scan.object_field is not None
    height, width = scan.object_field.shape
    top, left = (201 - height) // 2, (200 - width) // 2
    np.testing.assert_array_equal(scan.object_field, stored[top : top + height, left : left + width])
    assert object_shape(scan.positions_px, 32) == (height, width)


def test_images_are_greyscale_patterns(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    grey = np.random.default_rng(0).integers(0, 256, (24, 30)).astype(np.uint8)
    image.fromarray(grey).save(tmp_path / "8.png")
    image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.png")
    image.fromarray(grey).save(tmp_path / "8.tif")
    image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.tif")
    for name in ("8.png", "rgb.png", "8.tif", "16.tif"):
        object_field = make_object(tmp_path / name, (24, 30), np.random.default_rng(0))
        np.testing.assert_allclose(np.abs(object_field), 1 - 0.5 * grey / 255, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("key", ["probeGuess", "probe", "anything"])
@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (3, 32, 32)])
def test_probe_files_keep_their_scale_and_modes(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    stored = random_field(shape).astype(np.complex64)
    members: dict[str, Any] = {key: stored, "scan_index": np.arange(4)}
    np.savez(tmp_path / "p.npz", **members)
    np.testing.assert_allclose(make_probe(tmp_path / "p.npz", 32), stored.reshape(-1, 32, 32), rtol=1e-6)


def test_a_single_mode_from_a_file_can_be_given_more(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", make_probe("disk", 32)[0])
    np.testing.assert_allclose(
        np.abs(make_probe(tmp_path / "p.npy", 32, modes=2)), np.abs(make_probe("disk", 32, modes=2)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "members", "message"),
    [
        ("two.npz", {"a": np.ones((9, 9), complex), "b": np.ones((9, 9))}, r"'objectGuess' or 'object'.*\['a', 'b'\]"),
        ("none.npz", {"a": np.ones(9)}, r"received members \['a'\]"),
        ("real.npz", {"object": np.ones((9, 9))}, "object: expected complex numbers; received dtype float64"),
        ("deep.npz", {"object": np.ones((2, 9, 9), complex)}, r"expected a 2-D array; received shape \(2, 9, 9\)"),
        ("nan.npz", {"object": np.full((9, 9), np.nan + 0j)}, "expected finite values"),
        ("pickled.npz", {"object": np.array([[{}]], dtype=object)}, "expected a numpy array; received Object arrays"),
        ("small.npz", {"object": np.ones((9, 8), complex)}, "at least 10 x 10 pixels.*received 9 x 8 pixels.*larger"),
    ],
)
def test_object_archives_that_do_not_fit(tmp_path: Path, name: str, members: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / name, **members)
    with pytest.raises(DataError, match=message) as caught:
        make_object(tmp_path / name, (10, 10), np.random.default_rng(0))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.npy", None, "absent.npy: expected a file; received No such file"),
        ("broken.npz", b"PK no zip", "expected a .npz archive"),
        ("broken.npy", b"\x93NUMPY\x01", "expected a numpy array"),
        ("object.hdf5", b"", r"ends in .npy, .npz, .png.*received '.hdf5'"),
    ],
)
def test_unreadable_object_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        make_object(tmp_path / name, (10, 10), np.random.default_rng(0))


@pytest.mark.parametrize("name", ["broken.png", "broken.jpg"])
def test_broken_images_are_named(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(DataError, match=f"{name}: expected a readable image"):
        make_object(tmp_path / name, (10, 10), np.random.default_rng(0))


def test_images_without_matplotlib_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DataError, match=r"pip install 'ptycho-core\[plot\]'"):
        make_object(tmp_path / "o.png", (10, 10), np.random.default_rng(0))


def test_importing_the_simulation_does_not_import_matplotlib() -> None:
    program = "import sys, ptycho_core.simulation; sys.exit('matplotlib' in sys.modules)"
    root = Path(simulation.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (np.ones((64, 64), complex), r"shape \(32, 32\) or .*received shape \(64, 64\). Set N = 64, or resample"),
        (np.ones((32, 30), complex), "Make it square"),
        (np.ones((32, 32)), "expected complex numbers"),
        (np.zeros((32, 32), complex), "expected some light"),
    ],
)
def test_probes_that_do_not_fit(tmp_path: Path, probe: NDArray[Any], message: str) -> None:
    np.savez(tmp_path / "p.npz", probe=probe)
    for source in (probe, tmp_path / "p.npz"):
        with pytest.raises(DataError, match=message):
            small_scan(probe=source)


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"N": 33}, "N must be an even number; got 33. Use 32 or 34"),
        ({"N": 8}, "N must be a whole number >= 16; got 8"),
        ({"N": 32.0}, "N must be a whole number"),
        ({"positions": 0}, "positions must be a whole number >= 1; got 0"),
        ({"positions": 2.5}, "positions must be a whole number"),
        ({"photons": 0}, "photons must be a number > 0; got 0"),
        ({"photons": np.nan}, "photons must be a number > 0; got nan"),
        ({"photons": 1e19}, "photons must be at most 9e\\+18"),
        ({"photons": 1e-9}, "photons must be enough for a single count"),
        ({"step_px": -1.0}, "step_px must be a number > 0; got -1"),
        ({"modes": 0}, "modes must be a whole number >= 1; got 0"),
        ({"probe": random_field((2, 32, 32)), "modes": 3}, "modes must be 1 or 2"),
        ({"bad_pixels": -1}, "bad_pixels must be a whole number >= 0"),
        ({"bad_pixels": 1024}, "bad_pixels must be less than N² = 1024"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"seed": True}, "seed must be a whole number >= 0; got True"),
        ({"amplitude_range": (1.0, 0.5)}, r"amplitude_range must be \(low, high\), low >= 0"),
        ({"amplitude_range": (-0.1, 0.5)}, "amplitude_range"),
        ({"phase_range": (0.0, np.inf)}, "phase_range"),
        ({"phase_range": 1.0}, "phase_range"),
        ({"object": "line"}, "object must be one of lines, grf, .*got 'line'. Did you mean 'lines'?"),
        ({"object": "zzz"}, "or give a file for the object"),
        ({"probe": "defocused-zoneplate"}, "Did you mean 'defocused-zone-plate'?"),
        ({"scan": "rastr"}, "Did you mean 'raster'?"),
    ],
)
def test_arguments_out_of_range_are_refused_with_a_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small_scan(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": [[10.0, 40.0]]}, r"positions: expected >= N/2 = 16; .*Add \[7, 0\] to every"),
        ({"positions": [1.0, 2.0]}, r"positions: expected finite \(M, 2\); received shape \(2,\)"),
        ({"positions": [[np.nan, 40.0]]}, "positions: expected finite .* received NaN"),
        ({"positions": [[80.0, 40.0]], "object": np.ones((90, 90), complex)}, "at least 57 x 97 pixels"),
        ({"object": np.ones((40, 40), complex)}, "received 40 x 40 pixels. Use fewer or denser positions"),
        ({"object": np.ones((99, 99))}, "object: expected complex numbers"),
        ({"object": np.zeros((99, 99), complex)}, "object: expected some light"),
    ],
)
def test_data_that_do_not_fit_are_refused_with_a_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small_scan(**arguments)


def test_occupancy_must_not_increase() -> None:
    with pytest.raises(ConfigurationError, match="occupancy must be 2 positive numbers, the largest first"):
        make_probe("disk", 32, modes=2, occupancy=[0.2, 0.8])
