"""The learned prior: what it sees, what it may change, and where it is not used (specs/prior.md)."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.protocol import ImageNetwork
from ptycho_core.errors import ArchiveError, ConfigurationError, DataError
from ptycho_core.models.prior import LearnedPrior, load_prior
from ptycho_core.models.tiles import whole
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.unet import canvas_unet, first_weights
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving.asking import plan_of
from ptycho_core.solving.features import outside, range_of, smoothed, view_of
from ptycho_core.solving.learned import ALTERNATING, LEARNED, cleaned, from_file, shipped
from ptycho_core.solving.loop import Solving, solve
from ptycho_core.solving.prior import Prior
from ptycho_core.solving.priors import check_prior, prior_named
from ptycho_core.solving.problem import begun
from ptycho_core.solving.run import Freedoms, Run
from ptycho_core.solving.start import flat
from ptycho_core.vocabulary import OBJECT
from tests.core.solving.conftest import small

WIDE = {"noise": (-9.0, 9.0), "real": (-9.0, 9.0), "imaginary": (-9.0, 9.0)}


def some_prior(*, untaught: bool = False, seen: dict[str, tuple[float, float]] = WIDE) -> LearnedPrior:
    table, rng = canvas_unet(3, (4, 6)), np.random.default_rng(0)
    weights = first_weights(table, rng) if untaught else initial_weights(table, rng)
    return LearnedPrior(
        channels=(4, 6),
        weights=weights,
        seen=seen,
        learned={"epochs": 1},
        lessons=3,
        history=[{"epoch": 1.0, "loss": 0.5}],
        engine=ReferenceEngine().describe(),
    )


def network_of(prior: LearnedPrior) -> ImageNetwork:
    return ReferenceEngine().build_image_network(prior.table, None, prior.weights, ExecutionConfig())


def canvas(shape: tuple[int, int] = (41, 50), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An object of modulus 2 that is turned by 1 rad, and photons that fall off to the right."""
    rng = np.random.default_rng(seed)
    field = 2 * np.exp(1j) * (1 + 0.2 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))
    return field.astype(np.complex64), np.broadcast_to(np.geomspace(1e3, 1e-1, shape[1]), shape).copy()


# -- what it sees --------------------------------------------------------------------------------------------------


def test_what_it_sees_knows_neither_the_phase_nor_the_scale_of_the_object() -> None:
    field, counts = canvas()
    view, turned = view_of(field, counts), view_of((field * 3j).astype(np.complex64), counts / 9)
    np.testing.assert_allclose(turned.maps, view.maps, atol=2e-6)
    np.testing.assert_allclose(turned.mean, 3j * view.mean, rtol=1e-6)
    assert view.maps[view.lit][:, :2].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_where_no_light_fell_it_sees_a_clear_object_and_much_noise() -> None:
    field, counts = canvas()
    view = view_of(field, counts)
    assert 0 < view.lit.mean() < 1
    assert not view.maps[~view.lit][:, :2].any()
    noise = view.maps[0, :, 2]
    assert (np.diff(noise) >= 0).all() and noise[-1] > noise[0] + 1
    expected = np.log10(1 / np.sqrt(2 * counts[0, 0]) / abs(view.mean) + 1e-4) + 1.5
    assert noise[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda field, counts: (field, np.zeros_like(counts)), "no lit pixel"),
        (lambda field, counts: (field * 0, counts), r"a mean of 0"),
        (lambda field, counts: (field * np.nan, counts), r"a mean of \(?nan"),
    ],
)
def test_a_canvas_without_light_or_mean_is_refused(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        DataError, match=rf"canvas: expected lit pixels of a finite mean; received {message}.*--prior none"
    ):
        view_of(*spoil(*canvas()))


# -- what it changes -----------------------------------------------------------------------------------------------


def test_an_untaught_prior_smooths_what_is_hardly_lit_and_another_changes_the_rest() -> None:
    field, counts = canvas()
    untaught, prior = some_prior(untaught=True), some_prior()
    lit, unchanged = view_of(field, counts).lit, cleaned(network_of(untaught), untaught, field, counts)
    np.testing.assert_allclose(unchanged[lit], field[lit], rtol=1e-6)
    smooth = smoothed(field, counts)
    signal = counts * np.square(np.abs(field - smooth)[lit]).mean()
    expected = smooth + (field - smooth) * signal / (signal + 1)
    np.testing.assert_allclose(unchanged[~lit], expected[~lit], rtol=1e-5)
    changed = cleaned(network_of(prior), prior, field, counts)
    assert (np.abs(changed - field) > 1e-6)[lit].mean() > 0.95
    half = cleaned(network_of(prior), prior, field, counts, weight=0.5)
    np.testing.assert_allclose(half - field, (changed - field) / 2, atol=1e-6)


def test_smoothing_weighs_each_pixel_by_its_light_and_keeps_what_is_even() -> None:
    counts = np.zeros((40, 40))
    counts[:, :20] = 1e4
    halves = np.where(counts > 0, 1 + 1j, 9).astype(np.complex64)
    smooth = smoothed(halves, counts)
    np.testing.assert_allclose(smooth[:, :20], 1 + 1j, atol=0.02)
    np.testing.assert_allclose(smooth[:, 21], 1 + 1j, atol=0.1)
    np.testing.assert_allclose(smooth[:, 31:], 9, rtol=1e-5)


def test_tiles_are_the_whole() -> None:
    """On every side, and where the last tile is no whole block."""
    prior = some_prior()
    maps = np.random.default_rng(1).standard_normal((101, 75, 3)).astype(np.float32)
    network, table = network_of(prior), prior.table
    once = whole(network, table.block, table.reach_px, maps)
    assert once.shape == (101, 75, 2)
    np.testing.assert_allclose(whole(network, table.block, table.reach_px, maps, tile_px=32), once, atol=1e-5)
    wrong = whole(network, table.block, 2, maps, tile_px=32)
    assert np.abs(wrong - once).max() > 1e-3


def test_a_canvas_smaller_than_its_reach_is_seen_whole() -> None:
    prior = some_prior()
    field, counts = canvas((5, 7))
    assert prior.table.reach_px > 7
    assert cleaned(network_of(prior), prior, field, counts).shape == (5, 7)


# -- where it is not used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("high", "slack"), [(2.0, 0.3), (1.0, 0.3), (11.0, 1.0)])
def test_the_range_is_that_of_the_lessons_and_a_tenth_or_a_factor_of_two_more(high: float, slack: float) -> None:
    seen = range_of([{"noise": 1.0, "real": 0.0}, {"noise": high, "real": 0.0}])
    assert seen == {"noise": (1.0, high), "real": (0.0, 0.0)}
    for noise in (high + slack - 0.01, 1 - slack + 0.01):
        assert outside({"noise": noise, "real": 0.0}, seen) is None
    for noise in (high + slack + 0.01, 1 - slack - 0.01):
        told = outside({"noise": noise, "real": 0.0}, seen)
        assert told == f"a logarithm of the noise of {noise:.3g}, where 1 to {high:.3g} was learned from"


def test_an_object_outside_of_what_was_learned_is_left_as_it_is_with_a_warning(
    solved_scan: Scan, engines: list[str], tmp_path: Path
) -> None:
    file = some_prior(seen={**WIDE, "noise": (5.0, 6.0)}).save(tmp_path / "other.h5.zip")
    solving = Solving(solved_scan, small(prior=str(file)))
    warnings = [event.message for event in solving if event.kind == "warning"]
    assert len(warnings) == 1 and "was not used: the object has a logarithm of the noise of" in warnings[0]
    result, without = solving.result(), solve(solved_scan, small(prior="none"))
    np.testing.assert_array_equal(result.object_field, without.object_field)
    assert result.object_without_prior is None
    assert "logarithm of the noise" in result.choices["prior_not_used"]


# -- in a solve ----------------------------------------------------------------------------------------------------


def test_a_prior_of_ones_own_is_used_by_its_file_or_its_folder(
    solved_scan: Scan, engines: list[str], tmp_path: Path
) -> None:
    file = some_prior().save(tmp_path / "Mine")
    results = [solve(solved_scan, small(prior=name)) for name in (str(file), str(tmp_path / "Mine"))]
    np.testing.assert_array_equal(results[0].object_field, results[1].object_field)
    result, without = results[0], solve(solved_scan, small(prior="none"))
    assert result.object_without_prior is not None and result.known is not None
    np.testing.assert_array_equal(result.object_without_prior, without.object_field)
    assert np.abs(result.object_field - without.object_field)[result.known].max() > 1e-3
    assert result.prior_change is not None
    change = result.summary()["prior_change"]
    assert 0 < change["median"] < change["percentile_95"]
    assert without.prior_change is None and without.summary()["prior_change"] is None


def test_alternating_meets_the_patterns_between(solved_scan: Scan, engines: list[str], tmp_path: Path) -> None:
    """The sweeps between are the object's alone, and undo a part of what the prior changed."""
    config = small()
    engine, execution = ReferenceEngine(), ExecutionConfig()
    task = begun(solved_scan, config)
    runs = {}
    for rounds in (0, 2):
        prior = attrs.evolve(from_file(some_prior(untaught=True).save(tmp_path / f"{rounds}")), rounds=rounds)
        free = Freedoms(prior=prior, prior_name="own", prior_weight=1.0, probe=True)
        runs[rounds] = Run(task, engine, execution, flat(task, solved_scan.probe), free, plan_of(config))
        for _ in range(config.sweeps):
            runs[rounds].sweep()
    probes = [run.state.probe for run in runs.values()]
    np.testing.assert_array_equal(probes[0], probes[1])
    errors = [run.measure().error.sum() for run in runs.values()]
    assert errors[1] < errors[0]
    assert ALTERNATING.rounds == 2 and LEARNED.rounds == 0


def test_of_the_last_meeting_with_the_patterns_what_is_smooth_is_kept(solved_scan: Scan) -> None:
    config, engine = small(), ReferenceEngine()
    task = begun(solved_scan, config)
    run = Run(task, engine, ExecutionConfig(), flat(task, solved_scan.probe), Freedoms(), plan_of(config))
    before = run.state.canvas
    rows, columns = np.indices(before.shape)
    noise = 0.2 * (-1.0) ** (rows + columns)

    def meet_patterns(number: int = 0) -> None:
        weights = dict(run.solver.weights())
        weights[OBJECT] = weights[OBJECT] + np.stack([0.1 + noise, noise], axis=-1)
        run.solver.load_weights(weights)

    run.meet_patterns = meet_patterns  # type: ignore[method-assign]
    run._settle(0, np.ones(before.shape))
    inside = slice(12, -12), slice(12, -12)  # at an edge, pixels count twice
    np.testing.assert_allclose((run.state.canvas - before)[inside], 0.1, atol=1e-3)


def test_a_prior_is_named_or_a_file_that_is_there(tmp_path: Path) -> None:
    for name in ("auto", "none", "tv", "TV", "learned"):
        check_prior(name)
    with pytest.raises(
        ConfigurationError, match=r"prior: expected .* file; received no such file: .*gone.h5.zip|no such"
    ):
        check_prior(str(tmp_path / "gone.h5.zip"))
    with pytest.raises(
        ConfigurationError, match=r"prior must be one of auto, none, tv, learned, alternating; got 'learnt'"
    ):
        check_prior("learnt")
    broken = tmp_path / "broken.h5.zip"
    broken.write_bytes(b"PK")
    with pytest.raises(ArchiveError, match=r"broken\.h5\.zip"):
        check_prior(str(broken))
    assert prior_named("learned") is LEARNED


def test_a_prior_has_one_way_to_be_applied() -> None:
    with pytest.raises(ValueError, match="either apply or build"):
        Prior((1.0,))


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_prior_is_read_as_it_was_written(tmp_path: Path) -> None:
    prior = some_prior()
    read = load_prior(prior.save(tmp_path))
    assert (tmp_path / "prior.h5.zip").exists()
    assert (read.channels, read.seen, read.learned, read.lessons) == ((4, 6), WIDE, {"epochs": 1}, 3)
    assert read.history == prior.history and read.engine == prior.engine
    assert all(np.array_equal(read.weights[name], array) for name, array in prior.weights.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (4, 7)}, r"down1/conv0/kernel: expected shape \(3, 3, 4, 7\)"),
        ({"channels": (4,)}, r"channels: expected two to five whole numbers; received \(4,\)"),
        ({"seen": {"noise": (0.0, 1.0)}}, r"seen: expected two rising numbers for each of noise, real, imaginary"),
        ({"seen": {**WIDE, "real": (1.0, 0.0)}}, r"seen: expected two rising numbers"),
    ],
)
def test_a_damaged_prior_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    file = attrs.evolve(some_prior(), **changes).save(tmp_path / "prior.h5.zip")
    with pytest.raises(ArchiveError, match=message) as caught:
        load_prior(file)
    assert str(file) in str(caught.value)


def test_the_prior_of_the_package_is_there_and_small() -> None:
    prior = shipped()
    assert prior.channels == (24, 48, 96) and prior.table.reach_px == 24
    assert sum(array.size for array in prior.weights.values()) == 265_946
    assert prior.lessons > 100 and prior.learned["seed"] == 0


def test_the_prior_of_the_package_makes_few_photons_a_better_image(engines: list[str]) -> None:
    scan = simulate(N=32, positions=150, object="dead-leaves", photons=1e3, seed=77, phase_range=(0.0, 1.0))
    config = SolveConfig(refine="none", modes="1", sweeps=10, prior="learned")
    result = solve(scan, config)
    assert result.object_without_prior is not None and result.known is not None and scan.object_field is not None
    task = begun(scan, config)
    x, y = (round(edge) for edge in task.origin_px)
    truth = scan.object_field[y : y + task.shape[0], x : x + task.shape[1]]
    inside = result.known[: truth.shape[0], : truth.shape[1]]

    def likeness(field: np.ndarray) -> float:
        a, b = (each[inside] - each[inside].mean() for each in (field[: inside.shape[0], : inside.shape[1]], truth))
        return float(abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b))

    assert 1 - likeness(result.object_field) < 0.85 * (1 - likeness(result.object_without_prior))
