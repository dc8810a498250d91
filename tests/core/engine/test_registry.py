"""Engines are found by entry point, imported when asked for, and named with a remedy where they are not there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine import protocol, registry
from ptycho_core.engine.checks import check_model_weights, check_weights, network_weights, trainable_names
from ptycho_core.engine.protocol import Engine, EngineInfo, Network
from ptycho_core.engine.registry import find_engine, is_installed, load_engine, registered_engines, resolve_backend
from ptycho_core.errors import ArchiveError, BackendError
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY, PROBE
from tests.core.plugins import entry_point
from tests.networks import cnn

Register = Callable[..., None]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`without("torch")` makes a framework impossible to find, here and in our engine of that name."""

    def hide(*frameworks: str) -> None:
        for framework in frameworks:
            for name in list(sys.modules):
                if name == f"engines.{framework}" or name.startswith(f"engines.{framework}."):
                    monkeypatch.delitem(sys.modules, name)
            monkeypatch.setitem(sys.modules, framework, None)

    return hide


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`installed("torch")` makes these engines' frameworks seem to be there, and no other's."""

    def pretend(*names: str) -> None:
        monkeypatch.setattr(registry, "is_installed", lambda name: name in names)

    return pretend


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Register:
    """`register(jax="code")` puts modules with that code in the place of all registered engines."""

    def replace(**engines: str) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        points = []
        for name, code in engines.items():
            module = f"{tmp_path.name}_{name}"
            (tmp_path / f"{module}.py").write_text(code)
            monkeypatch.delitem(sys.modules, module, raising=False)
            points.append(entry_point(name, f"{module}:Engine", registry.ENGINES.group))
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
        monkeypatch.setattr(registry.ENGINES, "_warned", set())

    return replace


WORKING = (
    """
class Engine:
    name = 'working'
    describe = build = start_solver = build_image_network = lambda self: None
"""
    + f"    protocol = {protocol.PROTOCOL}\n"
)


# -- names ---------------------------------------------------------------------------------------------------------


def test_both_engines_are_registered_in_order() -> None:
    assert registered_engines() == ("tensorflow", "torch")
    assert {point.name: point.value for point in entry_points(group="ptycho_core.engines")} == {
        "tensorflow": "ptycho_core_tensorflow:TensorFlowEngine",
        "torch": "ptycho_core_torch:TorchEngine",
    }
    assert all(registry.ENGINES.is_ours(name) for name in ("tensorflow", "torch"))


def test_an_unknown_backend_lists_the_registered_ones() -> None:
    with pytest.raises(BackendError) as caught:
        load_engine("pytorchh")
    assert (
        str(caught.value)
        == "Unknown backend 'pytorchh'. Registered backends: tensorflow, torch. Did you mean 'pytorch'?"
    )


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("pytorch", "torch"),
        ("torch", "torch"),
        ("tensorflow", "tensorflow"),
        ("PyTorch", "torch"),
        ("TENSORFLOW", "tensorflow"),
    ],
)
def test_spellings_of_a_backend(spelling: str, name: str) -> None:
    assert resolve_backend(spelling) == name


@pytest.mark.parametrize("spelling", ["torch ", "TENSORFLOWS", "", "cpu"])
def test_a_backend_is_not_guessed(spelling: str) -> None:
    with pytest.raises(BackendError, match=f"Unknown backend {spelling!r}"):
        resolve_backend(spelling)


def test_an_engine_of_another_package_is_listed_and_loaded(register: Register) -> None:
    register(jax=WORKING, torch="raise AssertionError('not asked for')")
    assert registered_engines() == ("jax", "torch")
    assert load_engine("jax").name == "working"
    with pytest.raises(BackendError, match=r"Registered backends: jax, torch\.$"):
        load_engine("tensorflow")


def test_listing_engines_imports_none_of_them(register: Register) -> None:
    register(jax="raise AssertionError('imported')")
    assert registered_engines() == ("jax",)
    assert is_installed("jax")
    assert resolve_backend("jax") == "jax"
    find_engine("jax")


# -- absence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "name", "title"),
    [("torch", "torch", "PyTorch"), ("pytorch", "torch", "PyTorch"), ("tensorflow",) * 2 + ("TensorFlow",)],
)
def test_a_framework_that_is_not_installed_is_named_with_the_remedy(
    without: Callable[..., None], backend: str, name: str, title: str
) -> None:
    without(name)
    with pytest.raises(BackendError) as caught:
        load_engine(backend)
    assert str(caught.value) == (
        f"{title} backend selected, but the '{name}' package is not installed. "
        f"Install it with: pip install 'ptycho-core[{name}]'"
    )
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_a_framework_that_cannot_be_found_is_not_installed(without: Callable[..., None], name: str) -> None:
    without(name)
    assert not is_installed(name)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import a_package_that_is_not_there", ModuleNotFoundError),
        ("import torch.a_part_that_is_not_there", ModuleNotFoundError),
        ("from os import a_name_that_is_not_there", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("raise OSError('libcudart.so: cannot open shared object file')", OSError),
        ("class Engine:\n    def __init__(self):\n        raise ValueError('no device')", ValueError),
    ],
    ids=["another-package", "part-of-the-framework", "name", "bug", "library", "construction"],
)
def test_any_other_failure_of_an_engine_passes_through(
    register: Register, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))  # a framework that is there
    register(torch=code)
    with pytest.raises(error) as caught:
        load_engine("torch")
    assert not isinstance(caught.value, BackendError)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import torch_like_package", "ModuleNotFoundError: No module named 'torch_like_package'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("class Engine:\n    def __init__(self):\n        raise ValueError('no device')", "ValueError: no device"),
        ("", "AttributeError: "),
    ],
)
def test_a_broken_engine_of_another_package_is_an_error_with_the_reason(
    register: Register, code: str, reason: str
) -> None:
    register(jax=code)
    with pytest.raises(BackendError) as caught:
        load_engine("jax")
    assert str(caught.value).startswith(f"engine 'jax' of other-package 1.2: it cannot be imported: {reason}")
    assert str(caught.value).endswith(". Update it, or uninstall it.")
    assert caught.value.setting == "backend" and caught.value.__cause__ is not None


def test_an_engine_of_another_package_may_say_itself_what_it_lacks(register: Register) -> None:
    register(jax="from ptycho_core.errors import BackendError\ndef Engine():\n    raise BackendError('Buy a GPU.')\n")
    with pytest.raises(BackendError, match=r"^Buy a GPU\.$"):
        load_engine("jax")


def test_a_broken_engine_leaves_the_others_as_they_are(register: Register, core_log: pytest.LogCaptureFixture) -> None:
    described = "class Engine:\n    name, build, start_solver, build_image_network = 'sound', print, print, print\n"
    described += "    def describe(self):\n        from ptycho_core.engine.protocol import EngineInfo\n"
    described += "        return EngineInfo('sound', 'none', '1', ('cpu',), ('32-true',))\n"
    described += f"    protocol = {protocol.PROTOCOL}\n"
    register(jax="1 / 0", sound=described)
    assert load_engine("sound").name == "sound"
    assert core_log.messages == []
    for _ in range(2):
        facts = registry.engine_facts()
        assert facts["sound"]["framework"] == "none"
        assert facts["jax"]["framework"] == "broken" and "division by zero" in facts["jax"]["error"]
    (message,) = core_log.messages
    assert "engine 'jax' of other-package 1.2: it cannot be imported: ZeroDivisionError" in message


# -- the protocol --------------------------------------------------------------------------------------------------


def test_an_engine_of_an_older_protocol_is_told_what_has_changed(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PROTOCOL", 4)
    monkeypatch.setattr(protocol, "CHANGES", {2: ("an old thing",), 3: ("batches are turned",), 4: ("a", "b")})
    old = "class Engine:\n    name = 'working'\n"
    register(jax=old + "    protocol = 2\n", older=old, newer=old + "    protocol = 5\n")
    with pytest.raises(BackendError) as caught:
        load_engine("jax")
    assert str(caught.value) == (
        "engine 'working': expected protocol 4; received protocol 2. "
        "Update it, or let its author know what has changed: batches are turned; a; b."
    )
    with pytest.raises(BackendError, match=r"received protocol 1.* an old thing; batches are turned; a; b"):
        load_engine("older")
    with pytest.raises(BackendError, match=r"received protocol 5\. Update ptycho-core"):
        load_engine("newer")


def test_an_engine_that_lacks_a_method_names_it(register: Register) -> None:
    register(jax=f"class Engine:\n    name, protocol, describe = 'jax', {protocol.PROTOCOL}, print\n")
    with pytest.raises(
        BackendError,
        match=r"engine 'jax': expected .*; received an engine without build, start_solver, build_image_network",
    ):
        load_engine("jax")


def test_no_engine_stands_in_for_another(register: Register, without: Callable[..., None]) -> None:
    without("torch")
    register(tensorflow=WORKING, torch="import torch")
    with pytest.raises(BackendError, match="PyTorch backend selected"):
        load_engine("torch")


# -- auto ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "chosen"),
    [(("torch",), "torch"), (("tensorflow",), "tensorflow"), (("torch", "tensorflow"), "tensorflow")],
)
def test_auto_takes_the_only_one_or_tensorflow_and_says_so_when_it_is_loaded(
    register: Register,
    installed: Callable[..., None],
    core_log: pytest.LogCaptureFixture,
    there: tuple[str, ...],
    chosen: str,
) -> None:
    register(torch=WORKING, tensorflow=WORKING)
    installed(*there)
    assert resolve_backend() == chosen
    load = find_engine("auto")
    assert core_log.messages == []
    assert load().name == "working"
    assert core_log.messages == [f"backend: {chosen} (auto; installed: {', '.join(sorted(there))})"]


def test_auto_takes_ours_before_another_package(register: Register, installed: Callable[..., None]) -> None:
    register(jax=WORKING, torch=WORKING)
    installed("jax", "torch")
    assert resolve_backend("auto") == "torch"
    installed("jax")
    assert resolve_backend("auto") == "jax"


def test_auto_without_any_engine_says_how_to_get_one(installed: Callable[..., None]) -> None:
    installed()
    with pytest.raises(BackendError, match="No engine is installed") as caught:
        load_engine("auto")
    assert "pip install 'ptycho-core[torch]'" in str(caught.value)
    assert "ptycho-core[tensorflow]'" in str(caught.value)


def test_a_backend_that_was_asked_for_is_not_logged_as_a_choice(
    register: Register, installed: Callable[..., None], core_log: pytest.LogCaptureFixture
) -> None:
    register(torch=WORKING)
    installed("torch")
    load_engine("torch")
    assert core_log.messages == []


# -- the door ------------------------------------------------------------------------------------------------------


def test_the_fake_engine_of_these_tests_fits_the_protocols(fake_engine: Any) -> None:
    assert isinstance(fake_engine, Engine)
    assert isinstance(fake_engine.build(cnn(), None, {}, None), Network)


def test_an_engines_description_survives_json() -> None:
    info = EngineInfo("torch", "PyTorch", "2.4", ("cuda", "cpu"), ("32-true",))
    plain = {
        "name": "torch",
        "framework": "PyTorch",
        "version": "2.4",
        "devices": ["cuda", "cpu"],
        "precisions": ["32-true"],
    }
    assert EngineInfo.from_mapping(plain) == info
    with pytest.raises(KeyError, match="framework"):
        EngineInfo.from_mapping({"name": "torch", "devices": [], "precisions": []})


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_what_is_trained_is_in_the_order_of_the_table_then_probe_then_scale(probe: bool, scale: bool) -> None:
    table = build_table(cnn(N=32))
    names = trainable_names(table, TrainingConfig(probe_trainable=probe, intensity_scale_trainable=scale))
    assert names == (*table.parameters, *[PROBE] * probe, *[LOG_SCALE] * scale)


def test_nothing_is_trained_for_prediction() -> None:
    assert trainable_names(build_table(cnn(N=32)), None) == ()


def weights_of(table: Any) -> dict[str, Any]:
    scalars = dict.fromkeys((LOG_SCALE, INPUT_SCALE, MEAN_INTENSITY, COUNTS_PER_INTENSITY), np.float32(1))
    return {**initial_weights(table, np.random.default_rng(0)), PROBE: np.ones((2, 32, 32, 2)), **scalars}


@pytest.mark.parametrize("refined", [False, True])
def test_a_networks_weights_are_its_layers_the_log_scale_and_a_probe_that_is_refined(refined: bool) -> None:
    table = build_table(cnn(N=32, n_filters_scale=1))
    training, whole = TrainingConfig(probe_trainable=refined), weights_of(table)
    chosen = network_weights(table, training, whole)
    assert set(chosen) == {*table.parameters, LOG_SCALE, *([PROBE] if refined else [])}
    check_weights(table, training, chosen, 32)
    with pytest.raises(ArchiveError, match="missing" if refined else "unexpected"):
        check_weights(table, TrainingConfig(probe_trainable=not refined), chosen, 32)
    if refined:
        with pytest.raises(ArchiveError, match=r"probe/field: expected shape \(3, 32, 32, 2\); received \(2, 32, 32"):
            check_weights(table, training, chosen, 32, modes=3)


def test_weights_that_fit_are_let_through() -> None:
    table = build_table(cnn(N=32, n_filters_scale=1))
    check_model_weights(table, weights_of(table), 32)


def test_weights_of_another_configuration_list_the_differences() -> None:
    table = build_table(cnn(N=32, n_filters_scale=1, probe_big=False))
    other = build_table(cnn(N=32, n_filters_scale=1))
    surplus = sorted(set(other.parameters) - set(table.parameters))
    with pytest.raises(ArchiveError) as caught:
        check_model_weights(table, weights_of(other), 32)
    assert str(caught.value) == f"weights: missing []; unexpected {surplus}; they are for another configuration"


def test_weights_of_another_shape_are_named() -> None:
    table = build_table(cnn(N=32, n_filters_scale=1))
    weights = weights_of(table) | {"phase/head/conv/bias": np.ones(4)}
    with pytest.raises(ArchiveError, match=r"phase/head/conv/bias: expected shape \(1,\); received \(4,\)"):
        check_model_weights(table, weights, 32)
