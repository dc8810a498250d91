"""A model comes back from its archive as it was, and whatever is not a whole archive of ours is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core import architecture, archive
from ptycho_core.architecture import Table, TableBuilder, build_table, initial_weights, network_channels
from ptycho_core.archive import ARCHIVE_NAME, MANIFEST, Model, load_model
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.contracts import Scan
from ptycho_core.engine import EngineInfo
from ptycho_core.errors import ArchiveError, DataError
from ptycho_core.physics import INPUT_SCALE, LOG_SCALE, PROBE, calibrated_probe, measure_scale

MEMBERS = ("config.json", "params.json", "weights.safetensors", "history.csv")
ENGINE = EngineInfo("fake", "no framework", "1.0", ("cuda", "cpu"), ("32-true",))


@pytest.fixture(autouse=True, scope="module")
def tiny_architecture() -> Iterator[None]:
    """Two convolutions, so that an archive takes a few kilobytes."""

    @architecture.register_architecture("tiny")
    def tiny(model: ModelConfig) -> Table:
        table = TableBuilder(network_channels(model))
        x = table.conv("trunk", "input", model.n_filters_scale)
        return table.finish(amplitude=table.conv("a", x, 1, "sigmoid"), phase=table.conv("p", x, 1, "tanh"))

    yield
    del architecture._ARCHITECTURES["tiny"]


def tiny_model(seed: int = 0, *, scale: int = 1, modes: int = 1, gridsize: int = 1, **training: Any) -> Model:
    rng = np.random.default_rng(seed)
    config = ModelConfig(N=16, n_filters_scale=scale, gridsize=gridsize, architecture="tiny")
    scan = Scan(
        diffraction_amplitude=rng.uniform(0, 9, (4, 16, 16)),
        positions_px=rng.uniform(0, 9, (4, 2)),
        probe=rng.normal(size=(modes, 16, 16)) + 1j,
    )
    train = TrainingConfig(model=config, **training)
    measured = measure_scale(scan, train.nphotons).as_weights()
    weights = {
        **initial_weights(build_table(config), rng),
        PROBE: calibrated_probe(scan, "mean"),
        LOG_SCALE: np.array(rng.normal(), np.float32),
        **measured,
    }
    history = [{"epoch": float(epoch), "total": rng.normal(), "seconds": 1 / epoch} for epoch in (1, 2, 3)]
    return Model(config=train, weights=weights, history=history, engine=ENGINE, best_epoch=2)


def assert_same(loaded: Model, saved: Model) -> None:
    assert loaded.config == saved.config
    assert loaded.history == saved.history
    assert (loaded.engine, loaded.best_epoch) == (saved.engine, saved.best_epoch)
    assert set(loaded.weights) == set(saved.weights)
    for name, array in saved.weights.items():
        assert loaded.weights[name].dtype == array.dtype, name
        assert loaded.weights[name].shape == array.shape, name
        np.testing.assert_array_equal(loaded.weights[name], array, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the archive of `tiny_model()`."""
    return tiny_model().save(tmp_path_factory.mktemp("whole")).read_bytes()


@pytest.fixture
def saved(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / ARCHIVE_NAME
    path.write_bytes(whole)
    return path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one archive after the other."""
    return tmp_path_factory.mktemp("damaged") / ARCHIVE_NAME


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as source:
        return {name: source.read(name) for name in source.namelist()}


def rewrite(path: Path, *, trusted: bool = True, **changes: bytes | None) -> None:
    """Replace members, or leave them out where None; `trusted`: with digests that fit, as a forger would."""
    members = members_of(path)
    for name, content in changes.items():
        name = {"manifest": MANIFEST, "config": MEMBERS[0], "weights": MEMBERS[2], "history": MEMBERS[3]}.get(
            name, name
        )
        members[name] = content  # type: ignore[assignment]
    if trusted and "manifest" not in changes:
        manifest = json.loads(members[MANIFEST])
        manifest["sha256"] = {name: hashlib.sha256(members[name] or b"").hexdigest() for name in MEMBERS}
        members[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            if content is not None:
                target.writestr(name, content)


def refusal(path: Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    return message.removeprefix(f"{path}: ")


# -- there and back ------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
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


@settings(max_examples=20, deadline=None)
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
    model = tiny_model()
    model.history[:] = rows
    assert load_model(model.save(tmp_path_factory.getbasetemp() / "history.zip")).history == rows


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


# -- damage --------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 255]))
def test_a_flipped_byte_is_refused_or_makes_no_difference(whole: bytes, damaged: Path, place: float, bits: int) -> None:
    """No difference: dates, attributes and such, which say nothing about the content."""
    content = bytearray(whole)
    content[int(place * len(content))] ^= bits
    damaged.write_bytes(content)
    with contextlib.suppress(ArchiveError):
        assert_same(load_model(damaged), tiny_model())


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from((MANIFEST, *MEMBERS)), bits=st.integers(1, 255))
def test_a_flipped_byte_in_a_member_is_refused(
    whole: bytes, damaged: Path, data: st.DataObject, name: str, bits: int
) -> None:
    damaged.write_bytes(whole)
    member = members_of(damaged)[name]
    place = whole.index(member) + data.draw(st.integers(0, len(member) - 1))
    damaged.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
    refusal(damaged)


@settings(max_examples=40, deadline=None)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_refused(whole: bytes, damaged: Path, kept: float) -> None:
    damaged.write_bytes(whole[: int(kept * len(whole))])
    assert "copy or train it again" in refusal(damaged)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_was_changed_and_packed_again_is_refused_by_name(saved: Path, name: str) -> None:
    content = members_of(saved)[name]
    rewrite(saved, trusted=False, **{name: content + b" "})
    stated, received = (hashlib.sha256(text).hexdigest() for text in (content, content + b" "))
    remedy = "It was changed after it was written: copy it again."
    assert refusal(saved) == f"{name}: expected SHA-256 {stated}; received {received}. {remedy}"


@pytest.mark.parametrize("name", [MANIFEST, *MEMBERS])
def test_a_missing_member_is_refused(saved: Path, name: str) -> None:
    if name == MANIFEST:
        rewrite(saved, manifest=None)
    else:
        rewrite(saved, **{name: None})
    message = refusal(saved)
    assert message.startswith("expected the members manifest.json, config.json, params.json, weights.safetensors")
    assert name not in message.partition("received")[2]


def test_a_surplus_member_is_refused(saved: Path) -> None:
    rewrite(saved, **{"extra.txt": b"hello"})
    assert "extra.txt" in refusal(saved).partition("received")[2]


def test_a_repeated_member_is_refused(saved: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(saved, "a") as target:
        target.writestr("config.json", b"{}")
    assert refusal(saved).startswith("expected the members")


@pytest.mark.parametrize(
    ("offset", "value", "received"),
    [(8, 1, "is encrypted"), (8, 0x20, "compressed patched data"), (10, 99, "method 99"), (10, 14, "method 14")],
    ids=["encrypted", "patched", "unknown-method", "lzma"],
)
def test_a_member_that_cannot_be_unpacked_is_refused(saved: Path, offset: int, value: int, received: str) -> None:
    content = bytearray(saved.read_bytes())
    directory = content.index(b"PK\x01\x02")  # the entry of the manifest
    content[directory + offset] = value
    saved.write_bytes(content)
    assert received in refusal(saved)


def test_a_zip_file_of_a_later_kind_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 250  # version needed to extract: 25.0
    saved.write_bytes(content)
    assert "zip file version 25.0" in refusal(saved)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"not a zip file", b"\x00" * 5000], ids=["empty", "PK", "text", "zeros"]
)
def test_what_is_no_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ARCHIVE_NAME
    path.write_bytes(content)
    assert refusal(path).startswith("expected a readable model archive; received BadZipFile")


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.zip") == (
        "expected a folder with wts.h5.zip, or such a file; received no such file. Check the path."
    )


def test_a_folder_without_an_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file") as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / ARCHIVE_NAME}: ")


def test_a_member_beyond_the_limit_is_refused_before_it_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MEMBER_LIMIT", 2000)
    assert refusal(saved).startswith("weights.safetensors: expected at most 2000 bytes; received")


# -- content that does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value"), [("version", 2), ("version", "1"), ("format", "another model")])
def test_another_format_or_a_later_version_is_refused(saved: Path, key: str, value: Any) -> None:
    manifest = json.loads(members_of(saved)[MANIFEST])
    manifest[key] = value
    rewrite(saved, manifest=json.dumps(manifest).encode())
    message = refusal(saved)
    assert message.startswith("manifest.json: expected 'ptycho-core model', version 1; received")
    assert str(value) in message
    assert message.endswith("Update ptycho-core to read an archive of a later version.")


def forge_weights(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = dict(safetensors.numpy.load(members_of(path)["weights.safetensors"]))
    change(weights)
    rewrite(path, weights=safetensors.numpy.save(weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights["trunk/bias"].fill(np.nan), "weights: trunk/bias: expected finite numbers"),
        (lambda weights: weights[PROBE].fill(np.inf), f"weights: {PROBE}: expected finite numbers"),
        (lambda weights: weights.pop("a/kernel"), "weights: missing ['a/kernel']; unexpected []"),
        (lambda weights: weights.update(extra=np.ones(3)), "weights: missing []; unexpected ['extra']"),
        (
            lambda weights: weights.update({"trunk/bias": np.ones(7)}),
            "weights: trunk/bias: expected shape (1,); received (7,)",
        ),
        (lambda weights: weights.update({LOG_SCALE: np.ones(1)}), f"weights: {LOG_SCALE}: expected shape (); received"),
        (lambda weights: weights.update({PROBE: np.ones((16, 16))}), f"weights: {PROBE}: expected shape"),
        (
            lambda weights: weights.update({PROBE: np.ones((1, 8, 8, 2))}),
            f"weights: {PROBE}: expected shape (None, 16, 16, 2); received (1, 8",
        ),
        (
            lambda weights: weights.update({PROBE: np.ones((0, 16, 16, 2))}),
            f"weights: {PROBE}: expected shape (None, 16, 16, 2); received (0",
        ),
    ],
    ids=["nan", "infinite", "missing", "surplus", "shape", "no-scalar", "flat-probe", "small-probe", "no-mode"],
)
def test_weights_that_do_not_fit_are_refused_by_name(saved: Path, change: Any, message: str) -> None:
    forge_weights(saved, change)
    assert refusal(saved).startswith(message)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "N", 24.5, "ModelConfig.N: expected a whole number; received 24.5"),
        (
            "model",
            "gridsze",
            2,
            "gridsze: expected a field of ModelConfig; received an unknown one. Did you mean 'gridsize'",
        ),
        ("model", "architecture", "unet", "expected a known name; received 'unet'"),
        ("training", "batch_size", 3, "TrainingConfig.batch_size: expected a positive power of two"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_field(
    saved: Path, section: str, key: str, value: Any, message: str
) -> None:
    config = json.loads(members_of(saved)["config.json"])
    config[section][key] = value
    rewrite(saved, config=json.dumps(config).encode())
    assert message in refusal(saved)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["manifest", "config", "weights"]),
    content=st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_any_other_content_is_refused(whole: bytes, damaged: Path, name: str, content: bytes) -> None:
    damaged.write_bytes(whole)
    rewrite(damaged, **{name: content})
    refusal(damaged)


@pytest.mark.parametrize("name", ["manifest", "config"])
def test_json_nested_beyond_reading_is_refused(saved: Path, name: str) -> None:
    rewrite(saved, **{name: b"[" * 100_000})
    assert "RecursionError" in refusal(saved)


# -- pickles -------------------------------------------------------------------------------------------------------


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_the_trap_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301 - that is the point
    assert (tmp_path / "sprung").exists()


def test_a_published_archive_is_named_and_never_unpickled(tmp_path: Path) -> None:
    path, sprung = tmp_path / ARCHIVE_NAME, tmp_path / "sprung"
    with zipfile.ZipFile(path, "w") as target:
        for name in ("manifest.dill", "autoencoder/params.dill", "autoencoder/custom_objects.dill"):
            target.writestr(name, pickle.dumps(Trap(sprung)))
        target.writestr("autoencoder/model.keras", b"")
    message = refusal(path)
    assert "written by the published implementation and holds pickles" in message
    assert "manifest.dill" in message
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["manifest", "config", "weights", "history"])
def test_a_pickle_in_the_place_of_a_member_is_never_unpickled(saved: Path, tmp_path: Path, name: str) -> None:
    rewrite(saved, **{name: pickle.dumps(Trap(tmp_path / "sprung"))})
    refusal(saved)
    assert not (tmp_path / "sprung").exists()


def test_a_numpy_pickle_in_the_place_of_the_weights_is_never_unpickled(saved: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    rewrite(saved, weights=buffer.getvalue())
    refusal(saved)
    assert not (tmp_path / "sprung").exists()


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


def test_an_archive_can_be_read_by_whom_the_umask_lets(saved: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask
