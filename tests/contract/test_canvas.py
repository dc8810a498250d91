"""A network of a canvas on a whole scan, and its training: the same on every engine as on the reference."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference import ReferenceEngine

from ptycho_core.batches.groups import Groups, centres_and_offsets
from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import ArchiveError
from ptycho_core.models import canvas
from ptycho_core.models.canvas import WholeScan
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import Model
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import fit
from tests.contract.cases import Case, assert_field_close, build, make_scan, named_case

EXACT = 1e-5
"""Of the peak: what is predicted on the whole canvas is float32."""


@functools.cache
def scan() -> Scan:
    return make_scan(16, 2, 2e4, True)


@pytest.fixture
def found(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run finds the engine that is tested, even one that is registered nowhere."""
    monkeypatch.setattr("ptycho_core.training.prepare.find_engine", lambda name: lambda: engine)


@pytest.fixture
def case() -> Case:
    return named_case("canvas")


def whole(engine: Engine, case: Case, **more: object) -> WholeScan:
    model, execution = case.model, ExecutionConfig(accelerator="cpu")
    return WholeScan.of(engine, execution, model, scan(), case.illumination, **more)


def patches_of_one_group(engine: Engine, case: Case) -> NDArray[np.complex64]:
    """(M, N, N): what `predict` gives of all frames as one group, whose centre lies on a whole pixel."""
    positions = scan().positions_px
    middle = np.floor(positions.mean(axis=0))
    offsets = -(positions - middle).astype(np.float32).T[None, None]
    centres, _ = centres_and_offsets(positions[None])
    groups = Groups(np.arange(len(positions))[None], centres, offsets)
    light = case.illumination
    (batch,) = groups.batches(scan(), 1, illumination=light, canvas_padding_px=24)
    return np.moveaxis(build(engine, case, training=None).predict(batch)[0], 2, 0)


def test_a_whole_scan_is_one_group(engine: Engine, case: Case) -> None:
    """Untrained, so that what is empty beyond the canvas, of which one has more, makes no difference."""
    weights = {name: array * ("/head/" not in name) for name, array in case.weights.items()}
    case = attrs.evolve(case, weights=weights)
    scene = whole(engine, case)
    field = scene.predicted(case.weights)
    seen = extract_patches(field, scan().positions_px, 16, scene.origin_px)
    assert_field_close(seen, patches_of_one_group(engine, case), EXACT)


def test_a_whole_scan_is_that_of_the_reference(engine: Engine, case: Case) -> None:
    field = whole(engine, case).predicted(case.weights)
    assert_field_close(field, whole(ReferenceEngine(), case).predicted(case.weights), EXACT)


def test_pieces_and_tiles_change_nothing(engine: Engine, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(engine, case).predicted(case.weights)
    monkeypatch.setattr(canvas, "PIECE_BYTES", 3 * 4 * 16**2)
    monkeypatch.setattr(canvas, "whole", functools.partial(canvas.whole, tile_px=8))
    assert_field_close(whole(engine, case).predicted(case.weights), expected, EXACT)


def test_pixels_that_are_held_out_have_no_say(engine: Engine, case: Case) -> None:
    held_out = np.random.default_rng(1).random((1, 16, 16)) < 0.1
    amplitude = np.array(scan().diffraction_amplitude)
    amplitude[:, held_out[0]] = 7
    spoiled = attrs.evolve(scan(), diffraction_amplitude=amplitude)
    pattern = np.zeros(len(amplitude), np.int64)
    scene = whole(engine, case, held_out=held_out, pattern=pattern)
    assert np.abs(scene.predicted(case.weights) - whole(engine, case).predicted(case.weights)).max() > 1e-3
    other = attrs.evolve(scene, scan=spoiled)
    assert_field_close(other.predicted(case.weights), scene.predicted(case.weights), 1e-7)


def short(engine: Engine, case: Case, **changes: Any) -> TrainingConfig:
    """The case's training on two groups an epoch, one a step, with the scan's own probe."""
    few = {"n_groups": 2, "batch_size": 1, "held_out_frames": 2, "probe_trainable": False, "backend": engine.name}
    return attrs.evolve(case.training, **few, **changes)


@pytest.mark.usefixtures("found")
def test_training_begins_with_the_untrained_network(engine: Engine, case: Case) -> None:
    """A rate that ruins it leaves epoch 0 the best."""
    execution = ExecutionConfig(accelerator="cpu", num_workers=0)
    run = fit(scan(), short(engine, case, nepochs=1, learning_rate=0.1), execution=execution)
    (report,) = list(run)
    assert run.model is not None
    assert run.model.best_epoch == 0
    assert not report.is_best
    heads = [array for name, array in run.model.weights.items() if name.endswith("/kernel") and "/head/" in name]
    assert len(heads) == case.model.canvas_blocks
    assert not np.any(heads)
    assert report.terms["held_out"] > 0


def test_a_reconstruction_names_its_model_and_warns_of_another_pixel(
    engine: Engine, case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ptycho_core.reconstruction.prepare.find_engine", lambda name: lambda: engine)
    lengths = {"photon_energy_eV": 8000.0, "detector_distance_m": 1.5, "detector_pixel_m": [75e-6, 75e-6]}
    model = Model(
        config=case.training,
        weights=case.weights | case.illumination.arrays(),
        history=[],
        engine=engine.describe(),
        best_epoch=0,
        object_pixel_m=(1e-9, 1e-9),
    )
    settings = InferenceConfig(weighting="uniform")
    result = reconstruct(attrs.evolve(scan(), metadata=lengths), model, backend=engine.name, config=settings)
    assert result.model_digest == model.digest
    assert "in the training scan. Crop or pad" in caplog.text
    assert "weighting has no effect on architecture canvas" in caplog.text
    assert "seed has no effect" not in caplog.text


@pytest.mark.usefixtures("found")
def test_a_run_begins_with_the_layers_of_a_model(engine: Engine, case: Case) -> None:
    """Of another scan; a model of other layers is refused."""
    execution = ExecutionConfig(accelerator="cpu", num_workers=0)
    settings = short(engine, case, nepochs=1, learning_rate=1e-3)
    whole_run = fit(scan(), settings, execution=execution)
    list(whole_run)
    known = attrs.evolve(whole_run.checkpoint().best[0], weights=whole_run.checkpoint().weights)
    heads = [name for name in known.weights if "/head/" in name and name.endswith("/kernel")]
    assert any(known.weights[name].any() for name in heads)
    again = fit(scan().subset(np.arange(15)), attrs.evolve(settings, learning_rate=1e-12), begin_from=known)
    list(again)
    assert again.model is not None
    for name in heads:
        assert_field_close(again.model.weights[name], known.weights[name], 1e-5, name)
    other = attrs.evolve(known, weights={name: array for name, array in known.weights.items() if name != heads[0]})
    with pytest.raises(ArchiveError, match="the layers of this network"):
        fit(scan(), settings, begin_from=other)


@pytest.mark.usefixtures("found")
def test_several_scans_of_several_probes_train_one_network(engine: Engine, case: Case, tmp_path: Path) -> None:
    """Terms are known by scan, each is judged in its own light, and a run goes on to the last bit."""
    execution = ExecutionConfig(accelerator="cpu", num_workers=0, deterministic=True)
    settings = short(engine, case, nepochs=2)
    other = attrs.evolve(scan().subset(np.arange(12)), probe=scan().probe[:, ::-1] * np.float32(0.5))
    run = fit([scan(), other], settings, execution=execution)
    for report in run:
        parts = [report.train[f"scan{number}/total"] for number in (1, 2)]
        assert parts[0] != parts[1]
        assert report.train["total"] == pytest.approx(sum(parts) / 2, rel=1e-12)
        held_out = [report.train[f"scan{number}/held_out"] for number in (1, 2)]
        assert report.train["held_out"] == pytest.approx(np.sqrt(held_out[0] * held_out[1]), rel=1e-12)
        if report.epoch == 1:
            stopped = load_checkpoint(run.checkpoint().save(tmp_path))
    resumed = fit([scan(), other], settings, execution=execution, resume=stopped)
    (last,) = list(resumed)
    assert last.train == report.train
    for name, array in run.checkpoint().weights.items():
        np.testing.assert_array_equal(resumed.checkpoint().weights[name], array, err_msg=name)
    assert run.model is not None
    (seen,) = run.model.others
    assert_field_close(seen.illumination.probe, Illumination.of(other, nphotons=settings.nphotons).probe, 1e-7)
