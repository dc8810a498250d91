"""A model comes back from its archive as it was, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.errors import ArchiveError, DataError
from ptycho_core.models.container import MANIFEST
from ptycho_core.models.model import ARCHIVE_NAME, load_model
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.vocabulary import INPUT_SCALE, LOG_SCALE
from tests.core.archives import MEMBERS, assert_same, members_of, rewrite, tiny_model

pytestmark = pytest.mark.usefixtures("tiny_architecture")


# -- there and back ------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.integers(1, 5),
    modes=st.integers(1, 3),
    gridsize=st.integers(1, 2),
    training=st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.sampled_from([1, 8]),
            "learning_rate": st.floats(1e-9, 1),
            "n_subsample": st.none() | st.integers(1, 9),
            "backend": st.sampled_from(["torch", "tensorflow", "ein anderes"]),
            "nphotons": st.floats(1e-3, 1e15),
            "probe_trainable": st.booleans(),
        },
    ),
)
def test_a_model_survives_its_archive(
    tmp_path_factory: pytest.TempPathFactory, seed: int, scale: int, modes: int, gridsize: int, training: dict[str, Any]
) -> None:
    model = tiny_model(seed, scale=scale, modes=modes, gridsize=gridsize, **training)
    assert_same(load_model(model.save(tmp_path_factory.getbasetemp() / "model.zip")), model)


@settings(max_examples=20)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"epoch": st.integers(1, 10**6).map(float), "total": st.floats(allow_nan=False, allow_infinity=False)},
            optional={"validation_total": st.floats(allow_nan=False, allow_infinity=False)},
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_history_survives_to_the_last_digit(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    model = attrs.evolve(tiny_model(), best_epoch=min(2, len(rows)))
    model.history[:] = rows
    assert load_model(model.save(tmp_path_factory.getbasetemp() / "history.zip")).history == rows


def test_terms_that_are_not_finite_and_terms_without_a_value_are_kept(tmp_path: Path) -> None:
    model = tiny_model()
    model.history[:] = [
        {"epoch": 1.0, "total": 0.5, "nll": math.nan},
        {"epoch": 2.0, "total": math.inf, "validation_total": -math.inf},
    ]
    first, second = load_model(model.save(tmp_path)).history
    assert set(first) == {"epoch", "total", "nll"}
    assert math.isnan(first["nll"])
    assert second == model.history[1]


def test_arrays_without_dimensions_keep_their_shape(saved: Path) -> None:
    weights = load_model(saved).weights
    assert {name: weights[name].shape for name in (LOG_SCALE, INPUT_SCALE)} == {LOG_SCALE: (), INPUT_SCALE: ()}


def test_weights_of_either_precision_and_any_order_in_memory_are_kept(tmp_path: Path) -> None:
    model = tiny_model(scale=3)
    model.weights["trunk/kernel"] = np.asfortranarray(model.weights["trunk/kernel"], np.float64)  # type: ignore[index]
    loaded = load_model(model.save(tmp_path)).weights["trunk/kernel"]
    assert loaded.dtype == np.float64
    np.testing.assert_array_equal(loaded, model.weights["trunk/kernel"])


@pytest.mark.parametrize("as_text", [True, False])
def test_a_folder_takes_the_archive_under_its_usual_name(tmp_path: Path, as_text: bool) -> None:
    model, folder = tiny_model(), str(tmp_path) if as_text else tmp_path
    assert model.save(folder) == tmp_path / ARCHIVE_NAME
    assert_same(load_model(folder), model)


def test_a_file_takes_the_archive_as_it_is_called(tmp_path: Path) -> None:
    model = tiny_model()
    assert model.save(tmp_path / "siemens.zip") == tmp_path / "siemens.zip"
    assert_same(load_model(tmp_path / "siemens.zip"), model)
    assert [path.name for path in tmp_path.iterdir()] == ["siemens.zip"]


def test_the_backend_asked_for_is_the_models(saved: Path) -> None:
    assert load_model(saved).backend == "auto"
    assert load_model(saved, backend="torch").backend == "torch"


# -- what is in it -------------------------------------------------------------------------------------------------


def test_members_are_stored_with_the_manifest_first(saved: Path) -> None:
    with zipfile.ZipFile(saved) as source:
        assert source.namelist() == [MANIFEST, *MEMBERS]
        assert {info.compress_type for info in source.infolist()} == {zipfile.ZIP_STORED}


def test_the_manifest_says_what_the_archive_is_and_vouches_for_the_rest(saved: Path) -> None:
    members = members_of(saved)
    manifest = json.loads(members[MANIFEST])
    assert (manifest["format"], manifest["version"]) == ("ptycho-core model", 1)
    assert manifest["models"] == ["autoencoder", "diffraction_to_obj"]
    assert manifest["engine"]["name"] == "fake"
    assert manifest["best_epoch"] == 2
    assert manifest["sha256"] == {name: hashlib.sha256(members[name]).hexdigest() for name in MEMBERS}


@pytest.mark.parametrize("nphotons", [1e9, 5e4])
def test_parameters_hold_the_flat_fields_and_the_intensity_scale(nphotons: float) -> None:
    parameters = tiny_model(nphotons=nphotons).parameters()
    assert parameters["intensity_scale"] == pytest.approx(np.sqrt(nphotons) / (16 / 2), rel=1e-6)
    assert parameters["nphotons"] == pytest.approx(nphotons, rel=1e-6)
    assert (parameters["N"], parameters["batch_size"]) == (16, 16)
    assert "model" not in parameters


def test_the_snapshot_in_the_archive_is_the_models_parameters(saved: Path) -> None:
    assert json.loads(members_of(saved)["params.json"]) == load_model(saved).parameters()


def test_the_history_is_a_table_with_whole_epochs(saved: Path) -> None:
    lines = members_of(saved)["history.csv"].decode().splitlines()
    assert lines[0] == "epoch,total,seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]


# -- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["disk-full", "interrupt"],
)
@pytest.mark.parametrize("failing", ["zipfile.ZipFile.writestr", "os.fsync", "os.replace"])
def test_an_interrupted_save_leaves_the_old_archive_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException, raised: type[BaseException]
) -> None:
    before = saved.read_bytes()

    def fail(*args: Any, **keywords: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(raised):
            tiny_model(seed=1).save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert_same(load_model(saved), tiny_model())


def test_a_save_replaces_the_old_archive(saved: Path) -> None:
    tiny_model(seed=1).save(saved)
    assert_same(load_model(saved), tiny_model(seed=1))


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "model.zip"
    with pytest.raises(ValueError, match=r"nowhere/model\.zip: expected a writable place; received No such file"):
        tiny_model().save(path)


def test_an_archive_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert tiny_model().save(tmp_path).stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_save_is_on_the_disk_before_and_after_it_is_renamed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content first, then the name: the other way round a power cut could leave an empty archive."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", lambda *names: steps.append("renamed") or replace(*names))
    tiny_model().save(saved)
    assert steps == ["file", "renamed", "folder"]


def test_a_folder_that_is_made_for_an_archive_is_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noted_sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_sync)
    tiny_model().save(tmp_path / "a" / "b")
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


READER = """
import sys
from pathlib import Path
from tests.core.archives import register_tiny
from ptycho_core.models.model import load_model

register_tiny()
path, seen = Path(sys.argv[1]), set()
print("ready", flush=True)
while not (path.parent / "done").exists():
    model = load_model(path)  # raises where it is half an archive
    assert model.weights["trunk/kernel"].flat[0] == model.history[0]["total"]
    seen.add(model.best_epoch)
print(len(seen))
"""


def test_a_reader_sees_the_old_or_the_new_archive_while_a_writer_saves(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVE_NAME

    def save(number: int) -> None:
        model = tiny_model(scale=8)
        model.weights["trunk/kernel"].flat[0] = number
        model.history[0]["total"] = float(number)
        rows = model.history * max(1, number)  # as many as there are epochs
        attrs.evolve(model, best_epoch=number, history=rows).save(path)

    save(0)
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(1, 51):
            save(number)
        (tmp_path / "done").touch()
        out, err = reader.communicate(timeout=60)
    assert reader.returncode == 0, err
    assert int(out) > 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": {"data/input_scale": 0.0}}, "input_scale: expected a number > 0; received 0"),
        ({"weights": {"data/mean_intensity": -1.0}}, "mean_intensity: expected a number > 0; received -1"),
        ({"weights": {"probe": 0.0}}, "not all 0; received zeros only"),
        ({"best_epoch": 9}, "best_epoch: expected an epoch of 3; received 9"),
    ],
)
def test_numbers_without_sense_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    model = tiny_model()
    weights = {}
    for name, array in model.weights.items():
        given = next((value for part, value in change.get("weights", {}).items() if name.startswith(part)), None)
        weights[name] = array if given is None else np.full_like(array, given)
    epoch = change.get("best_epoch", model.best_epoch)
    with np.errstate(divide="ignore"):  # the scale of 0
        path = attrs.evolve(model, weights=weights, best_epoch=epoch).save(tmp_path)
    with pytest.raises(ArchiveError) as caught:
        load_model(path)
    assert words in str(caught.value)


def test_an_archive_keeps_pixel_and_reading(tmp_path: Path) -> None:
    reading = ReadOptions(flip_x=True, crop=32)
    model = attrs.evolve(tiny_model(), object_pixel_m=(2e-8, 3e-8), reading=reading)
    model.save(tmp_path / "model.zip")
    again = load_model(tmp_path / "model.zip")
    assert (again.object_pixel_m, again.reading, again.digest) == ((2e-8, 3e-8), reading, model.digest)


def test_an_archive_that_names_no_architecture_is_of_cnn(tmp_path: Path) -> None:
    path = tmp_path / "old.zip"
    path.write_bytes((Path(__file__).parents[2] / "data" / "model-1-cnn.h5.zip").read_bytes())
    tables = json.loads(members_of(path)["config.json"])
    assert tables["model"].pop("architecture") == "cnn"
    whole = load_model(path)
    rewrite(path, config=json.dumps(tables).encode())
    again = load_model(path)
    assert again.config.model.architecture == "cnn"
    assert (again.config, again.digest) == (whole.config, whole.digest)
