"""Every field of SolveConfig does what it says: changing it changes what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError
from ptycho_core.formats.convert import save_scan
from ptycho_core.runs.solve import solve_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving.loop import Solving, solve
from ptycho_core.solving.priors import PRIORS, register_prior
from ptycho_core.solving.problem import begun
from tests.core.solving.conftest import small

pytestmark = pytest.mark.usefixtures("engines")
field = pytest.mark.field


def objects(scan: Scan, **changes: Any) -> tuple[Any, Any]:
    """The object with the setting at its usual value, and changed."""
    beside = {name: changes.pop(name) for name in ("refine", "modes", "prior", "sweeps") if name in changes and changes}
    return solve(scan, small(**beside)).object_field, solve(scan, small(**beside, **changes)).object_field


def differ(pair: tuple[Any, Any]) -> bool:
    return not np.array_equal(*pair)


@field("solving.data_file", "solving.output_dir")
def test_data_file_is_solved_into_output_dir(solved_scan: Scan, tmp_path: Path) -> None:
    save_scan(tmp_path / "scan.npz", solved_scan)
    config = small(data_file=tmp_path / "scan.npz", output_dir=tmp_path / "out")
    run = Solving(None, config)
    done = solve_into(config.output_dir, run._task.scan, config)
    assert done.summary is not None
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "reconstruction.npz",
        "reconstruction.json",
        "solving.h5.zip",
        "config.toml",
    }


@field("solving.backend")
def test_backend_chooses_the_engine(solved_scan: Scan, engines: list[str]) -> None:
    for backend in ("torch", "TensorFlow"):
        Solving(solved_scan, small(backend=backend))
    assert engines == ["torch", "tensorflow"]


@field("solving.sweeps")
def test_sweeps_are_passes_over_the_frames(solved_scan: Scan) -> None:
    assert len(solve(solved_scan, small(sweeps=2)).history) == 2
    assert len(solve(solved_scan, small(sweeps=5)).history) == 5


@field("solving.batches", "solving.loss", "solving.object_rate", "solving.seed", "solving.nphotons")
@pytest.mark.parametrize(
    "change", [{"batches": 8}, {"loss": "amplitude"}, {"object_rate": 0.01}, {"seed": 5}, {"nphotons": 500.0}]
)
def test_what_a_step_is_made_of_changes_the_object(solved_scan: Scan, change: dict[str, Any]) -> None:
    assert differ(objects(attrs.evolve(solved_scan, dose_known=False), **change))


@field("solving.nphotons")
def test_nphotons_is_not_used_where_the_dose_is_known(solved_scan: Scan) -> None:
    assert not differ(objects(solved_scan, nphotons=500.0))


@field("solving.probe_rate")
def test_probe_rate_is_the_step_of_the_probe(solved_scan: Scan) -> None:
    slow, usual = (solve(solved_scan, small(refine="probe", probe_rate=rate)).probe for rate in (0.001, 0.05))
    begun_ = solve(solved_scan, small()).probe
    assert 0 < np.abs(slow - begun_).max() < 0.2 * np.abs(usual - begun_).max()


@field("solving.refine")
def test_refine_names_what_is_refined(solved_scan: Scan) -> None:
    given = solve(solved_scan, small())
    for name in ("probe", "positions", "intensity"):
        result = solve(solved_scan, small(refine=name, sweeps=4))
        changed = {
            "probe": not np.array_equal(result.probe, given.probe),
            "positions": not np.array_equal(result.positions_px, given.positions_px),
            "intensity": not np.array_equal(result.intensities, given.intensities),
        }
        assert changed == {each: each == name for each in changed}


@field("solving.refine")
@pytest.mark.parametrize("wrong", ["prob", "probe,probe", "", "probe,,positions", "auto,probe"])
def test_refine_takes_nothing_else(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="refine must be auto, none, or some of probe, positions"):
        SolveConfig(refine=wrong)


@field("solving.refine")
def test_refine_takes_spaces_and_capitals() -> None:
    assert SolveConfig(refine="Positions, probe").refined == ("probe", "positions")
    assert SolveConfig(refine="none").refined == ()
    assert SolveConfig().refined is None


@field("solving.modes")
@pytest.mark.parametrize(("modes", "count"), [(1, 1), ("3", 3), (8, 8)])
def test_modes_are_those_of_the_probe(solved_scan: Scan, modes: Any, count: int) -> None:
    config = small(modes=modes, refine="probe", sweeps=1)
    assert config.mode_count == count
    assert solve(solved_scan, config).probe.shape == (count, 16, 16)


@field("solving.modes")
@pytest.mark.parametrize("wrong", [0, 9, "many", 2.5, True])
def test_other_numbers_of_modes_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="SolveConfig: modes must be one of"):
        SolveConfig(modes=wrong)


@field("solving.position_error_px")
def test_position_error_px_is_how_far_places_are_searched(solved_scan: Scan) -> None:
    shapes = [begun(solved_scan, small(refine="positions", position_error_px=px)).shape for px in (1.0, 4.0)]
    assert shapes[1][0] - shapes[0][0] == 2 * (11 - 3)
    near, far = (
        solve(solved_scan, small(refine="positions", sweeps=4, position_error_px=px)).positions_px for px in (0.01, 2.0)
    )
    assert np.linalg.norm(near - solved_scan.positions_px, axis=1).max() <= 0.026
    assert not np.array_equal(near, far)


@field("solving.held_out")
def test_held_out_is_the_part_of_the_pixels_that_is_not_fitted(solved_scan: Scan) -> None:
    assert begun(solved_scan, small(held_out=0.3)).held_out.mean() == pytest.approx(0.3, abs=0.01)
    with pytest.raises(ConfigurationError, match=r"a number > 0 and <= 0\.5"):
        small(held_out=0.0)


@field("solving.prior", "solving.prior_weight")
def test_a_prior_smooths_the_object_by_its_weight(solved_scan: Scan) -> None:
    def variation(**changes: Any) -> float:
        result = solve(solved_scan, small(**changes))
        return float(np.abs(np.diff(result.object_field, axis=0))[result.known[1:]].sum())

    none, weak, strong = variation(), variation(prior="tv", prior_weight=0.01), variation(prior="tv", prior_weight=0.3)
    assert none > weak > strong


@field("solving.start")
def test_start_is_the_object_to_begin_with(solved_scan: Scan, tmp_path: Path) -> None:
    solve(solved_scan, small(sweeps=8)).save(tmp_path / "reconstruction.npz")
    flat, begun_ = solve(solved_scan, small(sweeps=1)), solve(solved_scan, small(sweeps=1, start=str(tmp_path)))
    assert begun_.R is not None and flat.R is not None
    assert begun_.R < 0.5 * flat.R


@field("solving.first_probe")
def test_first_probe_auto_does_not_use_the_scans_probe(solved_scan: Scan) -> None:
    config = small(first_probe="auto", refine="probe", sweeps=1)
    other = attrs.evolve(solved_scan, probe=np.roll(solved_scan.probe, 3, axis=1))
    one, same = (finished_or_refused(scan, config) for scan in (solved_scan, other))
    assert one == same
    assert any("radius" in line for line in one)


def finished_or_refused(scan: Scan, config: SolveConfig) -> list[str]:
    """The lines of what was tried; the run may end with a refusal after them."""
    run = Solving(scan, config)
    try:
        for _ in run:
            pass
    except Exception as error:  # noqa: BLE001 - the refusal is one of the lines
        return [*(trial.line for trial in run.trials), str(error)]
    return [trial.line for trial in run.trials]


@field("solving.probe_defocus")
def test_probe_defocus_auto_looks_around_the_scans_probe(solved_scan: Scan) -> None:
    lines = finished_or_refused(solved_scan, small(probe_defocus="auto", refine="probe", sweeps=1))
    assert sum("defocus" in line for line in lines) >= 11


@field("solving.orientation")
def test_orientation_auto_turns_the_patterns(solved_scan: Scan) -> None:
    lines = finished_or_refused(solved_scan, small(orientation="auto", sweeps=1))
    assert sum("orientation" in line for line in lines) >= 8


@field("solving.split_half")
def test_split_half_brings_a_resolution_and_a_calibrated_error(solved_scan: Scan) -> None:
    whole, halves = solve(solved_scan, small(sweeps=2)), solve(solved_scan, small(sweeps=2, split_half=True))
    assert whole.frc is None
    assert halves.frc is not None
    assert (whole.error_factor_from, halves.error_factor_from) == ("the default", "split halves")
    np.testing.assert_array_equal(whole.object_field, halves.object_field)


def test_halves_have_the_prior_for_the_error_and_none_for_the_resolution() -> None:
    scan = simulate(N=16, positions=60, step_px=3, object="lines", photons=2e3, seed=3)
    plain, denoised = (
        solve(scan, small(sweeps=8, prior=prior, split_half=True, **weight))
        for prior, weight in (("none", {}), ("tv", {"prior_weight": 0.5}))
    )
    assert plain.frc is not None and denoised.frc is not None
    np.testing.assert_allclose(denoised.frc.correlation[:8], plain.frc.correlation[:8], atol=0.1)
    assert plain.error_factor is not None and denoised.error_factor is not None
    assert denoised.error_factor < 0.5 * plain.error_factor


def test_a_prior_is_registered_by_one_function(solved_scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PRIORS, "_registered", {})
    lights = []

    @register_prior("nothing-known", weights=(0.5,))
    def keep(solver: Any, weight: float, light: Any) -> None:
        lights.append((weight, light.shape))

    solve(solved_scan, small(prior="nothing-known", prior_weight=0.5))
    shape = begun(solved_scan, small()).shape
    np.testing.assert_allclose([weight for weight, _ in lights], [0.375, 0.125, 0.05])
    assert {each for _, each in lights} == {shape}
