"""What a solve begins with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.loop import Solving, solve
from ptycho_core.solving.problem import Task, begun, scaled
from ptycho_core.solving.run import State
from ptycho_core.solving.start import begun_with, flat, opened
from tests.core.refusals import refusal_of
from tests.core.solving.conftest import small

pytestmark = pytest.mark.usefixtures("engines")


@pytest.fixture
def task(solved_scan: Scan) -> Task:
    return begun(solved_scan, small())


@pytest.fixture(scope="module")
def solution(solved_scan: Scan) -> Reconstruction:
    with pytest.MonkeyPatch.context() as patch:
        from ptycho_core_reference import ReferenceEngine

        patch.setattr("ptycho_core.solving.loop.load_engine", lambda backend: ReferenceEngine())
        return solve(solved_scan, small(sweeps=8, refine="probe"))


def begin(start: Any, task: Task) -> State:
    probe = scaled(task.scan, task.scan.probe)
    return begun_with(opened(start, task.scan, "reference", ExecutionConfig()), task, probe)


def first_R(scan: Scan, start: Any) -> float:
    result = solve(scan, small(sweeps=1, object_rate=1e-6), start=start)
    assert result.R is not None
    return result.R


def test_flat_is_one_everywhere(task: Task) -> None:
    state = flat(task, scaled(task.scan, task.scan.probe))
    assert (state.canvas == 1).all()
    assert (state.intensity == 1).all()
    np.testing.assert_array_equal(state.positions_px, task.scan.positions_px)


def test_a_reconstruction_gives_object_and_probe(solved_scan: Scan, solution: Reconstruction) -> None:
    assert solution.R is not None
    assert first_R(solved_scan, solution) == pytest.approx(solution.R, rel=0.05)
    assert first_R(solved_scan, "flat") > 5 * solution.R


def test_the_scale_of_its_probe_is_no_matter(solved_scan: Scan, solution: Reconstruction) -> None:
    brighter = attrs.evolve(solution, probe=2 * solution.probe, object_field=solution.object_field / 2)
    assert first_R(solved_scan, brighter) == pytest.approx(first_R(solved_scan, solution), rel=1e-5)


def test_an_array_lies_as_the_objects_of_scans_do(solved_scan: Scan, task: Task) -> None:
    assert solved_scan.object_field is not None
    canvas = begin(solved_scan.object_field, task).canvas
    x, y = (round(origin) for origin in task.origin_px)
    np.testing.assert_array_equal(canvas[10 - y : 30 - y, 12 - x : 32 - x], solved_scan.object_field[10:30, 12:32])


def test_a_reconstruction_between_pixels_lies_at_the_nearest(solution: Reconstruction, task: Task) -> None:
    x, y = solution.origin_px
    near, whole = (
        begin(attrs.evolve(solution, origin_px=(x + dx, y + dy)), task).canvas for dx, dy in ((0.6, -0.6), (1, -1))
    )
    np.testing.assert_array_equal(near, whole)


def test_what_it_does_not_know_begins_at_its_mean_without_its_modulus(task: Task) -> None:
    height, width = task.shape
    field = np.full((height, width), 0.5j, np.complex64)
    field[:, width // 2 + 8 :] = 0  # 0: not known
    canvas = begin(field, task).canvas
    assert np.allclose(canvas[5, 15], 0.5j)
    assert np.allclose(canvas[5, -1], 1j)


def test_a_file_and_a_folder_of_a_reconstruction(solution: Reconstruction, task: Task, tmp_path: Path) -> None:
    solution.save(tmp_path)
    for path in (tmp_path, tmp_path / "reconstruction.npz"):
        np.testing.assert_array_equal(begin(str(path), task).canvas, begin(solution, task).canvas)


def test_an_array_in_a_file(solved_scan: Scan, task: Task, tmp_path: Path) -> None:
    assert solved_scan.object_field is not None
    np.savez(tmp_path / "object.npz", objectGuess=solved_scan.object_field)
    found = begin(tmp_path / "object.npz", task)
    np.testing.assert_array_equal(found.canvas, begin(solved_scan.object_field, task).canvas)


def test_it_is_refused_before_the_first_sweep(solved_scan: Scan) -> None:
    refusal_of(lambda: Solving(solved_scan, small(), start=np.ones((3, 4, 5), complex)), DataError, source="start")


# -- refused -----------------------------------------------------------------------------------------------------------

Change = Callable[[Reconstruction], Reconstruction]


def with_nan(start: Reconstruction) -> Reconstruction:
    field = start.object_field.copy()
    field[12, 12] = np.nan
    return attrs.evolve(start, object_field=field)


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (lambda start: attrs.evolve(start, probe=np.ones((1, 32, 32), np.complex64)), "probe", "received 32 x 32"),
        (with_nan, "object", "received NaN or infinity"),
        (lambda start: attrs.evolve(start, origin_px=(1000.0, 1000.0)), "object", "which hold 0% of the light"),
    ],
    ids=["another size of pattern", "NaN", "elsewhere"],
)
def test_what_does_not_fit_is_refused(
    solution: Reconstruction, task: Task, change: Change, key: str, words: str
) -> None:
    refusal_of(lambda: begin(change(solution), task), DataError, words, source="start", key=key)


def test_another_size_of_pixel_is_refused(solved_scan: Scan, solution: Reconstruction, task: Task) -> None:
    facts = {"wavelength_m": 1e-10, "detector_distance_m": 2.0, "detector_pixel_m": [1e-4, 1e-4]}
    scan = attrs.evolve(solved_scan, metadata={**solved_scan.metadata, **facts})
    ours = Lengths.of(scan.metadata, scan.N)
    assert ours.object_pixel_m is not None
    x, y = ours.object_pixel_m
    same, other = (
        attrs.evolve(solution, lengths=attrs.evolve(ours, object_pixel_m=(x * factor, y))) for factor in (1.005, 1.02)
    )
    measured = attrs.evolve(task, scan=scan)
    begin(same, measured)
    refusal_of(lambda: begin(other, measured), DataError, "Begin with", source="start", key="object pixel")


def test_a_path_without_a_file_is_refused(task: Task, tmp_path: Path) -> None:
    missing = tmp_path / "missing.npz"
    refusal_of(lambda: begin(missing, task), ConfigurationError, str(missing), key="start")
