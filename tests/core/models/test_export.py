"""Networks as ONNX programs, and the front that has engines write theirs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import BackendError, ConfigurationError, DataError, MissingExtraError
from ptycho_core.models import onnx as onnx_graph
from ptycho_core.models.export import FORMS, export_model, program_facts
from ptycho_core.models.model import Model
from ptycho_core.models.signature import AMPLITUDE, AMPLITUDE_AND_PHASE, AMPLITUDE_PHASE, IMAGINARY, REAL, signature_of
from ptycho_core.networks import ops
from ptycho_core.networks.table import INPUT, TableBuilder
from ptycho_core.settings.model import ModelConfig
from ptycho_core.storage.files import making
from ptycho_core.vocabulary import PROBE, Weights
from tests.contract.cases import CASES, Case, assert_field_close, build_reference, make_case, named_case
from tests.core.conftest import FakeEngine
from tests.examples import load_example

CNN: dict[str, dict[str, Any]] = {
    "one_frame": {"gridsize": 1},
    "merged": {"gridsize": 2},
    "frames_alone": {"gridsize": 2, "object_big": False},
    "deeper": {"N": 64, "gridsize": 1},
    "not_padded": {"pad_object": False, "amp_activation": "softplus"},
    "centre_only": {"probe_big": False, "amp_activation": "relu"},
    "attention": {
        "gridsize": 1,
        **dict.fromkeys(("cbam_encoder", "cbam_bottleneck", "eca_encoder", "eca_decoder", "spatial_decoder"), True),
    },
    "attention_merged": {"cbam_encoder": True, "cbam_decoder": True},
    "published_torch": {"architecture": "published_torch", "cbam_encoder": True},
}
"""Arguments of `make_case`, architecture cnn unless stated."""


def model_of(case: Case) -> Model:
    engine = EngineInfo("none", "no framework", "1", (), ())
    weights = {**case.illumination.arrays(), **case.weights}
    return Model(config=case.training, weights=weights, history=[], engine=engine, best_epoch=0)


@pytest.fixture(scope="module")
def small() -> Model:
    return model_of(make_case(**CASES["short"]))


def run_onnx(path: Path, amplitude: Any) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    real, imaginary = session.run([REAL, IMAGINARY], {AMPLITUDE: amplitude})
    return real + 1j * imaginary


@pytest.mark.parametrize("name", CNN)
def test_onnx_predicts_as_the_reference(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    case = make_case(**{"architecture": "cnn", "groups": 1, **CNN[name]})
    path = export_model(model_of(case), tmp_path / "network.onnx")
    assert_field_close(
        run_onnx(path, case.batch.diffraction_amplitude), build_reference(case).predict(case.batch), 2e-6, "patches"
    )


def test_onnx_takes_batches_of_every_size(tmp_path: Path, small: Model) -> None:
    pytest.importorskip("onnx")
    path = export_model(small, tmp_path / "network.onnx")
    amplitude = make_case(**CASES["short"]).batch.diffraction_amplitude
    one = run_onnx(path, amplitude[:1])
    assert_field_close(run_onnx(path, np.repeat(amplitude[:1], 5, axis=0)), np.repeat(one, 5, axis=0), 1e-6)


def test_an_onnx_file_says_what_it_is(tmp_path: Path, small: Model) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(export_model(small, tmp_path / "network"))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "network.onnx"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", onnx_graph.OPSET)]
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert facts == program_facts(small, signature_of(small.config.model))
    assert facts["N"] == "32" and facts["gridsize"] == "1" and float(facts["input_scale"]) > 0
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"encoder/conv0/kernel", "phase/head/conv/bias", "data/input_scale"} <= names
    assert not any(name.startswith(("probe/", "intensity/")) for name in names)


def test_an_op_that_onnx_lacks_is_named(tmp_path: Path, small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(ops, "_OPS", dict(ops._OPS))
    ops.register_op("teleport", "elsewhere", torch=lambda x: x)
    table = TableBuilder(1)
    table.op("x", "teleport", INPUT)
    finished = table.finish(amplitude="x", phase="x")
    monkeypatch.setattr(onnx_graph, "build_table", lambda model: finished)
    with pytest.raises(BackendError, match="layer 'x': op 'teleport': expected a function for 'onnx'"):
        export_model(small, tmp_path / "network.onnx")


def test_an_op_of_ones_own_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    load_example("own_op_and_network")
    case = make_case(architecture="leaky_trunk", gridsize=1)
    path = export_model(model_of(case), tmp_path / "network.onnx")
    assert_field_close(
        run_onnx(path, case.batch.diffraction_amplitude), build_reference(case).predict(case.batch), 2e-6, "patches"
    )


def test_the_package_for_onnx_is_asked_for(tmp_path: Path, small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ptycho-core\[onnx\]'"):
        export_model(small, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


# -- engines -------------------------------------------------------------------------------------------------------


@attrs.define
class Writer(FakeEngine):
    """An engine that knows two forms; `fails` after it has begun."""

    exports: tuple[str, ...] = ("savedmodel", "torch-export")
    fails: bool = False
    written: list[tuple[str, ModelConfig]] = attrs.field(factory=list)

    def export(
        self, form: str, model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]
    ) -> None:
        assert PROBE not in weights and len(batch) > 1
        self.written.append((form, model))
        if form == "savedmodel":
            target.mkdir()
            (target / "saved_model.pb").write_text(facts["N"])
        else:
            target.write_text(facts["N"])
        if self.fails:
            raise RuntimeError("out of ink")


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    engine = Writer()

    def load_engine(backend: str = "auto") -> Writer:
        engine.backends.append(backend)
        return engine

    monkeypatch.setattr("ptycho_core.models.export.load_engine", load_engine)
    return engine


def test_the_engine_of_a_form_writes_it(tmp_path: Path, small: Model, writer: Writer) -> None:
    assert export_model(small, tmp_path / "a", form="savedmodel") == tmp_path / "a"
    assert export_model(small, tmp_path / "b", form="torch-export") == tmp_path / "b.pt2"
    assert export_model(small, tmp_path / "c.pt2", form="torch-export", backend="mine") == tmp_path / "c.pt2"
    assert writer.backends == ["tensorflow", "torch", "mine"]
    assert (tmp_path / "a" / "saved_model.pb").read_text() == "32" and (tmp_path / "b.pt2").read_text() == "32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.pt2", "c.pt2"]


@pytest.mark.parametrize("form", [form for form, (engine, _) in FORMS.items() if engine is not None])
def test_a_program_is_there_whole_or_not_at_all(tmp_path: Path, small: Model, writer: Writer, form: str) -> None:
    writer.fails = True
    with pytest.raises(RuntimeError, match="out of ink"):
        export_model(small, tmp_path / "program", form=form)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path, small: Model, writer: Writer) -> None:
    (tmp_path / "old.pt2").write_text("old")
    export_model(small, tmp_path / "old.pt2", form="torch-export")
    assert (tmp_path / "old.pt2").read_text() == "32"
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"expected a new path; received a folder\. Give another name"):
        export_model(small, tmp_path / "folder", form="savedmodel")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, small: Model, writer: Writer) -> None:
    for form in FORMS:
        if form == "onnx":
            pytest.importorskip("onnx")
        with pytest.raises(DataError, match=r"nowhere.*expected a writable place"):
            export_model(small, tmp_path / "nowhere" / "program", form=form)


def test_an_unknown_form_names_those_that_there_are(tmp_path: Path, small: Model) -> None:
    with pytest.raises(ConfigurationError, match="form must be one of onnx, savedmodel, torch-export"):
        export_model(small, tmp_path / "network", form="coreml")


def test_an_engine_that_does_not_know_a_form_says_which_it_knows(
    tmp_path: Path, small: Model, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.exports = ("savedmodel",)
    with pytest.raises(BackendError, match=r"Backend 'fake' does not write 'torch-export'\. It writes: savedmodel"):
        export_model(small, tmp_path / "network", form="torch-export")
    monkeypatch.setattr("ptycho_core.models.export.load_engine", lambda backend: FakeEngine())
    with pytest.raises(BackendError, match="It writes: none"):
        export_model(small, tmp_path / "network", form="savedmodel", backend="fake")


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    with making(tmp_path / "folder") as made:
        (made / "inner").mkdir(parents=True)
        (made / "inner" / "file").write_text("x")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# -- amplitude and phase of one frame ------------------------------------------------------------------------------


def run_frames(path: Path, frames: Any) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (maps,) = session.run([AMPLITUDE_AND_PHASE], {AMPLITUDE: frames.astype(np.float32)})
    return maps


def test_frames_become_amplitude_and_phase(tmp_path: Path, small: Model) -> None:
    pytest.importorskip("onnx")
    path = export_model(small, tmp_path / "network.onnx", layout=AMPLITUDE_PHASE)
    case = make_case(**CASES["short"])
    patches = np.moveaxis(build_reference(case).predict(case.batch), -1, 1)
    maps = run_frames(path, np.moveaxis(case.batch.diffraction_amplitude, -1, 1))
    assert maps.shape == (len(patches), 2, 32, 32)
    assert_field_close(maps[:, :1] * np.exp(1j * maps[:, 1:]), patches, 2e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_a_canvas_of_one_frame_is_lit_as_in_training(tmp_path: Path, masked: bool) -> None:
    """Bad pixels are those below 0."""
    pytest.importorskip("onnx")
    case = make_case(**{**CASES["canvas"], "group_size": 1, "held_out_frames": 0, "probe_mask": masked})
    turning = {"block1/head/bias": np.float32([-1.5, 0])}  # by about half a turn
    case = attrs.evolve(case, weights={**case.weights, PROBE: case.illumination.pairs, **turning})
    path = export_model(model_of(case), tmp_path / "network.onnx", layout=AMPLITUDE_PHASE)
    batch = attrs.evolve(case.batch, canvas_padding_px=0)
    frames = np.where(batch.bad_pixels, -1, np.moveaxis(batch.diffraction_amplitude, -1, 1))
    maps = run_frames(path, frames)
    expected = np.moveaxis(build_reference(case).predict(batch), -1, 1)
    assert_field_close(maps[:, :1] * np.exp(1j * maps[:, 1:]), expected, 1e-5)
    assert {-2, 1} <= set(np.floor(np.angle(expected) / (np.pi / 2)).ravel())  # quadrants, below and above


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        (
            "merged",
            {"layout": AMPLITUDE_PHASE},
            r"layout must be nchw-amp-phase with one frame in a group.*groups of 4",
        ),
        ("short", {"layout": "nhwc"}, r"layout must be one of channels-last, nchw-amp-phase"),
        ("short", {"layout": AMPLITUDE_PHASE, "form": "savedmodel"}, r"layout must be channels-last.*Only onnx has"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, case: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        export_model(model_of(named_case(case)), tmp_path / "program.onnx", **options)
    assert not list(tmp_path.iterdir())
