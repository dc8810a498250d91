"""The training loop, with an engine that has no framework: reports, best weights, schedules, stopping and warnings."""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import Cancelled, ConfigurationError, DataError, TrainingError
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import train
from ptycho_core.training.reports import EpochReport, Progress
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.core.by_loss import BY_LOSS, fit, fit_by_default
from tests.networks import cnn

MODEL_FIELDS = ("gridsize", "model_type", "N", "object_big", "pad_object")


def config(**changes: Any) -> TrainingConfig:
    model = {name: changes.pop(name) for name in MODEL_FIELDS if name in changes}
    small = cnn(**{"N": 32, "n_filters_scale": 1, **model})
    return TrainingConfig(model=small, **{"nepochs": 3, "batch_size": 4, **changes})


def epoch_of(model: Any) -> int:
    """The epoch that the weights are from, as the fake network marks them."""
    return int(model.weights[LOG_SCALE])


# -- reports -------------------------------------------------------------------------------------------------------


def test_every_epoch_is_reported(fake_engine: Any, numbered_scan: Any) -> None:
    reports = list(fit(numbered_scan(count=9), config(n_groups=9)))
    assert [(report.epoch, report.nepochs) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    assert [report.train for report in reports] == [{"total": 1 / epoch, "nll": 0.5} for epoch in (1, 2, 3)]
    assert [report.learning_rate for report in reports] == fake_engine.rates
    assert [report.is_best for report in reports] == [True, True, True]
    assert all(report.validation is None for report in reports)
    assert all(report.patterns_per_second == pytest.approx(9 / report.seconds) for report in reports)


def test_a_row_of_the_history_is_flat() -> None:
    report = EpochReport(
        done=2,
        total=9,
        learning_rate=1e-3,
        physics_weight=0.5,
        train={"total": 0.5, "nll": 0.25},
        validation={"total": 0.75},
        is_best=True,
        is_kept=True,
        seconds=3.5,
        patterns_per_second=20.0,
    )
    assert report.as_row() == {
        "epoch": 2.0,
        "learning_rate": 1e-3,
        "physics_weight": 0.5,
        "total": 0.5,
        "nll": 0.25,
        "validation_total": 0.75,
        "seconds": 3.5,
    }


@pytest.mark.usefixtures("fake_engine")
def test_the_history_has_a_row_for_every_epoch(numbered_scan: Any) -> None:
    run = fit(numbered_scan(), config())
    rows = [report.as_row() for report in run]
    assert run.history == rows
    assert run.model is not None
    assert run.model.history == rows


@pytest.mark.usefixtures("fake_engine")
def test_the_model_says_what_made_it(numbered_scan: Any) -> None:
    asked = config(batch_size=2)
    model = train(numbered_scan(), asked, execution=BY_LOSS)
    assert (model.engine.name, model.best_epoch, model.config) == ("fake", 3, asked)


@pytest.mark.usefixtures("fake_engine")
def test_changing_the_configuration_afterwards_does_not_reach_the_run(numbered_scan: Any) -> None:
    asked = config()
    run = fit(numbered_scan(), asked)
    asked.nepochs, asked.model.gridsize = 9, 2
    assert len(list(run)) == 3
    assert run.model is not None
    assert run.model.config.model.gridsize == 1


def test_the_engine_is_the_one_asked_for_and_is_given_everything(fake_engine: Any, numbered_scan: Any) -> None:
    scan, execution = numbered_scan(), ExecutionConfig(precision="64-true")
    fit(scan, config(backend="tensorflow", seed=3), execution=execution)
    ((model, training, weights, given_execution),) = fake_engine.built
    assert fake_engine.backends == ["tensorflow"]
    assert (model.N, training.seed, given_execution) == (32, 3, execution)
    assert weights[LOG_SCALE] == 0
    assert set(weights) == {*build_table(model).parameters, LOG_SCALE}


def test_a_probe_that_is_refined_is_among_the_weights_and_begins_as_that_of_the_batches(
    fake_engine: Any, numbered_scan: Any
) -> None:
    list(fit(numbered_scan(), config(nepochs=1, probe_trainable=True)))
    ((_, _, weights, _),) = fake_engine.built
    np.testing.assert_array_equal(weights[PROBE], fake_engine.epochs[0][0].illumination.pairs)


def test_every_batch_is_lit_as_the_training_scan_is(fake_engine: Any, numbered_scan: Any) -> None:
    """The test scan's, too: what a network sees is scaled as in training."""
    scan = numbered_scan()
    run = fit(scan, config(nepochs=2, batch_size=4), test=numbered_scan(seed=1))
    list(run)
    batches = [batch for epoch in (*fake_engine.epochs, *fake_engine.evaluated) for batch in epoch]
    (lit,) = {batch.illumination for batch in batches}
    assert len(batches) > 4
    expected = Illumination.of(scan, nphotons=1e9)
    np.testing.assert_array_equal(lit.probe, expected.probe)
    assert (lit.input_scale, lit.mean_intensity) == (expected.input_scale, expected.mean_intensity)
    assert np.sum(lit.intensity) == pytest.approx(np.mean(np.arange(1, 10) ** 2) * 32**2, rel=1e-5)
    assert run.model is not None
    np.testing.assert_array_equal(run.model.illumination.probe, lit.probe)


# -- best weights --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine")
def test_without_a_test_scan_the_training_loss_chooses_the_weights(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = {1: 3.0, 2: 1.0, 3: 2.0}.__getitem__
    run = fit(numbered_scan(), config())
    assert [report.is_best for report in run] == [True, True, False]
    assert run.model is not None
    assert (epoch_of(run.model), run.model.best_epoch, len(run.model.history)) == (2, 2, 3)


def test_with_a_test_scan_its_loss_chooses_the_weights(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = {1: 3.0, 2: 2.0, 3: 1.0}.__getitem__
    fake_engine.validation_loss = {1: 0.5, 2: 0.75, 3: 0.625}.__getitem__
    run = fit(numbered_scan(), config(), test=numbered_scan(count=5, seed=1))
    assert [report.validation for report in run] == [{"total": 0.5}, {"total": 0.75}, {"total": 0.625}]
    assert run.model is not None
    assert (epoch_of(run.model), run.model.best_epoch) == (1, 1)


def test_the_test_scan_is_evaluated_on_the_same_groups_every_epoch(
    fake_engine: Any, numbered_scan: Any, frames_of: Any
) -> None:
    list(fit(numbered_scan(count=20), config(gridsize=2, n_groups=6), test=numbered_scan(count=10, seed=1)))
    evaluated = [np.concatenate([frames_of(batch) for batch in batches]) for batches in fake_engine.evaluated]
    assert evaluated[0].shape == (6, 4)
    for epoch in evaluated[1:]:
        np.testing.assert_array_equal(epoch, evaluated[0])


def test_a_small_test_scan_needs_no_oversampling(fake_engine: Any, numbered_scan: Any, frames_of: Any) -> None:
    list(fit(numbered_scan(count=20), config(gridsize=2, n_groups=20, nepochs=1), test=numbered_scan(count=5, seed=1)))
    assert sum(len(frames_of(batch)) for batch in fake_engine.evaluated[0]) == 5


def test_training_and_test_batches_have_one_canvas(fake_engine: Any, numbered_scan: Any) -> None:
    positions = numbered_scan(count=12).positions_px
    wide = numbered_scan(count=12, positions_px=positions * 3, seed=1)
    list(fit(numbered_scan(count=12), config(gridsize=2, n_groups=12), test=wide))
    batches = [batch for epoch in fake_engine.epochs + fake_engine.evaluated for batch in epoch]
    (padding,) = {batch.canvas_padding_px for batch in batches}
    assert padding >= max(np.abs(batch.relative_offsets_px).max() for batch in batches) > 0


def test_early_stopping_waits_for_its_patience(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = {1: 3.0, 2: 1.0, 3: 2.0, 4: 0.5, 5: 0.6, 6: 0.5, 7: 0.1}.__getitem__
    run = fit(numbered_scan(), config(nepochs=9, early_stop_patience=2))
    assert [report.epoch for report in run] == [1, 2, 3, 4, 5, 6]
    assert run.model is not None
    assert epoch_of(run.model) == 4


# -- leaving, going on, stopping -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine")
def test_there_is_no_model_before_the_first_epoch(numbered_scan: Any) -> None:
    assert fit(numbered_scan(), config()).model is None


@pytest.mark.usefixtures("fake_engine")
def test_leaving_the_loop_leaves_the_model_of_the_epochs_so_far(numbered_scan: Any) -> None:
    run = fit(numbered_scan(), config(nepochs=9))
    for report in run:
        if report.epoch == 2:
            break
    assert run.model is not None
    assert (len(run.history), epoch_of(run.model)) == (2, 2)


def test_a_loop_that_was_left_can_be_entered_again(fake_engine: Any, numbered_scan: Any) -> None:
    run = fit(numbered_scan(), config(nepochs=4))
    assert [next(iter(run)).epoch, next(iter(run)).epoch] == [1, 2]
    assert [report.epoch for report in run] == [3, 4]
    whole = list(fit(numbered_scan(), config(nepochs=4)))
    assert len(whole) == 4
    for first, second in zip(fake_engine.epochs[:4], fake_engine.epochs[4:], strict=True):
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.diffraction_amplitude, other.diffraction_amplitude)


def test_a_loop_that_is_entered_again_keeps_its_best_weights(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = {1: 1.0, 2: 3.0, 3: 2.0}.__getitem__
    run = fit(numbered_scan(), config())
    next(iter(run))
    assert [report.is_best for report in run] == [False, False]
    assert run.model is not None
    assert epoch_of(run.model) == 1


@pytest.mark.usefixtures("fake_engine")
def test_a_wish_to_stop_is_heard_before_the_next_batch(numbered_scan: Any) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 5  # three batches per epoch: the second one of epoch 2

    run = fit(numbered_scan(count=9), config(n_groups=9), should_stop=should_stop)
    with pytest.raises(Cancelled, match="stopped in epoch 2, before batch 2 of 3"):
        list(run)
    assert run.model is not None
    assert (len(run.history), epoch_of(run.model)) == (1, 1)


@pytest.mark.usefixtures("fake_engine")
def test_no_thread_is_left_after_a_stop(numbered_scan: Any) -> None:
    def stop_at_once() -> None:
        with pytest.raises(Cancelled):
            list(fit(numbered_scan(count=9), config(batch_size=1), should_stop=lambda: True))

    stop_at_once()
    assert [thread.name for thread in threading.enumerate() if thread.name == "ptycho-prefetch"] == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_best(
    fake_engine: Any, numbered_scan: Any, loss: float
) -> None:
    fake_engine.train_loss = {1: 2.0, 2: 1.0, 3: loss}.__getitem__
    run = fit(numbered_scan(), config(nepochs=9))
    with pytest.raises(
        TrainingError, match=r"training: loss of epoch 3: expected finite numbers; received train (nan|inf)"
    ):
        list(run)
    assert run.model is not None
    assert (epoch_of(run.model), len(run.history)) == (2, 2)


def test_a_validation_loss_that_is_not_finite_ends_the_run(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.validation_loss = lambda epoch: math.nan
    run = fit(numbered_scan(), config(), test=numbered_scan(seed=1))
    with pytest.raises(TrainingError, match=r"loss of epoch 1: .* monitored total nan\. Lower learning_rate"):
        list(run)
    assert run.model is None


def test_a_training_loss_that_is_not_finite_ends_the_run_whatever_the_validation_loss(
    fake_engine: Any, numbered_scan: Any
) -> None:
    fake_engine.train_loss = lambda epoch: math.nan
    with pytest.raises(TrainingError, match=r"loss of epoch 1: .* received train nan, monitored total 1\.0"):
        list(fit(numbered_scan(), config(), test=numbered_scan(seed=1)))


# -- callbacks -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine")
def test_callbacks_are_given_every_report(numbered_scan: Any) -> None:
    first: list[EpochReport] = []
    second: list[int] = []
    train(numbered_scan(), config(), callbacks=[first.append, lambda report: second.append(report.epoch)])
    assert [report.epoch for report in first] == second == [1, 2, 3]


def test_a_callback_that_returns_true_ends_the_training_with_its_best_model(
    fake_engine: Any, numbered_scan: Any
) -> None:
    fake_engine.train_loss = {1: 0.5, 2: 1.0, 3: 0.1}.__getitem__
    seen: list[int] = []
    asked = iter([lambda report: report.epoch == 2, lambda report: seen.append(report.epoch)])
    model = train(numbered_scan(), config(), callbacks=asked)
    assert seen == [1, 2], "all are told, in every epoch"
    assert (model.best_epoch, len(model.history)) == (1, 2)


@pytest.mark.usefixtures("fake_engine")
def test_what_a_callback_returns_or_raises_otherwise_is_no_wish_or_an_error(numbered_scan: Any) -> None:
    assert len(train(numbered_scan(), config(), callbacks=[lambda report: 1]).history) == 3  # type: ignore[list-item]

    def refuse(report: EpochReport) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        train(numbered_scan(), config(), callbacks=[refuse])


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(("gridsize", "patterns"), [(1, [0, 4, 8]), (2, [0, 16, 32])])
def test_progress_is_told_before_every_batch(numbered_scan: Any, gridsize: int, patterns: list[int]) -> None:
    told: list[Progress] = []
    list(fit(numbered_scan(), config(nepochs=2, n_groups=9, gridsize=gridsize), on_batch=told.append))
    assert [(p.epoch, p.nepochs, p.batch, p.batches, p.patterns) for p in told] == [
        (epoch, 2, batch, 3, patterns[batch]) for epoch in (1, 2) for batch in range(3)
    ]


def test_progress_holds_the_latest_losses(fake_engine: Any, numbered_scan: Any, monkeypatch: Any) -> None:
    """Of the batches of its epoch, where the engine has done one; of the epoch before, where it has none."""
    monkeypatch.setattr("ptycho_core.training.fit.LOSSES_EVERY_S", 0)
    told: list[Progress] = []
    scan = numbered_scan()
    list(fit(scan, config(nepochs=2, n_groups=9), test=scan, on_batch=told.append))
    assert [progress.terms.get("total") for progress in told] == [None, 1, 2, 1, 1, 2]  # the first epoch's loss is 1
    assert [progress.terms.get("validation_total") for progress in told] == [None, None, None, 1, 1, 1]
    assert [progress.message for progress in told[:2]] == ["epoch 1/2", "epoch 1/2, loss 1"]
    assert told[-1].message == "epoch 2/2, loss 2, validation 1"


def test_an_engine_is_not_asked_for_losses_more_often_than_they_are_shown(fake_engine: Any, numbered_scan: Any) -> None:
    told: list[Progress] = []
    list(fit(numbered_scan(), config(nepochs=1, n_groups=9, batch_size=1), on_batch=told.append))
    assert len({progress.terms.get("total") for progress in told}) < len(told)


# -- batches -------------------------------------------------------------------------------------------------------


def drawn_frames(engine: Any, frames_of: Any) -> list[Any]:
    """Frames of each epoch in the order in which the network was given them."""
    return [np.concatenate([frames_of(batch) for batch in epoch]) for epoch in engine.epochs]


@pytest.mark.parametrize("gridsize", [1, 2])
def test_order_and_groups_are_functions_of_seed_and_epoch(
    fake_engine: Any, numbered_scan: Any, frames_of: Any, gridsize: int
) -> None:
    for seed in (5, 5, 6):
        list(fit(numbered_scan(count=16), config(nepochs=2, n_groups=16, gridsize=gridsize, seed=seed)))
    first, second, again, _, other, _ = drawn_frames(fake_engine, frames_of)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    assert (first != other).any()


def test_an_epoch_takes_every_frame_once_without_groups(fake_engine: Any, numbered_scan: Any, frames_of: Any) -> None:
    list(fit(numbered_scan(count=11), config(n_groups=512)))
    for frames in drawn_frames(fake_engine, frames_of):
        np.testing.assert_array_equal(np.sort(frames.ravel()), np.arange(11))
    assert [len(batch) for batch in fake_engine.epochs[0]] == [4, 4, 3]


def test_an_epoch_has_as_many_groups_as_asked_for(fake_engine: Any, numbered_scan: Any, frames_of: Any) -> None:
    list(fit(numbered_scan(count=11), config(n_groups=7, gridsize=2)))
    assert [frames.shape for frames in drawn_frames(fake_engine, frames_of)] == [(7, 4)] * 3


@pytest.mark.usefixtures("fake_engine")
def test_more_groups_than_frames_are_refused_with_the_remedy(numbered_scan: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"got 100 groups of 4 from 9 positions.* Set n_groups to 9"):
        fit(numbered_scan(), config(gridsize=2, n_groups=100))


def test_a_subsample_is_drawn_once_by_its_own_seed(fake_engine: Any, numbered_scan: Any, frames_of: Any) -> None:
    for seed, subsample_seed in ((0, 7), (1, 7), (7, None), (0, 8)):
        list(fit(numbered_scan(count=40), config(nepochs=1, n_subsample=6, seed=seed, subsample_seed=subsample_seed)))
    chosen = [set(frames.ravel()) for frames in drawn_frames(fake_engine, frames_of)]
    assert len(chosen[0]) == 6
    assert chosen[0] == chosen[1] == chosen[2]
    assert chosen[0] != chosen[3]


def test_the_scale_is_measured_on_the_subsample(fake_engine: Any, numbered_scan: Any, frames_of: Any) -> None:
    list(fit(numbered_scan(count=40), config(nepochs=1, n_subsample=3)))
    amplitudes = 1 + np.concatenate([frames_of(batch).ravel() for batch in fake_engine.epochs[0]])
    lit = fake_engine.epochs[0][0].illumination
    assert lit.input_scale == pytest.approx(16 / (32 * np.sqrt(np.mean(amplitudes**2))), rel=1e-5)


@pytest.mark.usefixtures("fake_engine")
def test_a_subsample_larger_than_the_scan_is_refused(numbered_scan: Any) -> None:
    message = r"TrainingConfig: n_subsample must be at most 9, the frames of numbered\.npz; got 10\."
    with pytest.raises(ConfigurationError, match=message):
        fit(numbered_scan(), config(n_subsample=10))


# -- learning rate -------------------------------------------------------------------------------------------------


# -- scans that do not fit, and warnings ---------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize("wrong", ["train", "test"])
def test_patterns_of_another_size_are_refused(numbered_scan: Any, wrong: str) -> None:
    good, bad = numbered_scan(), numbered_scan(N=64)
    with pytest.raises(DataError) as caught:
        fit(bad if wrong == "train" else good, config(), test=bad if wrong == "test" else good)
    assert str(caught.value) == (
        "numbered.npz: diff3d: expected 32 x 32 patterns, as the model is configured; received 64 x 64. "
        "Crop or pad the patterns to 32 x 32, or train with N = 64."
    )


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize("wrong", ["train", "test"])
@pytest.mark.parametrize("changes", [{"model_type": "supervised"}, {"realspace_mae_weight": 0.5}])
def test_a_loss_against_truth_needs_truth(numbered_scan: Any, changes: dict[str, Any], wrong: str) -> None:
    good, bad = numbered_scan(), numbered_scan(object_field=None)
    message = "numbered.npz: objectGuess: expected ground truth for supervised training .*; received none"
    with pytest.raises(DataError, match=message):
        fit(bad if wrong == "train" else good, config(**changes), test=bad if wrong == "test" else good)


@pytest.mark.parametrize(("changes", "given"), [({}, False), ({"realspace_mae_weight": 0.5}, True)])
def test_truth_is_gathered_only_where_a_loss_needs_it(
    fake_engine: Any, numbered_scan: Any, changes: dict[str, Any], given: bool
) -> None:
    list(fit(numbered_scan(), config(**changes), test=numbered_scan(seed=1)))
    batches = [batch for epoch in fake_engine.epochs + fake_engine.evaluated for batch in epoch]
    assert {batch.object_patches is not None for batch in batches} == {given}


@pytest.mark.usefixtures("fake_engine")
def test_a_configuration_is_checked_again_when_a_run_starts(numbered_scan: Any) -> None:
    asked = config()
    asked.model.gridsize = 3
    with pytest.raises(ConfigurationError, match="neighbor_count must be >= gridsize² - 1 = 8"):
        fit(numbered_scan(), asked)


@pytest.mark.usefixtures("fake_engine")
def test_an_unknown_dose_is_told(numbered_scan: Any, core_log: pytest.LogCaptureFixture) -> None:
    fit(numbered_scan(), config(nphotons=5e6))
    assert "numbered.npz: dose unknown; nphotons = 5e+06 is taken as the mean photons per frame" in core_log.messages


@pytest.mark.usefixtures("fake_engine")
def test_a_known_dose_is_told(numbered_scan: Any, core_log: pytest.LogCaptureFixture) -> None:
    fit(numbered_scan(dose_known=True), config())
    measured = np.mean(np.arange(1, 10) ** 2) * 32**2
    assert f"numbered.npz: {measured:.4g} photons per frame on average" in core_log.messages
    assert "WARNING" not in [record.levelname for record in core_log.records]


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(("factor", "warned"), [(0.8, True), (0.95, False), (1.05, False), (1.2, True)])
def test_a_stated_dose_that_is_not_the_measured_one_is_reported(
    numbered_scan: Any, core_log: pytest.LogCaptureFixture, factor: float, warned: bool
) -> None:
    stated = float(np.mean(np.arange(1, 10) ** 2) * 32**2 * factor)
    fit(numbered_scan(dose_known=True), config(nphotons=stated))
    warnings = [record.getMessage() for record in core_log.records if record.levelno == logging.WARNING]
    assert any(f"nphotons = {stated:g} is stated" in message for message in warnings) == warned, warnings


def symmetric_probe() -> Any:
    y, x = np.mgrid[:32, :32] - 16
    return np.exp(-(x**2 + y**2) / 50)


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(
    ("probe", "changes", "warned"),
    [
        (symmetric_probe(), {}, True),
        (symmetric_probe() * np.exp(0.7j), {}, True),
        (symmetric_probe(), {"gridsize": 2, "object_big": False}, True),
        (symmetric_probe(), {"gridsize": 2}, False),
        (symmetric_probe(), {"model_type": "supervised"}, False),
        (symmetric_probe() * np.exp(0.3j * (np.mgrid[:32, :32] ** 2).sum(axis=0) / 9), {}, False),
    ],
    ids=["flat", "flat-with-a-phase", "no-merge", "overlap", "supervised", "curved"],
)
def test_a_symmetric_probe_of_flat_phase_is_warned_of(
    numbered_scan: Any, core_log: pytest.LogCaptureFixture, probe: Any, changes: dict[str, Any], warned: bool
) -> None:
    fit(numbered_scan(probe=probe), config(**changes, n_groups=9))
    warnings = [record.getMessage() for record in core_log.records if record.levelno == logging.WARNING]
    assert any("the probe is symmetric with a flat phase" in message for message in warnings) == warned, warnings


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(("width", "pad_object", "warned"), [(4, True, False), (12, True, True), (12, False, False)])
def test_a_probe_wider_than_the_central_half_is_warned_of(
    numbered_scan: Any, core_log: pytest.LogCaptureFixture, width: float, pad_object: bool, warned: bool
) -> None:
    y, x = np.mgrid[:32, :32] - 16
    fit(numbered_scan(probe=np.exp(-(x**2 + y**2) / (2 * width**2) + 0.1j * x)), config(pad_object=pad_object))
    warnings = [record.getMessage() for record in core_log.records if record.levelno == logging.WARNING]
    assert any("the probe's intensity is outside the central N/2" in message for message in warnings) == warned


def test_a_scan_is_not_changed_by_training(fake_engine: Any, numbered_scan: Any) -> None:
    bad = np.zeros((32, 32), bool)
    bad[1, 2] = True
    scan: Scan = numbered_scan(bad_pixels=bad)
    before = scan.diffraction_amplitude.copy(), scan.probe.copy()
    train(scan, config())
    np.testing.assert_array_equal(scan.diffraction_amplitude, before[0])
    np.testing.assert_array_equal(scan.probe, before[1])
    assert not fake_engine.epochs[0][0].diffraction_amplitude[:, bad].any()


def test_a_model_is_used_with_the_engine_that_trained_it(fake_engine: Any, numbered_scan: Any) -> None:
    run = fit(numbered_scan(), config(nepochs=1))
    list(run)
    assert run.model is not None
    assert run.model.backend == fake_engine.name


def test_weights_that_are_not_finite_never_become_the_best(
    fake_engine: Any, numbered_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch is in no loss yet: it can spoil the weights while the loss still falls."""
    run = fit(numbered_scan(), config(nepochs=3))
    reports = iter(run)
    next(reports)
    whole = run._network.weights()
    monkeypatch.setattr(run._network, "weights", lambda: {**whole, LOG_SCALE: np.full((), np.nan)})
    with pytest.raises(TrainingError, match="weights after epoch 2"):
        next(reports)
    assert run.model is not None
    assert epoch_of(run.model) == 1


@pytest.mark.usefixtures("fake_engine")
def test_positions_in_metres_are_refused(numbered_scan: Any) -> None:
    scan = numbered_scan()
    with pytest.raises(DataError, match=r"xcoords, ycoords: expected positions in pixels .* Convert metres"):
        fit(attrs.evolve(scan, positions_px=scan.positions_px * 1e-8), config())


@pytest.mark.usefixtures("fake_engine")
def test_a_stray_position_is_refused_before_it_makes_a_huge_canvas(numbered_scan: Any) -> None:
    scan = numbered_scan()
    positions = scan.positions_px.copy()
    positions[0] += 3000
    with pytest.raises(DataError, match=r"xcoords, ycoords: expected neighbours within 4 patches"):
        fit(attrs.evolve(scan, positions_px=positions), config(gridsize=2, n_groups=9))


def test_a_test_scan_of_another_intensity_is_warned_of(
    fake_engine: Any, numbered_scan: Any, core_log: pytest.LogCaptureFixture
) -> None:
    scan = numbered_scan()
    bright = attrs.evolve(scan, diffraction_amplitude=100 * scan.diffraction_amplitude)
    fit(scan, config(), test=bright)
    assert "1e+04 times that of the training scan" in core_log.text


# -- a network of a canvas and a truth -----------------------------------------------------------------------------


def test_a_network_of_a_canvas_learns_from_a_truth_and_is_judged_by_the_counts(
    fake_engine: Any, numbered_scan: Any
) -> None:
    model = ModelConfig(N=32, architecture="canvas", model_type="supervised", group_size=4, warm_sweeps=0)
    run = fit_by_default(numbered_scan(), TrainingConfig(model=model, nepochs=1, batch_size=4))
    (report,) = list(run)
    assert all(batch.object_patches is not None for batch in fake_engine.epochs[0])
    assert report.train["held_out"] > 0
    with pytest.raises(DataError, match="expected ground truth for supervised training"):
        fit(numbered_scan(object_field=None), run.config)


def test_a_scan_of_fewer_patterns_than_a_group_has_makes_smaller_groups(
    fake_engine: Any, numbered_scan: Any, core_log: pytest.LogCaptureFixture
) -> None:
    usual = TrainingConfig(model=ModelConfig(N=32, canvas_blocks=1), nepochs=2)
    run = fit(numbered_scan(9), usual)
    next(iter(run))
    assert {batch.diffraction_amplitude.shape[-1] for batch in fake_engine.epochs[0]} == {9}
    assert "groups of 9 patterns in place of 16" in core_log.text
    gone_on = fit(numbered_scan(9), usual, resume=run.checkpoint())
    assert gone_on.config.model.group_size == 9
    with pytest.raises(DataError, match="group_size = 4; received 3"):
        fit(numbered_scan(3), usual)
