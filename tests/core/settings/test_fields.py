"""Every field that the core itself acts on does what it says: changing it changes what it promises.

The fields that an engine acts on are in tests/contract; tests/core/settings/test_field_coverage.py sees that none
is left out.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.batches.groups import Groups
from ptycho_core.engine.launched import Place, place_of
from ptycho_core.errors import BackendError, ConfigurationError, NoEffectError
from ptycho_core.events import Event
from ptycho_core.formats.convert import save_scan
from ptycho_core.models.model import Model, load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.runs.console import Output
from ptycho_core.runs.reconstruct import reconstruct_into
from ptycho_core.runs.train import train_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.data import TrainingData
from ptycho_core.training.fit import Fit, fit, train
from ptycho_core.vocabulary import LOG_SCALE
from tests.networks import cnn

N = 32
field = pytest.mark.field
BY_LOSS = {"checkpoint_monitor_metric": "total"}
"""What the fake engine is told, it being no network whose object could be judged."""


def config(**changes: Any) -> TrainingConfig:
    names = {each.name for each in attrs.fields(ModelConfig)}
    model = {name: changes.pop(name) for name in names & set(changes)}
    small = cnn(**{"N": N, "n_filters_scale": 1, **model})
    return TrainingConfig(model=small, **{"nepochs": 2, "batch_size": 4, "n_groups": 9, **changes})


def run_of(scan: Scan | None, **changes: Any) -> Fit:
    """A run that has ended."""
    execution = changes.pop("execution", ExecutionConfig(**BY_LOSS))
    run = fit(scan, config(**changes), execution=execution)
    for _ in run:
        pass
    return run


def frames(engine: Any, frames_of: Callable[..., Any], epoch: int = 0) -> list[list[int]]:
    """The groups of an epoch as frame numbers, in the order in which the engine was given them."""
    return [group.tolist() for batch in engine.epochs[epoch] for group in frames_of(batch)]


@pytest.fixture
def scan(numbered_scan: Callable[..., Scan]) -> Scan:
    return numbered_scan(9)


@pytest.fixture
def scan_file(scan: Scan, tmp_path: Path) -> Path:
    save_scan(tmp_path / "scan.npz", scan)
    return tmp_path / "scan.npz"


@pytest.fixture
def model(fake_engine: Any, scan: Scan) -> Model:
    made = train(scan, config())
    fake_engine.built.clear()
    fake_engine.backends.clear()
    return made


def lit_by(fake_engine: Any, run: Fit) -> Illumination:
    """The illumination of a run's first batch."""
    next(iter(run))
    illumination: Illumination = fake_engine.epochs[-1][0].illumination
    return illumination


# -- model ---------------------------------------------------------------------------------------------------------


@field("model.probe_scale")
def test_probe_scale_divides_the_calibrated_probe(fake_engine: Any, scan: Scan) -> None:
    clear, half = (lit_by(fake_engine, fit(scan, config(probe_scale=scale))).probe for scale in (4.0, 2.0))
    np.testing.assert_allclose(half, 2 * clear, rtol=1e-6)


# -- training: data and groups -------------------------------------------------------------------------------------


@field("training.train_data_file", "training.test_data_file")
def test_the_files_of_a_configuration_are_the_scans_of_its_run(
    fake_engine: Any, numbered_scan: Callable[..., Scan], scan_file: Path, tmp_path: Path
) -> None:
    save_scan(tmp_path / "test.npz", numbered_scan(5))
    run_of(None, train_data_file=scan_file, test_data_file=tmp_path / "test.npz")
    assert sum(len(batch) for batch in fake_engine.epochs[0]) == 9
    assert sum(len(batch) for batch in fake_engine.evaluated[0]) == 5


@field("training.train_data_file")
@pytest.mark.usefixtures("fake_engine")
def test_a_run_without_a_scan_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"train_data_file must be a scan to train on; got none\. Pass"):
        fit(None, config())
    with pytest.raises(ConfigurationError, match=r"train_data_file must be an existing file; got .*none\.npz"):
        fit(None, config(train_data_file=tmp_path / "none.npz"))


@field("training.output_dir", "inference.output_dir", "inference.model_path", "inference.test_data_file")
def test_runs_write_into_their_folder_and_find_their_model_and_scan(
    fake_engine: Any, ptycho: Any, scan_file: Path, tmp_path: Path
) -> None:
    small = ("--architecture", "cnn", "--n-filters-scale", 1, "--nepochs", 1, "--n-groups", 9)
    assert ptycho("train", scan_file, "--output-dir", tmp_path / "run", *small).code == 0
    assert (tmp_path / "run" / "wts.h5.zip").is_file()
    found = ("--model-path", tmp_path / "run", "--test-data-file", scan_file)
    assert ptycho("reconstruct", *found, "--output-dir", tmp_path / "seen").code == 0
    assert (tmp_path / "seen" / "reconstruction.npz").is_file()


@field("inference.model_path", "inference.test_data_file")
def test_a_reconstruction_finds_what_its_configuration_names(model: Model, scan_file: Path, tmp_path: Path) -> None:
    asked = InferenceConfig(model_path=model.save(tmp_path / "run"), test_data_file=scan_file)
    assert reconstruct(None, None, config=asked).patterns == 9
    with pytest.raises(ConfigurationError, match=r"InferenceConfig: model_path must be a trained model; got none"):
        reconstruct(None, None, config=InferenceConfig(test_data_file=scan_file))


@field("training.backend")
def test_backend_chooses_the_engine(fake_engine: Any, scan: Scan) -> None:
    fit(scan, config(backend="torch"))
    fit(scan, config(backend="tensorflow"))
    assert fake_engine.backends == ["torch", "tensorflow"]


@field("training.backend")
def test_an_unknown_backend_is_refused(scan: Scan) -> None:
    with pytest.raises(BackendError, match="Unknown backend 'pytorchh'"):
        fit(scan, config(backend="pytorchh"))


@field("training.batch_size")
def test_batch_size_is_the_number_of_groups_a_batch(fake_engine: Any, scan: Scan) -> None:
    run_of(scan, batch_size=4)
    run_of(scan, batch_size=8)
    assert [len(batch) for batch in fake_engine.epochs[0]] == [4, 4, 1]
    assert [len(batch) for batch in fake_engine.epochs[-1]] == [8, 1]


@field("training.nepochs")
def test_nepochs_is_the_number_of_epochs(fake_engine: Any, scan: Scan) -> None:
    assert len(run_of(scan, nepochs=2).history) == 2
    assert len(run_of(scan, nepochs=5).history) == 5


@field("training.n_groups")
def test_n_groups_is_the_number_of_groups_an_epoch(fake_engine: Any, frames_of: Any, scan: Scan) -> None:
    run_of(scan, n_groups=3)
    assert len(frames(fake_engine, frames_of)) == 3


@field("training.neighbor_count")
def test_neighbor_count_bounds_how_far_a_group_reaches(fake_engine: Any, frames_of: Any, numbered_scan: Any) -> None:
    line = np.stack([16 + 2.0 * np.arange(12), np.full(12, 16.0)], axis=-1)
    for neighbor_count in (3, 8):
        scan = numbered_scan(12, positions_px=line)
        run_of(scan, gridsize=2, n_groups=12, nepochs=4, neighbor_count=neighbor_count)
    near, far = (
        max(np.ptp(group) for epoch in epochs for group in frames(fake_engine, frames_of, epoch))
        for epochs in (range(4), range(4, 8))
    )
    assert near == 3
    assert far > 4


@field("training.enable_oversampling", "training.neighbor_pool_size")
def test_oversampling_draws_more_groups_than_positions_from_its_pool(
    fake_engine: Any, frames_of: Any, numbered_scan: Any
) -> None:
    line = np.stack([16 + 2.0 * np.arange(12), np.full(12, 16.0)], axis=-1)
    scan = numbered_scan(12, positions_px=line)
    with pytest.raises(ConfigurationError, match="enable_oversampling"):
        run_of(scan, gridsize=2, n_groups=40)
    reaches = []
    for pool in (4, 10):
        run_of(scan, gridsize=2, n_groups=40, nepochs=1, enable_oversampling=True, neighbor_pool_size=pool)
        groups = frames(fake_engine, frames_of, -1)
        assert len(groups) == 40
        reaches.append(max(np.ptp(group) for group in groups))
    assert reaches[0] <= 4 < reaches[1]


@field("training.sequential_sampling")
def test_sequential_sampling_takes_the_first_positions(fake_engine: Any, frames_of: Any, scan: Scan) -> None:
    run_of(scan, n_groups=3, sequential_sampling=True, nepochs=1)
    assert sorted(frames(fake_engine, frames_of)) == [[0], [1], [2]]
    run_of(scan, n_groups=3, nepochs=1)
    assert sorted(frames(fake_engine, frames_of, -1)) != [[0], [1], [2]]


@field("training.n_subsample", "training.subsample_seed")
def test_a_subsample_is_of_its_size_and_its_seed(fake_engine: Any, frames_of: Any, scan: Scan) -> None:
    seen = []
    for seed in (1, 1, 2, None):
        run_of(scan, n_subsample=4, subsample_seed=seed, n_groups=4, nepochs=1)
        seen.append(sorted(frame for (frame,) in frames(fake_engine, frames_of, -1)))
    assert [len(each) for each in seen] == [4] * 4
    assert seen[0] == seen[1] != seen[2]


@field("training.positions_provided")
def test_positions_provided_chooses_between_true_and_nominal_positions(fake_engine: Any, numbered_scan: Any) -> None:
    scan = numbered_scan(9)
    nominal = scan.positions_px[::-1] * 1.1
    scan = attrs.evolve(scan, nominal_positions_px=nominal)
    offsets = []
    for provided in (True, False):
        run_of(scan, gridsize=2, n_groups=1, nepochs=1, sequential_sampling=True, positions_provided=provided)
        offsets.append(fake_engine.epochs[-1][0].relative_offsets_px)
    assert not np.allclose(offsets[0], offsets[1])
    run_of(attrs.evolve(scan, positions_px=nominal), gridsize=2, n_groups=1, nepochs=1, sequential_sampling=True)
    np.testing.assert_array_equal(fake_engine.epochs[-1][0].relative_offsets_px, offsets[1])


@field("training.seed")
def test_seed_chooses_weights_and_order(fake_engine: Any, frames_of: Any, scan: Scan) -> None:
    for seed in (0, 1, 0):
        run_of(scan, seed=seed, nepochs=1)
    orders = [frames(fake_engine, frames_of, epoch) for epoch in range(3)]
    kernels = [weights["encoder/block0/conv0/kernel"] for _, _, weights, _ in fake_engine.built]
    assert orders[0] == orders[2] != orders[1]
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert not np.array_equal(kernels[0], kernels[1])


# -- training: scale -----------------------------------------------------------------------------------------------


@field("training.nphotons")
def test_nphotons_is_the_dose_where_it_is_unknown(fake_engine: Any, scan: Scan) -> None:
    runs = [fit(scan, config(nphotons=1e6)), fit(scan, config(nphotons=2e6))]
    runs.append(fit(attrs.evolve(scan, dose_known=True), config(nphotons=2e6)))
    one, two, known = (lit_by(fake_engine, run).counts_per_intensity for run in runs)
    assert two == pytest.approx(2 * one, rel=1e-6)
    assert known == 1


@field("training.probe_gauge")
def test_probe_gauge_calibrates_the_probe_or_leaves_it(fake_engine: Any, scan: Scan) -> None:
    mean, given = (lit_by(fake_engine, fit(scan, config(probe_gauge=gauge))) for gauge in ("mean", "given"))
    np.testing.assert_array_equal(given.probe, scan.probe)
    assert np.sum(mean.intensity) == pytest.approx(np.mean(np.arange(1, 10) ** 2) * N**2, rel=1e-5)


# -- training: schedules -------------------------------------------------------------------------------------------

SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any], list[float], list[float]]] = {
    "scheduler": ({"scheduler": "Default"}, {"scheduler": "Exponential"}, [1, 1, 1], [1, 0.95, 0.9025]),
    "lr_decay": (
        {"scheduler": "Exponential", "lr_decay": 0.5},
        {"scheduler": "Exponential", "lr_decay": 0.1},
        [1, 0.5, 0.25],
        [1, 0.1, 0.01],
    ),
    "lr_warmup_epochs": ({}, {"lr_warmup_epochs": 1}, [1, 0.51, 0.02], [0.5, 1, 0.02]),
    "schedule_epochs": ({}, {"schedule_epochs": 2}, [1, 0.51, 0.02], [1, 0.02, 0.02]),
    "lr_min_ratio": ({"lr_min_ratio": 0}, {"lr_min_ratio": 1}, [1, 0.5, 0], [1, 1, 1]),
    "stage_3_lr_factor": (
        {"scheduler": "MultiStage", "stage_1_epochs": 1, "stage_3_epochs": 2},
        {"scheduler": "MultiStage", "stage_1_epochs": 1, "stage_3_epochs": 2, "stage_3_lr_factor": 0.5},
        [1, 0.1, 0.1],
        [1, 0.5, 0.5],
    ),
}
PLATEAU: dict[str, Any] = {"scheduler": "ReduceLROnPlateau", "learning_rate": 1.0, "plateau_patience": 0, "nepochs": 4}
SCHEDULES |= {
    "plateau_factor": (PLATEAU, {**PLATEAU, "plateau_factor": 0.1}, [1, 1, 0.5, 0.25], [1, 1, 0.1, 0.01]),
    "plateau_patience": (PLATEAU, {**PLATEAU, "plateau_patience": 1}, [1, 1, 0.5, 0.25], [1, 1, 1, 0.5]),
    "plateau_min_lr": (PLATEAU, {**PLATEAU, "plateau_min_lr": 0.4}, [1, 1, 0.5, 0.25], [1, 1, 0.5, 0.4]),
    "plateau_threshold": (
        {**PLATEAU, "loss": lambda epoch: 1 - 0.1 * epoch},
        {**PLATEAU, "loss": lambda epoch: 1 - 0.1 * epoch, "plateau_threshold": 0.5},
        [1, 1, 1, 1],
        [1, 1, 0.5, 0.25],
    ),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=field(f"training.{name}")) for name in SCHEDULES])
def test_the_knobs_of_a_schedule_change_the_rates(fake_engine: Any, scan: Scan, name: str) -> None:
    *settings, one, two = SCHEDULES[name]
    for changes, expected in zip(settings, (one, two), strict=True):
        fake_engine.rates.clear()
        known = {"nepochs": 3, "learning_rate": 1.0, **changes}
        fake_engine.train_loss = known.pop("loss", lambda epoch: 1.0)
        run_of(scan, **known)
        assert fake_engine.rates == pytest.approx(expected, abs=1e-9)


@field("training.stage_1_epochs", "training.stage_2_epochs", "training.stage_3_epochs")
def test_the_stages_set_the_physics_weight_of_each_epoch(fake_engine: Any, scan: Scan) -> None:
    run_of(scan, nepochs=4, stage_1_epochs=1, stage_2_epochs=1, stage_3_epochs=2)
    assert fake_engine.physics_weights == pytest.approx([0, 0.5, 1, 1])
    fake_engine.physics_weights.clear()
    run_of(scan, nepochs=4, stage_1_epochs=3, stage_3_epochs=1)
    assert fake_engine.physics_weights == [0, 0, 0, 1]


@field("training.physics_weight_schedule")
def test_the_schedule_of_the_physics_weight_sets_how_it_rises(fake_engine: Any, scan: Scan) -> None:
    rises = {}
    for schedule in ("linear", "cosine", "exponential"):
        fake_engine.physics_weights.clear()
        run_of(scan, nepochs=3, stage_2_epochs=3, physics_weight_schedule=schedule)
        rises[schedule] = fake_engine.physics_weights[0]
    assert rises["exponential"] < rises["cosine"] < rises["linear"] == pytest.approx(0.25)


def test_the_best_weights_are_those_of_the_last_stage(fake_engine: Any, scan: Scan) -> None:
    """Under another physics weight a loss means another thing, so a lower one before does not count."""
    fake_engine.train_loss = {1: 0.1, 2: 5.0, 3: 7.0, 4: 6.0}.__getitem__
    run = run_of(scan, nepochs=4, stage_1_epochs=1, stage_2_epochs=1, stage_3_epochs=2)
    assert run.model is not None
    assert run.model.best_epoch == 4


@field("training.early_stop_patience")
def test_early_stop_patience_ends_a_run_that_gets_no_better(fake_engine: Any, scan: Scan) -> None:
    fake_engine.train_loss = lambda epoch: 1.0
    assert len(run_of(scan, nepochs=6).history) == 6
    assert len(run_of(scan, nepochs=6, early_stop_patience=2).history) == 3


# -- inference -----------------------------------------------------------------------------------------------------


def seen(model: Model, scan: Scan, execution: ExecutionConfig | None = None, **changes: Any) -> Reconstruction:
    return reconstruct(scan, model, config=InferenceConfig(**changes), execution=execution)


@field("inference.backend")
def test_the_backend_of_an_inference_chooses_the_engine(fake_engine: Any, model: Model, scan: Scan) -> None:
    seen(model, scan)
    seen(model, scan, backend="torch")
    assert fake_engine.backends == ["fake", "torch"]


@field("inference.n_groups")
def test_n_groups_of_an_inference_is_how_many_are_placed(model: Model, scan: Scan) -> None:
    assert (seen(model, scan).patterns, seen(model, scan, n_groups=4).patterns) == (9, 4)


@field("inference.n_subsample", "inference.subsample_seed")
def test_a_subsample_of_a_scan_is_reconstructed(model: Model, scan: Scan) -> None:
    one, same, other = (seen(model, scan, n_subsample=4, subsample_seed=seed).positions_px for seed in (1, 1, 2))
    assert len(one) == 4
    np.testing.assert_array_equal(np.sort(one, axis=0), np.sort(same, axis=0))
    assert not np.array_equal(np.sort(one, axis=0), np.sort(other, axis=0))
    with pytest.raises(ConfigurationError, match=r"InferenceConfig: n_subsample must be at most 9"):
        seen(model, scan, n_subsample=10)


@pytest.fixture
def grouped(fake_engine: Any, scan: Scan) -> Model:
    return train(scan, config(gridsize=2))


@pytest.fixture
def line(numbered_scan: Any) -> Scan:
    made: Scan = numbered_scan(12, positions_px=np.stack([16 + 2.0 * np.arange(12), np.full(12, 16.0)], axis=-1))
    return made


@field("inference.neighbor_count")
def test_neighbor_count_of_an_inference_bounds_its_groups(grouped: Model, line: Scan) -> None:
    def widest(neighbor_count: int) -> float:
        placed = seen(grouped, line, neighbor_count=neighbor_count).positions_px.reshape(-1, 4, 2)
        return float(np.ptp(placed[..., 0], axis=1).max())

    assert widest(3) <= 6 < widest(9)


@field("inference.enable_oversampling", "inference.neighbor_pool_size")
def test_an_inference_can_oversample(grouped: Model, line: Scan) -> None:
    with pytest.raises(ConfigurationError, match=r"InferenceConfig: n_groups must be at most 12"):
        seen(grouped, line, n_groups=20)
    widths = []
    for pool in (4, 10):
        result = seen(grouped, line, n_groups=20, enable_oversampling=True, neighbor_pool_size=pool)
        assert result.patterns == 80
        widths.append(np.ptp(result.positions_px.reshape(-1, 4, 2)[..., 0], axis=1).max())
    assert widths[0] <= 8 < widths[1]
    with pytest.raises(ConfigurationError, match=r"neighbor_pool_size must be >= gridsize² = 4"):
        seen(grouped, line, enable_oversampling=True, neighbor_pool_size=3)


@field("inference.weighting")
def test_weighting_favours_where_the_probe_is(fake_engine: Any, model: Model, scan: Scan) -> None:
    fake_engine.predict = lambda batch: batch.diffraction_amplitude.astype(np.complex64)  # each frame its own number
    probe, uniform = (seen(model, scan, weighting=weighting).object_field for weighting in ("probe", "uniform"))
    assert np.abs(probe - uniform).max() > 0.1


@field("inference.middle_trim")
def test_middle_trim_places_only_the_middle_of_a_patch(model: Model, scan: Scan) -> None:
    whole, trimmed = (seen(model, scan.subset([0]), middle_trim=trim).object_field for trim in (None, 10))
    assert np.count_nonzero(whole) > 1000
    assert 100 <= np.count_nonzero(trimmed) <= 121  # and one more row and column for the fraction of a pixel


@field("inference.debug")
def test_debug_logs_every_batch(model: Model, scan: Scan, core_log: pytest.LogCaptureFixture) -> None:
    small = ExecutionConfig(inference_batch_size=4)
    seen(model, scan, small)
    assert not [record for record in core_log.records if record.getMessage().startswith("groups ")]
    seen(model, scan, small, debug=True)
    lines = [record.getMessage() for record in core_log.records if record.getMessage().startswith("groups ")]
    assert [line.partition(":")[0] for line in lines] == ["groups 1-4 of 9", "groups 5-8 of 9", "groups 9-9 of 9"]
    assert "object amplitude 1 to 1" in lines[0]


@field("inference.seed")
def test_the_seed_of_an_inference_chooses_its_groups(model: Model, scan: Scan) -> None:
    one, same, other = (seen(model, scan, n_groups=3, seed=seed).positions_px for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_model_that_is_stated_must_be_the_one_in_the_archive(model: Model, scan: Scan) -> None:
    stated = InferenceConfig(model=ModelConfig(N=N, n_filters_scale=1))
    assert reconstruct(scan, model, config=stated).patterns == 9
    with pytest.raises(ConfigurationError, match=r"InferenceConfig: model\.gridsize must be 1, as it was trained"):
        reconstruct(scan, model, config=InferenceConfig(model=cnn(N=N, gridsize=3)))


# -- execution -----------------------------------------------------------------------------------------------------


@field("execution.devices", "execution.num_nodes")
def test_devices_of_all_machines_are_as_many_as_a_launcher_has_started() -> None:
    started = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    for devices, nodes in ((4, 1), (2, 2), (1, 1)):
        place = place_of(ExecutionConfig(devices=devices, num_nodes=nodes), started)
        assert place == Place(rank=3, size=4, local_rank=1, by="torchrun")
    with pytest.raises(ConfigurationError, match=r"devices must be 4 / num_nodes.*got 3 with num_nodes 2.*Leave both"):
        place_of(ExecutionConfig(devices=3, num_nodes=2), started)
    assert place_of(ExecutionConfig(devices=3), {}) is None


@field("execution.strategy")
def test_a_strategy_says_whose_word_counts_for_where_a_process_is() -> None:
    step = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    assert place_of(ExecutionConfig(strategy="slurm"), step) == Place(5, 8, 1, "srun")
    assert place_of(ExecutionConfig(), step) is None  # a batch script has these, too, before srun


@field("execution.num_workers")
def test_num_workers_is_the_number_of_threads_that_gather(
    scan: Scan, fake_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptycho_core.batches.groups import Groups

    gather, seen_in = Groups.gather, []

    def watched(*arguments: Any, **keywords: Any) -> Any:
        seen_in.append(threading.current_thread())
        return gather(*arguments, **keywords)

    monkeypatch.setattr(Groups, "gather", watched)
    run_of(scan, nepochs=1, execution=ExecutionConfig(num_workers=0))
    assert set(seen_in) == {threading.main_thread()}
    seen_in.clear()
    run_of(scan, nepochs=1, execution=ExecutionConfig(num_workers=2))
    assert threading.main_thread() not in seen_in


@field("execution.inference_batch_size")
def test_inference_batch_size_is_the_number_of_groups_predicted_at_a_time(
    fake_engine: Any, model: Model, scan: Scan
) -> None:
    sizes: list[int] = []
    ones = fake_engine.predict
    fake_engine.predict = lambda batch: sizes.append(len(batch)) or ones(batch)
    seen(model, scan, ExecutionConfig(inference_batch_size=4))
    assert sizes == [4, 4, 1]


@field("execution.enable_checkpointing")
def test_checkpointing_has_the_best_model_on_disk_after_every_epoch(
    fake_engine: Any, scan: Scan, tmp_path: Path
) -> None:
    there: dict[bool, list[bool]] = {True: [], False: []}
    for enabled, noted in there.items():
        folder = tmp_path / str(enabled)
        fake_engine.train_loss = lambda epoch, f=folder, n=noted: n.append((f / "wts.h5.zip").exists()) or 1 / epoch
        train_into(folder, scan, config(nepochs=3), execution=ExecutionConfig(enable_checkpointing=enabled, **BY_LOSS))
        assert load_model(folder).best_epoch == 3
    assert there == {True: [False, True, True], False: [False, False, False]}


@field("execution.checkpoint_save_top_k")
def test_the_best_models_are_kept(fake_engine: Any, scan: Scan, tmp_path: Path) -> None:
    fake_engine.train_loss = {1: 4.0, 2: 1.0, 3: 3.0, 4: 2.0}.__getitem__
    done = train_into(tmp_path, scan, config(nepochs=4), execution=ExecutionConfig(checkpoint_save_top_k=2, **BY_LOSS))
    assert [model.best_epoch for model in done.run.best] == [2, 4]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-0002.h5.zip", "epoch-0004.h5.zip"]
    assert load_model(tmp_path).best_epoch == 2
    kept = load_model(tmp_path / "checkpoints" / "epoch-0004.h5.zip")
    assert (kept.best_epoch, int(kept.weights[LOG_SCALE])) == (4, 4)
    one = train_into(tmp_path / "one", scan, config(nepochs=4))
    assert len(one.run.best) == 1
    assert not (tmp_path / "one" / "checkpoints").exists()


@field("execution.checkpoint_monitor_metric")
def test_the_monitored_term_chooses_the_best_weights(fake_engine: Any, scan: Scan) -> None:
    nll = {1: 0.1, 2: 0.9, 3: 0.5}
    fake_engine.terms = lambda epoch: {"nll": nll[epoch]}
    by_total = run_of(scan, nepochs=3)
    by_nll = run_of(scan, nepochs=3, execution=ExecutionConfig(checkpoint_monitor_metric="nll"))
    assert (by_total.best[0].best_epoch, by_nll.best[0].best_epoch) == (3, 1)
    with pytest.raises(ConfigurationError, match=r"checkpoint_monitor_metric must be one of total, nll"):
        run_of(scan, execution=ExecutionConfig(checkpoint_monitor_metric="total_variation"))


@field("execution.checkpoint_mode")
def test_checkpoint_mode_says_which_way_is_better(fake_engine: Any, scan: Scan) -> None:
    lowest, highest = (
        run_of(scan, nepochs=3, execution=ExecutionConfig(checkpoint_mode=mode, **BY_LOSS)).best[0].best_epoch
        for mode in ("min", "max")
    )
    assert (lowest, highest) == (3, 1)


@field("execution.logger")
def test_the_logger_chooses_where_losses_go(fake_engine: Any, scan: Scan, tmp_path: Path) -> None:
    for name in ("csv", "none"):
        train_into(tmp_path / name, scan, config(), execution=ExecutionConfig(logger=name))
    assert (tmp_path / "csv" / "history.csv").is_file()
    assert not (tmp_path / "none" / "history.csv").exists()
    assert load_model(tmp_path / "none").history == load_model(tmp_path / "none").history != []


@field("execution.enable_progress_bar")
def test_the_progress_bar_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fake_engine: Any, model: Model, scan: Scan
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    printed = {}
    for enabled in (True, False):
        with Output(progress_bar=enabled).listening() as tell:
            tell(Event(kind="batch", work="train", done=1, total=2, unit="pattern", message="half"))
        printed[enabled] = capsys.readouterr().err
    assert "train" in printed[True]
    assert printed[False] == ""


def test_reconstructing_into_a_folder_writes_object_and_facts(model: Model, scan: Scan, tmp_path: Path) -> None:
    result, summary = reconstruct_into(tmp_path, scan, model)
    assert summary["patterns"] == result.patterns == 9
    assert {"reconstruction.npz", "reconstruction.json"} <= {path.name for path in tmp_path.iterdir()}


def test_a_trim_beyond_the_patch_is_refused(model: Model, scan: Scan) -> None:
    with pytest.raises(NoEffectError, match=r"middle_trim has no effect unless it is at most \d+, the side of a patch"):
        seen(model, scan.subset([0]), middle_trim=scan.N + 1)


# -- generators of other publications ------------------------------------------------------------------------------


@field("model.spectral_modes", "model.spectral_blocks")
def test_modes_and_blocks_of_spectral_convolutions() -> None:
    def of(**model: Any) -> list[tuple[int, ...]]:
        table = build_table(ModelConfig(n_filters_scale=1, **model))
        return [shape[:-2] for name, shape in table.parameters.items() if name.endswith("spectral/real")]

    assert of(architecture="fno", N=32) == [(24, 12)] * 4
    assert of(architecture="fno", N=16) == [(16, 8)] * 4
    assert of(architecture="fno", N=32, spectral_modes=5, spectral_blocks=2) == [(10, 5)] * 2
    assert of(architecture="hybrid_resnet", N=64) == [(16, 8)] * 2 + [(2, 8)] * 6
    assert of(architecture="hybrid_resnet", N=64, spectral_blocks=1) == [(16, 8)] * 2 + [(2, 8)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_object": False}, r"pad_object has no effect unless architecture = cnn; .*--architecture cnn"),
        ({"amp_activation": "swish"}, "amp_activation has no effect unless architecture = cnn"),
        ({"canvas_blocks": 2}, "canvas_blocks has no effect unless architecture = canvas"),
    ],
)
def test_what_other_heads_need_is_refused_by_them(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NoEffectError, match=message):
        ModelConfig(architecture="uno", **changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "hybrid_resnet", "N": 44}, "N must be a multiple of 8 .*; got 44.*Crop the patterns to 40"),
        ({"architecture": "uno", "N": 64, "spectral_modes": 17}, "spectral_modes must be at most 16, .*32 pixels"),
    ],
)
def test_a_size_that_a_generator_cannot_halve_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_table(ModelConfig(**settings))


# -- networks of a canvas ------------------------------------------------------------------------------------------


@field("model.canvas_blocks", "model.warm_sweeps")
def test_blocks_and_warm_sweeps_are_layers() -> None:
    def steps(**model: Any) -> list[object]:
        layers = build_table(ModelConfig(architecture="canvas", N=N, **model)).layers
        return [layer.settings.get("sweeps", layer.op) for layer in layers if layer.op in ("warm_sweeps", "data_step")]

    assert steps() == ["data_step"] * 6
    assert steps(canvas_blocks=3, warm_sweeps=8) == [8, *["data_step"] * 3]


@field("model.group_size", "training.held_out_frames")
def test_groups_of_a_canvas_have_any_size_and_hold_out_frames(scan: Scan) -> None:
    def drawn(**changes: Any) -> Groups:
        settings = config(architecture="canvas", **changes)
        return TrainingData(scan, settings, on_canvas=True).draw(np.random.default_rng(0))

    assert ModelConfig(architecture="canvas").channels == 16
    groups = drawn(group_size=5, held_out_frames=2)
    assert groups.indices.shape == (9, 5)
    assert groups.held_out is not None
    assert groups.held_out.shape == (9, 2)
    distance = np.square(groups.relative_offsets_px[:, 0]).sum(axis=1)
    of_them = np.take_along_axis(distance, groups.held_out, axis=1)
    assert (
        np.sort(of_them, axis=1)[:, -1] <= np.sort(distance, axis=1)[:, 1] + 1e-6
    ).all()  # the inner half: two of five
    of_default = drawn(group_size=8).held_out
    assert of_default is not None
    assert of_default.shape == (9, 2)
    assert drawn(group_size=5, held_out_frames=0).held_out is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 4, "held_out_frames": 4}, "held_out_frames must be fewer than the 4 patterns"),
        ({"gridsize": 2}, "gridsize"),
        ({"pad_object": False}, "pad_object"),
    ],
)
def test_what_has_no_effect_on_a_canvas_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config(architecture="canvas", **changes)
