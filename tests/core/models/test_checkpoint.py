"""A checkpoint holds all that a run needs to go on; a run that goes on is the one that would have been."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import safetensors.numpy

from ptycho_core.errors import ArchiveError, Cancelled, ConfigurationError, DataError, TrainingError
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from ptycho_core.models.container import MANIFEST
from ptycho_core.models.model import load_model
from ptycho_core.scans import fingerprint as fingerprints
from ptycho_core.scans.fingerprint import fingerprint
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import Fit
from ptycho_core.training.resuming import after_its_schedule
from ptycho_core.vocabulary import INPUT_SCALE, LOG_SCALE, PROBE
from tests.core.archives import members_of, rewrite
from tests.core.by_loss import BY_LOSS, fit

pytestmark = pytest.mark.usefixtures("tiny_architecture")

LOSSES = {1: 5.0, 2: 3.0, 3: 4.0, 4: 2.0, 5: 3.5, 6: 1.0}


def config(**changes: Any) -> TrainingConfig:
    names = {field.name for field in attrs.fields(ModelConfig)}
    model = {name: changes.pop(name) for name in names & set(changes)}
    small = ModelConfig(**{"N": 32, "n_filters_scale": 1, "architecture": "tiny", **model})
    return TrainingConfig(model=small, **{"nepochs": 4, "batch_size": 4, "scheduler": "Default", **changes})


@pytest.fixture
def stopped(fake_engine: Any, numbered_scan: Any) -> Checkpoint:
    """A run of four epochs after its second one."""
    fake_engine.train_loss = LOSSES.__getitem__
    run = fit(numbered_scan(), config(), execution=attrs.evolve(BY_LOSS, checkpoint_save_top_k=2))
    for report in run:
        if report.epoch == 2:
            break
    return run.checkpoint()


@pytest.fixture
def file(stopped: Checkpoint, tmp_path: Path) -> Path:
    return stopped.save(tmp_path)


def go_on(scan: Any, checkpoint: Checkpoint, **changes: Any) -> Fit:
    run = fit(scan, attrs.evolve(checkpoint.config, **changes), resume=checkpoint)
    list(run)
    return run


def refusal(path: Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    return message.removeprefix(f"{path}: ")


# -- there and back ------------------------------------------------------------------------------------------------


def test_a_checkpoint_survives_its_file(stopped: Checkpoint, file: Path) -> None:
    loaded = load_checkpoint(file.parent)
    for name in ("config", "execution", "history", "scores", "engine", "scans", "tests", "epoch"):
        assert getattr(loaded, name) == getattr(stopped, name), name
    for name in ("weights", "optimizer"):
        one, other = getattr(loaded, name), getattr(stopped, name)
        assert sorted(one) == sorted(other)
        for key, array in other.items():
            np.testing.assert_array_equal(one[key], array, err_msg=key)
    np.testing.assert_array_equal(loaded.initial_probe, stopped.initial_probe)
    assert [(model.best_epoch, model.engine) for model in loaded.best] == [
        (model.best_epoch, model.engine) for model in stopped.best
    ]
    assert [int(model.weights[LOG_SCALE]) for model in loaded.best] == [2, 1]


def test_a_checkpoint_has_its_members_and_says_what_it_is(file: Path) -> None:
    with zipfile.ZipFile(file) as source:
        names = source.namelist()
        manifest = json.loads(source.read(MANIFEST))
    assert file.name == CHECKPOINT_NAME
    assert names == [
        MANIFEST,
        "config.json",
        "weights.safetensors",
        "optimizer.safetensors",
        "run.safetensors",
        "history.csv",
    ]
    assert (manifest["format"], manifest["version"], manifest["epoch"]) == ("ptycho-core checkpoint", 1, 2)
    assert [each["epoch"] for each in manifest["best"]] == [2, 1]


# -- going on ------------------------------------------------------------------------------------------------------


def test_a_resumed_run_is_the_one_that_was_not_stopped(
    fake_engine: Any, numbered_scan: Any, frames_of: Any, file: Path
) -> None:
    scan, execution = numbered_scan(), attrs.evolve(BY_LOSS, checkpoint_save_top_k=2)
    whole = fit(scan, config(), execution=execution)
    list(whole)
    fake_engine.epochs.clear()
    resumed = go_on(scan, load_checkpoint(file))
    assert len(fake_engine.epochs) == 2
    again = fit(scan, config(), execution=execution)
    list(again)
    for one, other in zip(fake_engine.epochs[:2], fake_engine.epochs[-2:], strict=True):
        np.testing.assert_array_equal(
            np.concatenate([frames_of(batch) for batch in one]), np.concatenate([frames_of(batch) for batch in other])
        )
    assert [row["total"] for row in resumed.history] == [row["total"] for row in whole.history]
    assert [model.best_epoch for model in resumed.best] == [model.best_epoch for model in whole.best] == [4, 2]
    assert resumed.best[1].history is resumed.history
    assert int(resumed.best[1].weights[LOG_SCALE]) == 2


def test_scale_and_probe_are_the_checkpoints(fake_engine: Any, numbered_scan: Any, stopped: Checkpoint) -> None:
    weights = {**stopped.weights, PROBE: 2 * stopped.weights[PROBE], INPUT_SCALE: 3 * stopped.weights[INPUT_SCALE]}
    go_on(numbered_scan(), attrs.evolve(stopped, weights=weights))
    lit = fake_engine.epochs[-1][0].illumination
    np.testing.assert_array_equal(lit.pairs, stopped.initial_probe)  # merge weights follow it
    assert lit.input_scale == weights[INPUT_SCALE]
    assert PROBE not in fake_engine.built[-1][2]


def test_a_probe_that_was_refined_goes_on_and_the_batches_have_the_one_that_the_run_began_with(
    fake_engine: Any, numbered_scan: Any
) -> None:
    run = fit(numbered_scan(), config(probe_trainable=True))
    next(iter(run))
    run._network._weights[PROBE] = 3 * run._network._weights[PROBE]
    stopped = run.checkpoint()
    np.testing.assert_array_equal(stopped.weights[PROBE], 3 * stopped.initial_probe)
    go_on(numbered_scan(), stopped)
    np.testing.assert_array_equal(fake_engine.built[-1][2][PROBE], stopped.weights[PROBE])
    np.testing.assert_array_equal(fake_engine.epochs[-1][0].illumination.pairs, stopped.initial_probe)


def test_the_schedule_goes_on(fake_engine: Any, numbered_scan: Any) -> None:
    plateau = {"scheduler": "ReduceLROnPlateau", "plateau_patience": 0, "nepochs": 6}
    fake_engine.train_loss = LOSSES.__getitem__
    list(fit(numbered_scan(), config(**plateau)))
    whole = list(fake_engine.rates)
    run = fit(numbered_scan(), config(**plateau))
    next(iter(run))
    fake_engine.rates.clear()
    go_on(numbered_scan(), run.checkpoint())
    assert fake_engine.rates == whole[1:]
    assert len(set(whole)) > 1


def test_patience_counts_the_epochs_before(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = lambda epoch: float(epoch)
    run = fit(numbered_scan(), config(nepochs=9, early_stop_patience=3))
    iterator = iter(run)
    next(iterator), next(iterator)
    resumed = go_on(numbered_scan(), run.checkpoint())
    assert len(resumed.history) == 4
    assert resumed.ended


def test_a_run_that_has_ended_trains_nothing(fake_engine: Any, numbered_scan: Any) -> None:
    run = fit(numbered_scan(), config(nepochs=2))
    list(run)
    fake_engine.epochs.clear()
    resumed = fit(numbered_scan(), run.config, resume=run.checkpoint())
    assert resumed.ended
    assert list(resumed) == []
    assert fake_engine.epochs == []


def test_the_engine_that_began_goes_on_unless_another_is_asked_for(
    fake_engine: Any, numbered_scan: Any, stopped: Checkpoint
) -> None:
    fake_engine.backends.clear()
    fit(numbered_scan(), stopped.config, resume=stopped)
    fit(numbered_scan(), attrs.evolve(stopped.config, backend="torch"), resume=stopped)
    assert fake_engine.backends == ["fake", "torch"]


def test_the_execution_is_the_checkpoints_unless_given(numbered_scan: Any, stopped: Checkpoint) -> None:
    assert fit(numbered_scan(), stopped.config, resume=stopped).execution == stopped.execution


# -- what a checkpoint cannot be made of ---------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine")
def test_a_checkpoint_is_taken_between_epochs_only(numbered_scan: Any) -> None:
    steps = 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 5

    run = fit(numbered_scan(count=9), config(n_groups=9), should_stop=should_stop)
    with pytest.raises(TrainingError, match="received no whole epoch"):
        run.checkpoint()
    with pytest.raises(Cancelled):
        list(run)
    with pytest.raises(TrainingError, match="received a part of epoch 2"):
        run.checkpoint()


@pytest.mark.usefixtures("fake_engine")
def test_a_checkpoint_that_could_not_be_loaded_is_never_written(
    numbered_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fit(numbered_scan(), config())
    next(iter(run))
    weights = {**run._network.weights(), LOG_SCALE: np.array(np.nan, np.float32)}
    monkeypatch.setattr(run._network, "weights", lambda: weights)
    with pytest.raises(TrainingError, match="weights and optimizer after epoch 1: expected finite"):
        run.checkpoint()


# -- another scan, another configuration ---------------------------------------------------------------------------


def changed(scan: Any, field: str) -> Any:
    array = np.array(getattr(scan, field))
    array.reshape(-1)[3] = 1 if array.dtype == bool else array.reshape(-1)[3] + 1
    return attrs.evolve(scan, **{field: array})


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("diffraction_amplitude", "diff3d: expected the scan that the run began with, frames of SHA-256"),
        ("positions_px", "xcoords, ycoords: expected the scan that the run began with, positions of SHA-256"),
        ("probe", "probeGuess: expected the scan that the run began with, probe of SHA-256"),
        ("bad_pixels", "bad_pixels: expected the scan that the run began with, bad_pixels of SHA-256"),
    ],
)
def test_another_scan_is_refused_by_what_differs(
    numbered_scan: Any, stopped: Checkpoint, field: str, named: str
) -> None:
    with pytest.raises(DataError) as caught:
        fit(changed(numbered_scan(), field), stopped.config, resume=stopped)
    assert str(caught.value).startswith(f"numbered.npz: {named}")
    assert "or start a new run" in str(caught.value)


def test_the_truth_matters_only_where_a_loss_needs_it(
    fake_engine: Any, numbered_scan: Any, stopped: Checkpoint
) -> None:
    fit(changed(numbered_scan(), "object_field"), stopped.config, resume=stopped)
    fake_engine.train_loss = LOSSES.__getitem__
    run = fit(numbered_scan(), config(realspace_mae_weight=0.5))
    next(iter(run))
    with pytest.raises(DataError, match="objectGuess"):
        fit(changed(numbered_scan(), "object_field"), run.config, resume=run.checkpoint())


def test_a_test_scan_is_the_same_or_none_as_before(numbered_scan: Any, stopped: Checkpoint, fake_engine: Any) -> None:
    with pytest.raises(DataError, match="test_data_file: expected no test scan, as the run began; received a test"):
        fit(numbered_scan(), stopped.config, resume=stopped, test=numbered_scan(seed=1))
    run = fit(numbered_scan(), config(), test=numbered_scan(seed=1))
    next(iter(run))
    with pytest.raises(DataError, match="test_data_file: expected a test scan, as the run began; received no test"):
        fit(numbered_scan(), run.config, resume=run.checkpoint())
    with pytest.raises(DataError, match="xcoords, ycoords"):
        fit(numbered_scan(), run.config, resume=run.checkpoint(), test=numbered_scan(seed=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 8},
            r"TrainingConfig: batch_size must be 4, as the run began; got 8\. Leave it",
        ),
        ({"seed": 1}, r"TrainingConfig: seed must be 0"),
        ({"n_subsample": 5}, r"TrainingConfig: n_subsample must be nothing, as the run began; got 5"),
        ({"nepochs": 1}, r"TrainingConfig: nepochs must be at least 2, the epochs that are done; got 1"),
    ],
)
def test_a_configuration_that_would_be_another_run_is_refused_by_field(
    numbered_scan: Any, stopped: Checkpoint, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        go_on(numbered_scan(), stopped, **changes)


@pytest.mark.parametrize(
    "execution", [{"precision": "64-true"}, {"checkpoint_mode": "max"}, {"checkpoint_save_top_k": 3}]
)
def test_an_execution_that_would_be_another_run_is_refused(
    numbered_scan: Any, stopped: Checkpoint, execution: dict[str, Any]
) -> None:
    asked = attrs.evolve(stopped.execution, **execution)
    with pytest.raises(ConfigurationError, match=rf"ExecutionConfig: {next(iter(execution))} must be"):
        fit(numbered_scan(), stopped.config, execution=asked, resume=stopped)


@pytest.mark.parametrize(
    ("begun", "rates", "weights"),
    [
        ({"scheduler": "Default"}, [1, 1], [1, 1]),
        ({"scheduler": "Exponential"}, [0.95**4, 0.95**5], [1, 1]),
        ({"scheduler": "ReduceLROnPlateau"}, None, [1, 1]),
        ({"scheduler": "WarmupCosine"}, [0.02, 0.02], [1, 1]),
        ({"scheduler": "WarmupCosine", "lr_warmup_epochs": 3}, [0.02, 0.02], [1, 1]),
    ],
)
def test_a_run_goes_on_beyond_its_schedule_with_what_it_ended_with(
    fake_engine: Any, numbered_scan: Any, begun: dict[str, Any], rates: list[float] | None, weights: list[float]
) -> None:
    fake_engine.train_loss = LOSSES.__getitem__
    run = fit(numbered_scan(), config(**begun))
    iterator = iter(run)
    next(iterator), next(iterator)
    before = list(fake_engine.rates)
    gone_on = go_on(numbered_scan(), run.checkpoint(), nepochs=6)
    assert len(gone_on.history) == 6
    assert fake_engine.rates[:2] == before
    assert fake_engine.physics_weights[-2:] == weights
    if rates is not None:
        assert np.divide(fake_engine.rates[-2:], run.config.learning_rate) == pytest.approx(rates)
    known = begun["scheduler"] == "WarmupCosine"
    assert gone_on.config.schedule_epochs == (4 if known else None)
    assert (after_its_schedule(gone_on.config) is not None) == known


def test_stages_are_not_stretched_over_more_epochs(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = LOSSES.__getitem__
    run = fit(numbered_scan(), config(scheduler="MultiStage", stage_1_epochs=2, stage_3_epochs=2))
    iterator = iter(run)
    next(iterator), next(iterator)
    with pytest.raises(ConfigurationError, match=r"stages that add up to nepochs; .*Set nepochs to 4"):
        go_on(numbered_scan(), run.checkpoint(), nepochs=6)
    gone_on = go_on(numbered_scan(), run.checkpoint(), nepochs=6, schedule_epochs=4)
    assert fake_engine.physics_weights == [0, 0, 1, 1, 1, 1]
    assert fake_engine.rates[-1] == pytest.approx(0.1 * run.config.learning_rate)
    assert "those after it have the learning rate" in str(after_its_schedule(gone_on.config))


def test_another_schedule_for_epochs_that_are_done_is_refused(fake_engine: Any, numbered_scan: Any) -> None:
    fake_engine.train_loss = LOSSES.__getitem__
    run = fit(numbered_scan(), config(scheduler="WarmupCosine"))
    iterator = iter(run)
    next(iterator), next(iterator)
    message = r"schedule_epochs must be 4, as the run began: with scheduler = Warmup.*, epoch 2 would have been another"
    with pytest.raises(ConfigurationError, match=message):
        go_on(numbered_scan(), run.checkpoint(), nepochs=6, schedule_epochs=6)


# -- fingerprints --------------------------------------------------------------------------------------------------


def test_a_large_scan_is_looked_at_in_part(numbered_scan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = numbered_scan(count=9)
    monkeypatch.setattr(fingerprints, "LOOKED_AT", 3 * 32 * 32 * 4)
    before = fingerprint(scan, with_truth=False)["frames"]
    seen = []
    for frame in range(9):
        array = scan.diffraction_amplitude.copy()
        array[frame, 5, 5] += 1
        other = attrs.evolve(scan, diffraction_amplitude=array)
        seen.append(fingerprint(other, with_truth=False)["frames"] != before)
    assert [frame for frame, noticed in enumerate(seen) if noticed] == [0, 4, 8]


def test_a_fingerprint_does_not_depend_on_order_in_memory(numbered_scan: Any) -> None:
    scan = numbered_scan()
    turned = attrs.evolve(scan, positions_px=np.asfortranarray(scan.positions_px))
    assert fingerprint(turned, with_truth=True) == fingerprint(scan, with_truth=True)


# -- files that are no whole checkpoint ----------------------------------------------------------------------------


def forge(path: Path, member: str, change: Any) -> None:
    arrays = dict(safetensors.numpy.load(members_of(path)[member]))
    change(arrays)
    rewrite(path, **{member: safetensors.numpy.save(arrays)})


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("weights.safetensors", lambda a: a.pop("a/kernel"), "weights: missing ['a/kernel']"),
        ("optimizer.safetensors", lambda a: a.pop("step"), "optimizer state: missing ['step']"),
        (
            "optimizer.safetensors",
            lambda a: a["first_moment/a/kernel"].fill(np.nan),
            "optimizer state: first_moment/a/kernel: expected finite numbers",
        ),
        ("run.safetensors", lambda a: a.pop("initial_probe"), "expected a whole checkpoint; received KeyError"),
        ("run.safetensors", lambda a: a.update(initial_probe=np.ones(3)), f"weights: {PROBE}: expected shape"),
        ("run.safetensors", lambda a: a.pop("1/a/bias"), "weights: missing ['a/bias']"),
        ("run.safetensors", lambda a: a.update(more=np.ones(3)), "expected a whole checkpoint; received ValueError"),
    ],
    ids=["weights", "optimizer", "nan", "no-probe", "probe", "best", "surplus"],
)
def test_arrays_that_do_not_fit_are_refused(file: Path, member: str, change: Any, message: str) -> None:
    forge(file, member, change)
    assert refusal(file).startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": [1.0]},
        {"scores": [1.0, float("nan")]},
        {"epoch": 3},
        {"epoch": -1},
        {"best": []},
        {"best": [{"epoch": 2}]},
        {"scan": ["frames"]},
        {"engine": None},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_is_refused(file: Path, changes: dict[str, Any]) -> None:
    manifest = json.loads(members_of(file)[MANIFEST]) | changes
    rewrite(file, manifest=json.dumps(manifest).encode())
    assert refusal(file)


def test_a_model_and_a_checkpoint_are_not_taken_for_each_other(file: Path, stopped: Checkpoint) -> None:
    with pytest.raises(ArchiveError, match=r"This is a checkpoint: give wts\.h5\.zip"):
        load_model(file)
    model = stopped.best[0].save(file.parent / "model.zip")
    assert "This is a model archive: give checkpoint.h5.zip." in refusal(model)


def test_a_checkpoint_of_another_optimizer_is_refused(file: Path) -> None:
    tables = json.loads(members_of(file)["config.json"])
    tables["training"]["optimizer"] = "sgd"
    for name in ("adam_beta1", "adam_beta2"):
        tables["training"].pop(name)
    rewrite(file, config=json.dumps(tables).encode())
    assert refusal(file).startswith("optimizer state: missing ['momentum/a/bias'")
