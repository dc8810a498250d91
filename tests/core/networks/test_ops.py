"""What an op says of itself is what layers, tables and the specification go by."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import BackendError, ConfigurationError
from ptycho_core.networks import ops, registry
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.ops import check_output, op_function, op_named, register_op, registered_ops
from ptycho_core.networks.registry import build_table, register_architecture
from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.settings.model import ModelConfig

SPEC = Path(__file__).parents[3] / "specs" / "model.md"


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(ops, "_OPS", dict(ops._OPS))
    monkeypatch.setattr(registry.ARCHITECTURES, "_registered", dict(registry.ARCHITECTURES._registered))


def test_the_specification_lists_every_op_with_its_meaning() -> None:
    section = SPEC.read_text(encoding="utf-8").split("\n## Layers\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.MULTILINE))
    assert rows == {name: op_named(name).meaning for name in registered_ops() if not op_named(name).functions}


def test_an_op_of_ones_own_brings_parameters_channels_and_size() -> None:
    register_op(
        "mix",
        "two inputs, mixed",
        inputs=2,
        settings={"side": 3, "factor": float},
        parameters=lambda layer: {
            "kernel": (layer.settings["side"], 1, sum(layer.in_channels), layer.out_channels),
            "gain": (layer.out_channels,),
        },
        initial={"gain": 2.5},
        out_channels=lambda layer: 2 * layer.in_channels[1],
        size=lambda size, layer: size + 1,
    )
    table = TableBuilder(3)
    narrow = table.conv("narrow", INPUT, 2)
    table.op("y", "mix", INPUT, narrow, factor=0.5)
    table.op("z", "mix", INPUT, narrow, factor=0.5, shares="y")
    whole = table.finish(amplitude="y", phase="z")
    y, z = whole.layers[1:]
    assert y.parameters == {"y/kernel": (3, 1, 5, 4), "y/gain": (4,)}
    assert (y.in_channels, y.out_channels, y.settings) == ((3, 2), 4, {"side": 3, "factor": 0.5})
    assert z.parameters == {}
    assert z.uses == {"kernel": "y/kernel", "gain": "y/gain"}
    assert whole.sizes(16) == {INPUT: 16, "narrow": 16, "y": 17, "z": 17}
    weights = initial_weights(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(weights["y/gain"], np.full(4, 2.5, np.float32))
    assert 0 < np.abs(weights["y/kernel"]).max() <= np.sqrt(6 / (3 * (5 + 4)))


def test_a_name_is_taken_by_another_and_the_same_functions_run_again_replace_themselves() -> None:
    for replace in (False, True):
        with pytest.raises(ConfigurationError, match="op 'conv': registered already"):
            register_op("conv", "another", replace=replace)

    def define(factor: float) -> None:
        def times(x: Any) -> Any:
            return factor * x

        register_op("times", "a product", torch=times)

    define(2.0)
    define(3.0)
    table = TableBuilder(1)
    table.op("y", "times", INPUT)
    (layer,) = table.finish(amplitude="y", phase="y").layers
    assert op_function(layer, "torch", {})(1) == 3.0
    with pytest.raises(ConfigurationError, match="or pass replace=True"):
        register_op("times", "another", torch=abs)
    register_op("times", "another", torch=abs, replace=True)
    assert op_function(layer, "torch", {})(-4) == 4


@pytest.mark.parametrize("function", [3, "my_package.ops", ("module", "name")])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(ValueError, match="op 'mix': torch: expected a function or 'module:function'; received"):
        register_op("mix", "nothing", torch=function)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("y", "wavelet", INPUT), {}, "unknown op 'wavelet'; registered ops: conv, max_pool"),
        (("y", "upsample", "before"), {}, r"layer 'y': expected inputs that are earlier layers; received \['before'\]"),
        (("x", "upsample", INPUT), {}, "layer 'x': expected a name of its own; received that of an earlier layer"),
        (("y", "add", INPUT), {}, r"layer 'y': expected 2 input\(s\) of 'add'; received 1"),
        (("y", "pad", INPUT), {}, "layer 'y': expected the settings width of 'pad'; received none"),
        (("y", "pad", INPUT), {"width": 2, "depth": 1}, "layer 'y': expected the settings width of 'pad'"),
        (("y", "pad", INPUT), {"width": 2.5}, "layer 'y': expected width = a whole number; received 2.5"),
        (("y", "scale", INPUT), {"factor": "2"}, "layer 'y': expected factor = a number; received '2'"),
        (("y", "activate", INPUT), {"activation": 1}, "layer 'y': expected activation = text; received 1"),
        (("y", "upsample", INPUT), {"out_channels": 3}, "'y': expected no out_channels for 'upsample'; received 3"),
        (("y", "conv", INPUT), {}, "layer 'y': expected out_channels for 'conv'; received none"),
        (("y", "conv", INPUT), {"out_channels": 3, "shares": "x"}, "layer 'y': expected shares = an earlier conv"),
    ],
)  # fmt: skip
def test_a_layer_that_is_not_as_its_op_says_is_refused(
    arguments: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    table = TableBuilder(3)
    table.conv("x", INPUT, 4)
    with pytest.raises(ValueError, match=message):
        table.op(*arguments, **settings)


def test_a_whole_number_is_taken_where_a_number_is_meant() -> None:
    table = TableBuilder(3)
    table.scale("y", INPUT, 2)
    assert table.finish(amplitude="y", phase="y").layers[0].settings == {"factor": 2}


def test_an_engine_without_the_op_names_op_layer_engine_and_remedy() -> None:
    register_op("mix", "nothing", torch=lambda x: x)
    table = TableBuilder(3)
    table.op("trunk/y", "mix", INPUT)
    (layer,) = table.finish(amplitude="trunk/y", phase="trunk/y").layers
    with pytest.raises(BackendError) as caught:
        op_function(layer, "abacus", {})
    assert str(caught.value) == (
        "layer 'trunk/y': op 'mix': expected a function for 'abacus'; received functions for torch. "
        "Register it with one, register_op('mix', …, abacus=…), or choose another engine."
    )
    assert op_function(layer, "torch", {})(5) == 5
    assert op_function(layer, "abacus", {"mix": abs}) is abs


def test_an_op_that_fails_or_gives_other_maps_than_it_says_names_its_layer() -> None:
    def failing(x: Any) -> Any:
        raise RuntimeError("out of ideas")

    register_op("failing", "nothing", torch=failing, abacus="nowhere:function", size=lambda size, layer: 2 * size)
    table = TableBuilder(3)
    table.op("y", "failing", INPUT)
    (layer,) = table.finish(amplitude="y", phase="y").layers
    for engine, words in (
        ("torch", r"RuntimeError: out of ideas \(test_ops\.py, line \d+\)"),
        ("abacus", "ModuleNotFoundError: No module named 'nowhere'"),
    ):
        with pytest.raises(ConfigurationError, match=f"layer 'y': op 'failing': .*{words}"):
            op_function(layer, engine, {})(0)
    check_output(layer, (2, 3, 8, 8), np.zeros((2, 3, 16, 16)), channels_at=1)
    check_output(layer, (2, 8, 8, 3), np.zeros((2, 16, 16, 3)), channels_at=3)
    for output, words in ((np.zeros((2, 3, 8, 8)), r"received an array of \(2, 3, 8, 8\)"), (3.0, "received float")):
        with pytest.raises(ConfigurationError, match=rf"expected an array of \(2, 3, 16, 16\); {words}"):
            check_output(layer, (2, 3, 8, 8), output, channels_at=1)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda model: {}["key"], r"received KeyError: 'key' \(test_ops\.py, line \d+\)"),
        (lambda model: {}, "received dict"),
    ],
)
def test_a_function_of_a_network_that_fails_or_gives_no_table_is_one_line(made: Any, words: str) -> None:
    register_architecture("wrong")(made)
    with pytest.raises(ConfigurationError, match="architecture 'wrong': .*" + words):
        build_table(ModelConfig(N=32, architecture="wrong"))


def architecture(amplitude: str) -> ModelConfig:
    """A network whose amplitude is the layer of that name, and whose phase is right."""

    @register_architecture("odd")
    def odd(model: ModelConfig) -> Table:
        table = TableBuilder(1)
        table.max_pool("small", table.conv("many", INPUT, 3))
        table.conv("right", INPUT, 1)
        return table.finish(amplitude=amplitude, phase="right")

    return ModelConfig(N=32, architecture="odd")


@pytest.mark.parametrize(
    ("amplitude", "received"),
    [("many", "3 of 32 × 32"), ("small", "3 of 16 × 16"), ("elsewhere", "no layer 'elsewhere'")],
)
def test_a_table_that_gives_other_maps_than_patches_is_refused(amplitude: str, received: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_table(architecture(amplitude))
    assert str(caught.value) == (
        f"architecture 'odd': amplitude must be 1 map(s) of 32 × 32; got {received}. "
        "Correct the function that makes its table."
    )


def test_a_table_that_gives_patches_is_taken() -> None:
    assert build_table(architecture("right")).amplitude == "right"
