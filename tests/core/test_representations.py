"""What a prompt shows of the public objects: a line that a person reads, whatever arrays they hold."""

from __future__ import annotations

import attrs
import pytest

from ptycho_core import (
    ModelConfig,
    ReadOptions,
    Scan,
    SolveConfig,
    SweepReport,
    TrainingConfig,
    evaluate,
    simulate,
)
from ptycho_core.batches.batch import Batch
from ptycho_core.events import Event
from ptycho_core.quality.truth import Truth
from tests.core.archives import register_tiny, tiny_model
from tests.core.reconstructions import make_reconstruction


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(N=16, positions=20, object="lines", photons=1e4, seed=0)


def test_settings_show_what_differs_from_the_defaults() -> None:
    assert repr(SolveConfig()) == "SolveConfig()"
    assert repr(ReadOptions(crop=32)) == "ReadOptions(crop=32)"
    config = TrainingConfig(model=ModelConfig(architecture="cnn", gridsize=2), nepochs=3)
    assert repr(config) == "TrainingConfig(model=ModelConfig(gridsize=2, architecture='cnn'), nepochs=3)"
    assert repr(TrainingConfig(n_groups=512)) == "TrainingConfig(n_groups=512)"  # the default of cnn alone


def test_a_scan_shows_its_size_its_probe_and_its_source(scan: Scan) -> None:
    assert repr(scan) == "Scan(20 patterns of 16 x 16, 1 probe mode, object known, source='simulation')"
    blind = attrs.evolve(scan, probe_known=False, object_field=None, source="raw.h5")
    assert repr(blind) == "Scan(20 patterns of 16 x 16, probe unknown, source='raw.h5')"


def test_a_model_shows_its_network_and_its_best_epoch() -> None:
    register_tiny()
    model = attrs.evolve(tiny_model(), best_epoch=1)
    assert (
        repr(model) == f"Model(tiny, N={model.config.model.N}, groups of 1, best epoch 1 of {len(model.history)}, fake)"
    )
    assert repr(model.illumination).startswith("Illumination(1 mode of ")


def test_a_reconstruction_and_its_comparison_show_their_figures(scan: Scan) -> None:
    result = make_reconstruction(R=0.0123456, H=0.02)
    shown = repr(result)
    assert shown.startswith("Reconstruction(") and "R 0.01235, H 0.02" in shown and len(shown) < 200
    truth = Truth(object_field=result.object_field, origin_px=result.origin_px)
    height, width = result.object_field.shape
    assert repr(truth).startswith(f"Truth({height} x {width} pixels, origin_px=")
    comparison = repr(evaluate(result, truth))
    assert comparison.startswith("Comparison(correlation 1.0000, SSIM 1.0000 of the amplitude")


def test_a_batch_and_an_event_are_one_line(scan: Scan) -> None:
    illumination = tiny_model().illumination
    amplitude = scan.diffraction_amplitude[:, :, :, None][:6]
    assert scan.bad_pixels is not None
    batch = Batch(
        diffraction_amplitude=amplitude,
        relative_offsets_px=amplitude[:, :1, :2],
        canvas_padding_px=0,
        bad_pixels=scan.bad_pixels,
        illumination=attrs.evolve(illumination, probe=scan.probe),
    )
    assert repr(batch).startswith("Batch(6 groups of 1 patterns of 16 x 16, Illumination(1 mode of 16 x 16, ")
    report = SweepReport(done=1, total=3, R=0.5, H=0.6, rate=1.0, seconds=0.1, moved_px=0.0, message="R 0.5")
    assert repr(report) == "SweepReport(sweep of solve: 'sweep 1/3: R 0.5')"
    assert (
        repr(Event(kind="started", work="train", message="backend torch")) == "Event(started of train: 'backend torch')"
    )
