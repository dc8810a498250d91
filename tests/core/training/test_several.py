"""Several scans in one training: whose batch comes when, what lights it, what is refused, and what is kept of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import ArchiveError, ConfigurationError, DataError
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.models.seen import Seen
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import warn_of_other_pixel, warn_of_other_probe
from ptycho_core.report.facts import archive_facts
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import Fit, fit
from tests.core.archives import rewrite, tiny_model
from tests.core.conftest import make_numbered_scan

pytestmark = pytest.mark.usefixtures("tiny_architecture")


def config(**changes: Any) -> TrainingConfig:
    architecture = changes.pop("architecture", "tiny")
    more = {"group_size": 4, "warm_sweeps": 0, "canvas_blocks": 1} if architecture == "canvas" else {}
    model = ModelConfig(
        **{"N": 32, "n_filters_scale": 1, "architecture": architecture, **more, **changes.pop("model", {})}
    )
    return TrainingConfig(model=model, **{"nepochs": 2, "batch_size": 4, "scheduler": "Default", **changes})


def other_probe() -> Any:
    y, x = np.mgrid[:32, :32] - 16.0
    return (x + 1j * y) * np.exp(-(x**2 + y**2) / 40)


@pytest.fixture
def scans() -> list[Scan]:
    """Of 9 and of 6 frames, the second with twice the amplitude."""
    first, second = make_numbered_scan(9), make_numbered_scan(6, seed=1, source="other.npz")
    return [first, attrs.evolve(second, diffraction_amplitude=2 * np.asarray(second.diffraction_amplitude))]


def ended(run: Fit) -> Fit:
    list(run)
    return run


def whose(engine: Any) -> list[list[int]]:
    """Which scan every batch of every epoch is of."""
    return [[batch.scan for batch in epoch] for epoch in engine.epochs]


# -- order ---------------------------------------------------------------------------------------------------------


def test_an_epoch_has_every_scans_groups_in_batches_of_one_scan_each(
    fake_engine: Any, scans: list[Scan], frames_of: Any
) -> None:
    run = ended(fit(scans, config(nepochs=6)))
    assert run.patterns_per_epoch == 15
    for epoch in fake_engine.epochs:
        assert sorted(batch.scan for batch in epoch) == [1, 1, 1, 2, 2]
        for number, count, factor in ((1, 9, 1), (2, 6, 2)):
            batches = [frames_of(batch) + 1 for batch in epoch if batch.scan == number]
            assert sorted(np.concatenate(batches).ravel() // factor) == list(range(1, count + 1))
    orders = whose(fake_engine)
    assert len({tuple(order) for order in orders}) > 1
    assert any(order != sorted(order) for order in orders)
    fake_engine.epochs.clear()
    ended(fit(scans, config(nepochs=6), execution=ExecutionConfig(num_workers=0)))
    assert whose(fake_engine) == orders
    fake_engine.epochs.clear()
    ended(fit(scans, config(nepochs=6, seed=1)))
    assert whose(fake_engine) != orders


def test_one_scan_is_no_list_of_one(fake_engine: Any, scans: list[Scan]) -> None:
    """Neither its batches nor its history say of which scan they are."""
    run = ended(fit(scans[:1], config(architecture="canvas", nepochs=1)))
    assert whose(fake_engine) == [[None, None, None]]
    assert not any("/" in name for name in run.history[0])


# -- light ---------------------------------------------------------------------------------------------------------


def test_a_network_of_a_canvas_is_given_each_scans_own_light(fake_engine: Any, scans: list[Scan]) -> None:
    scans[1] = attrs.evolve(scans[1], probe=other_probe())
    run = ended(fit(scans, config(architecture="canvas", nepochs=1), test=[scans[1], scans[0]]))
    own = [Illumination.of(scan, nphotons=1e9) for scan in scans]
    lights = {batch.scan: batch.illumination for batch in fake_engine.epochs[0]}
    tested = {batch.scan: batch.illumination for batch in fake_engine.evaluated[0]}
    for number, light in enumerate(own, start=1):
        for found in (lights[number], tested[3 - number]):
            np.testing.assert_array_equal(found.probe, light.probe)
            assert found.mean_intensity == light.mean_intensity
    (row,) = run.history
    parts = [row[f"validation_scan{number}/held_out"] for number in (1, 2)]
    assert row["validation_held_out"] == pytest.approx(np.sqrt(parts[0] * parts[1]), rel=1e-9)
    assert parts[0] != parts[1]


def test_another_network_has_that_of_the_first_scan(
    fake_engine: Any, scans: list[Scan], core_log: pytest.LogCaptureFixture
) -> None:
    scans[1] = attrs.evolve(scans[1], diffraction_amplitude=4 * np.asarray(scans[1].diffraction_amplitude))
    run = ended(fit(scans, config()))
    first = Illumination.of(scans[0], nphotons=1e9)
    assert {id(batch.illumination) for batch in fake_engine.epochs[0]} == {id(run._started.illumination)}
    np.testing.assert_array_equal(run._started.illumination.probe, first.probe)
    assert "other.npz: a frame's intensity is" in core_log.text
    assert run.model is not None and run.model.others == ()


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"probe": other_probe()},
            r"other\.npz: probeGuess: expected the probe of numbered\.npz, as architecture = tiny sees none and learns "
            r"one alone; received an overlap of 0\.\d\d of 1\. Train with architecture = canvas",
        ),
        ({"probe": np.stack([make_numbered_scan(1).probe[0]] * 2)}, r"received 2 modes, 1 there"),
    ],
)
def test_a_network_that_sees_no_probe_is_given_one_alone(
    fake_engine: Any, scans: list[Scan], changes: dict[str, Any], message: str
) -> None:
    scans[1] = attrs.evolve(scans[1], **changes)
    with pytest.raises(DataError, match=message):
        fit(scans, config())
    assert fake_engine.built == []
    fit(scans, config(architecture="canvas"))


def test_scans_of_different_sizes_are_refused_by_name(fake_engine: Any, scans: list[Scan]) -> None:
    smaller = make_numbered_scan(9, N=16, source="small.h5")
    message = r"small\.h5: diff3d: expected 32 x 32 patterns, as those of numbered\.npz; received 16 x 16\. Crop or pad"
    with pytest.raises(DataError, match=message):
        fit([*scans, smaller], config())


def test_an_unknown_probe_is_refused_by_name(fake_engine: Any, scans: list[Scan]) -> None:
    scans[1] = attrs.evolve(scans[1], probe_known=False)
    for architecture in ("tiny", "canvas"):
        with pytest.raises(DataError, match=r"other\.npz: probe: expected a probe"):
            fit(scans, config(architecture=architecture))


def test_one_probe_is_refined_alone(fake_engine: Any, scans: list[Scan]) -> None:
    with pytest.raises(
        ConfigurationError, match="probe_trainable must be one scan, as a training refines one probe; got 2 sc"
    ):
        fit(scans, config(architecture="canvas", probe_trainable=True))


def test_a_group_without_overlap_is_refused_by_name(fake_engine: Any, scans: list[Scan]) -> None:
    far = attrs.evolve(scans[1], positions_px=40.0 * np.argwhere(np.ones((3, 2))))
    message = (
        r"other\.npz: xcoords, ycoords: expected patterns that overlap, less than N = 32 px .* nearest two are 40 px"
    )
    with pytest.raises(DataError, match=message):
        fit([scans[0], far], config(architecture="canvas"))
    fit([scans[0], attrs.evolve(far, positions_px=0.7 * np.asarray(far.positions_px))], config(architecture="canvas"))


def test_no_scan_at_all_is_an_error(fake_engine: Any) -> None:
    with pytest.raises(ConfigurationError, match="train_data_file must be a scan to train on; got none"):
        fit([], config())


# -- going on, archives --------------------------------------------------------------------------------------------


@pytest.fixture
def canvas_run(fake_engine: Any, scans: list[Scan]) -> Fit:
    """After its first epoch, on two scans of two probes and of known pixels."""
    lengths = {"photon_energy_eV": 8000.0, "detector_distance_m": 1.5, "detector_pixel_m": [75e-6, 75e-6]}
    scans[1] = attrs.evolve(scans[1], probe=other_probe(), metadata=lengths)
    run = fit(scans, config(architecture="canvas"), test=scans[:1])
    next(iter(run))
    return run


def test_a_run_on_several_scans_goes_on(canvas_run: Fit, scans: list[Scan], fake_engine: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(canvas_run.checkpoint().save(tmp_path))
    assert len(checkpoint.scans) == 2 and len(checkpoint.tests) == 1
    fake_engine.epochs.clear()
    resumed = ended(fit(scans, checkpoint.config, test=scans[:1], resume=checkpoint))
    (epoch,) = fake_engine.epochs
    for batch in epoch:
        own = Illumination.of(scans[batch.scan - 1], nphotons=1e9)
        np.testing.assert_array_equal(batch.illumination.probe, own.probe)
    assert resumed.model is not None and len(resumed.model.others) == 1
    whole = ended(fit(scans, checkpoint.config, test=scans[:1]))
    assert whose(fake_engine)[0] == whose(fake_engine)[-1]
    names = [name for name in whole.history[1] if name != "seconds"]
    assert [resumed.history[1][name] for name in names] == [whole.history[1][name] for name in names]


def test_other_scans_than_those_it_began_with_are_refused(canvas_run: Fit, scans: list[Scan]) -> None:
    checkpoint = canvas_run.checkpoint()
    for given, message in (
        (scans[:1], "train_data_file: expected 2 scans, as the run began; received a scan"),
        (scans[::-1], r"other\.npz: .* expected the scan that the run began with"),
    ):
        with pytest.raises(DataError, match=message):
            fit(given, checkpoint.config, test=scans[:1], resume=checkpoint)
    with pytest.raises(DataError, match="expected a test scan, as the run began; received 2 test scans"):
        fit(scans, checkpoint.config, test=scans, resume=checkpoint)


def test_a_model_keeps_what_it_was_trained_with(canvas_run: Fit, scans: list[Scan], tmp_path: Path) -> None:
    assert canvas_run.model is not None
    path = canvas_run.model.save(tmp_path / "wts.h5.zip")
    model = load_model(path)
    assert "scan2/probe/field" not in model.weights
    for seen, scan in zip(model.seen, scans, strict=True):
        np.testing.assert_array_equal(seen.illumination.probe, Illumination.of(scan, nphotons=1e9).probe)
    assert model.seen[0].object_pixel_m is None
    assert model.seen[1].object_pixel_m == canvas_run.model.others[0].object_pixel_m is not None
    assert (archive_facts(path) or {})["scans"] == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop("scan2/data/input_scale"), r"missing \['scan2/data/input_scale'\]"),
        (lambda weights: weights.update({"scan2/probe/field": np.ones((1, 8, 8, 2), np.float32)}), "scan2/probe/field"),
        (lambda weights: weights.update({"scan2/data/mean_intensity": np.float32(0)}), "scan2/data/mean_intensity"),
        (lambda weights: weights.update({"scan9/probe/field": np.ones(3, np.float32)}), "unexpected .'scan9/probe/fie"),
    ],
)
def test_an_illumination_that_is_none_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    from ptycho_core.models.container import from_arrays, to_arrays
    from tests.core.archives import members_of

    model = tiny_model()
    path = attrs.evolve(model, others=(Seen(tiny_model(1).illumination),)).save(tmp_path / "wts.h5.zip")
    assert len(load_model(path).others) == 1
    weights = dict(to_arrays(members_of(path)["weights.safetensors"], "weights"))
    spoil(weights)
    rewrite(path, weights=from_arrays(weights))
    with pytest.raises(ArchiveError, match=message):
        load_model(path)


def test_a_probe_and_a_pixel_are_compared_with_all_that_were_seen(
    scans: list[Scan], core_log: pytest.LogCaptureFixture
) -> None:
    seen = [Illumination.of(scan, nphotons=1e9) for scan in (scans[0], attrs.evolve(scans[0], probe=other_probe()))]
    for probe in (scans[0].probe, 3 * other_probe()):
        warn_of_other_probe(attrs.evolve(scans[0], probe=probe), seen, used=True)
    metadata = {"object_pixel_m": [2e-8, 2e-8]}
    warn_of_other_pixel(attrs.evolve(scans[0], metadata=metadata), [(1e-8, 1e-8), None, (2e-8, 2e-8)])
    assert core_log.records == []
    x = np.arange(32) - 16.0
    warn_of_other_probe(attrs.evolve(scans[0], probe=x * other_probe()), seen, used=True)
    assert "the network was trained with 2 other probes (overlap 0." in core_log.text
    warn_of_other_pixel(attrs.evolve(scans[0], metadata=metadata), [(1e-8, 1e-8), (4e-8, 4e-8)])
    assert "pixels of 20 x 20 nm here, 10 x 10 nm or 40 x 40 nm in the training scan" in core_log.text
    assert all(record.levelno == logging.WARNING for record in core_log.records)
