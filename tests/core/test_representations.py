"""What a prompt shows of the public objects: a line that a person reads, whatever arrays they hold."""

from __future__ import annotations

import base64
import copy
import html
import inspect
import io
import typing
from pathlib import Path

import attrs
import numpy as np
import pytest

from ptycho_core import (
    ModelConfig,
    ReadOptions,
    Scan,
    SolveConfig,
    SweepReport,
    TableBuilder,
    TrainingConfig,
    evaluate,
    load_scan,
    simulate,
    split,
)
from ptycho_core.batches.batch import Batch
from ptycho_core.events import Event
from ptycho_core.quality.truth import Truth
from ptycho_core.settings.fields import fields_of, hints_of
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.settings.stated import ReadSettings
from ptycho_core.storage.pictures import Picture
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
    long = repr(attrs.evolve(config, train_data_file=Path("a" * 190), n_groups=5, seed=3))
    assert long.endswith("nepochs=3, n_groups=5, seed=3, … 1 more)") and len(long) < 200


def test_a_scan_shows_its_size_its_probe_and_its_source(scan: Scan) -> None:
    assert repr(scan) == "Scan(20 patterns of 16 x 16, 1 probe mode, object known, source='simulation')"
    blind = attrs.evolve(scan, probe_known=False, object_field=None, source="raw.h5")
    assert repr(blind) == "Scan(20 patterns of 16 x 16, probe unknown, source='raw.h5')"
    assert repr(attrs.evolve(scan, source="/data" * 60 + "/raw.h5")).endswith("/raw.h5')")
    for each in (attrs.evolve(scan, source="/data" * 60), split(scan), TableBuilder(1)):
        assert len(repr(each)) < 200
    assert repr(split(scan)).startswith("Split(16 patterns to train, 4 to test, 0 left out, spatial at ")


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


def test_help_has_type_meaning_limits_and_default_of_every_setting() -> None:
    for cls in SECTIONS.values():
        types = inspect.signature(cls).parameters
        for name, hint in hints_of(cls).items():
            if name in fields_of(cls):
                assert types[name].annotation == hint, name
                explained = inspect.getdoc(getattr(cls, name))
                assert explained is not None and "Takes: " in explained and "Default: " in explained, name
    described = inspect.getdoc(TrainingConfig.momentum)
    assert described == (
        "Momentum of sgd.\nTakes: a number, a number from 0 to below 1.\nDefault: 0.9.\nOnly with: optimizer = sgd."
    )
    config = TrainingConfig(nepochs=3)
    assert copy.deepcopy(config) == config and attrs.evolve(config, seed=1).seed == 1


def test_a_scan_is_loaded_with_keyword_parameters_of_their_own_types() -> None:
    """At a prompt by its signature, and for type checkers by a table of the same types."""
    hints = hints_of(ReadOptions)
    listed = {name: each for name, each in inspect.signature(load_scan).parameters.items() if name in hints}
    assert {name: each.annotation for name, each in listed.items()} == hints
    assert all(each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in listed.values())
    assert typing.get_type_hints(ReadSettings) == hints


@pytest.mark.parametrize("side", [1, 20, 600])
def test_a_picture_is_a_png_file_of_the_values_inside(side: int) -> None:
    values = np.linspace(0, 1, side * side).reshape(side, side)
    inside = np.ones((side, side), bool)
    inside[0, 0] = side == 1
    content = base64.b64decode(Picture("a < b", values, inside).html().partition("base64,")[2].partition('"')[0])
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(content))
    image.load()
    grey, opacity = (np.asarray(channel) for channel in image.split())
    assert image.mode == "LA" and max(image.size) == min(side, 300)
    assert opacity[0, 0] == (255 if side == 1 else 0) and (opacity.ravel()[1:] == 255).all()
    assert (np.diff(grey[inside[:: -(-side // 512), :: -(-side // 512)]].astype(int)) >= 0).all()
    assert side == 1 or (grey.min(), grey.max()) == (0, 255)


def test_a_notebook_shows_pictures_of_results_models_and_scans(scan: Scan) -> None:
    register_tiny()
    for thing, pictures in ((make_reconstruction(), 2), (tiny_model(), 1), (scan, 3)):
        page = thing._repr_html_()
        assert html.escape(repr(thing)) in page and page.count("data:image/png") == pictures
