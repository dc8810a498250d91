"""Every op, ours and one from outside the package, gives the reference's value and gradient on every engine."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import BackendError
from ptycho_core.networks import ops
from ptycho_core.networks.ops import register_op, registered_ops
from ptycho_core.networks.registry import build_table, register_architecture
from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.settings.model import ModelConfig
from tests.contract.cases import (
    FORWARD_RTOL,
    GRADIENT_RTOL,
    Case,
    assert_arrays_close,
    assert_field_close,
    assert_terms_close,
    build,
    build_reference,
    make_case,
)
from tests.examples import load_example

load_example("own_op_and_network")  # it registers "leaky"

USES: dict[str, Callable[[TableBuilder, str], str]] = {
    "conv": lambda table, x: table.conv("y", x, 3, "swish", kernel_size=5),
    "max_pool": lambda table, x: table.upsample("up", table.max_pool("y", x)),
    "upsample": lambda table, x: table.max_pool("down", table.conv("between", table.upsample("y", x), 3, "tanh")),
    "channels": lambda table, x: table.channels("y", x, 1, 3),
    "pad": lambda table, x: table.pad("y", table.max_pool("down", x), 8),
    "outside_centre": lambda table, x: table.outside_centre("y", x),
    "add": lambda table, x: table.add("y", x, table.conv("other", x, 4, "tanh")),
    "concat": lambda table, x: table.concat("y", x, table.conv("other", x, 2, "tanh")),
    "scale": lambda table, x: table.scale("y", x, -0.7),
    "activate": lambda table, x: table.activate("y", x, "softplus"),
    "global_mean": lambda table, x: table.multiply("gated", x, table.global_mean("y", x)),
    "global_max": lambda table, x: table.multiply("gated", x, table.global_max("y", x)),
    "channel_max_mean": lambda table, x: table.channel_max_mean("y", x),
    "channel_conv": lambda table, x: table.eca("gated", x),
    "multiply": lambda table, x: table.multiply("y", x, table.conv("gate", x, 1, "sigmoid")),
    "transposed_conv": lambda table, x: table.transposed_conv(
        "y", table.conv("down", x, 5, "gelu", stride=2, padding="reflect"), 3, "tanh"
    ),
    "spectral_conv": lambda table, x: table.spectral_conv(
        "y", table.conv("down", x, 5, "tanh", stride=2), 3, 3, scale=2
    ),
    "factorised_spectral_conv": lambda table, x: table.factorised_spectral_conv("y", x, 3, 5),
    "instance_norm": lambda table, x: table.instance_norm("y", table.conv("down", x, 3, "gelu", padding="reflect")),
    "gain": lambda table, x: table.gain("y", x, 0.6),
    "coordinates": lambda table, x: table.coordinates("y", x),
    "leaky": lambda table, x: table.op("y", "leaky", x, slope=0.3),
}
"""Every op at work between two convolutions: of x, four channels of 32 × 32, to any number of channels of that size."""
ON_A_CANVAS = ("warm_sweeps", "data_step", "in_gauge", "correct")
"""Ops of the physics, at work together."""


@register_architecture("one op")
def one_op(model: ModelConfig) -> Table:
    """The op is told by n_filters_scale, its place in USES."""
    table = TableBuilder(1)
    y = list(USES.values())[model.n_filters_scale - 1](table, table.conv("before", INPUT, 4, "tanh"))
    return table.finish(amplitude=table.conv("amplitude", y, 1, "sigmoid"), phase=table.conv("phase", y, 1, "tanh"))


@register_architecture("canvas ops")
def canvas_ops(model: ModelConfig) -> Table:
    """Two data steps, so that a gradient goes through one to what comes before it; sweeps end it."""
    table = TableBuilder(2)
    first = table.data_step("first", INPUT)
    maps = table.conv("maps", table.in_gauge("view", first), 2, "tanh")
    second = table.data_step("second", table.correct("corrected", first, maps))
    change = table.conv("change", table.in_gauge("second/view", second), 2, "tanh")
    swept = table.warm_sweeps("swept", table.channels("canvas", second, 0, 2), 3)
    return table.finish(canvas=table.add("sum", swept, table.correct("again", second, change)))


def case_of(op: str) -> Case:
    if op in ON_A_CANVAS:
        return make_case(architecture="canvas ops", N=16, modes=2, bad_pixels=True, held_out_frames=1)
    return make_case(architecture="one op", n_filters_scale=list(USES).index(op) + 1, gridsize=1)


def test_every_registered_op_is_tested() -> None:
    alone = {"torch_module", "keras_model"}  # tests/parity/test_own_networks.py
    assert {*USES, *ON_A_CANVAS} == set(registered_ops()) - alone


@pytest.mark.parametrize("op", [*USES, ON_A_CANVAS[0]])
def test_an_op_has_the_value_and_the_gradient_of_the_reference(engine: Engine, op: str) -> None:
    case = case_of(op)
    assert op in {layer.op for layer in build_table(case.model).layers}
    if op in ON_A_CANVAS:
        assert {layer.op for layer in build_table(case.model).layers} >= set(ON_A_CANVAS)
    network, reference = build(engine, case), build_reference(case)
    assert_field_close(network.predict(case.batch), reference.predict(case.batch), 1.2e-7, "patches")
    assert_terms_close(network.evaluate([case.batch]), reference.evaluate([case.batch]), FORWARD_RTOL["64-true"])
    gradients = network.gradients(case.batch)
    assert all(np.any(gradient) for gradient in gradients.values())
    assert_arrays_close(gradients, reference.gradients(case.batch), GRADIENT_RTOL["64-true"], "gradients")


def test_an_op_that_an_engine_lacks_is_refused_when_a_network_is_built(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "_OPS", dict(ops._OPS))
    case = case_of("leaky")
    known = ops._OPS["leaky"]
    others = {name: function for name, function in known.functions.items() if name != engine.name}
    ops._OPS["leaky"] = attrs.evolve(known, functions=others)
    with pytest.raises(BackendError, match=rf"layer 'y': op 'leaky': .*'{engine.name}'.*{engine.name}=…"):
        build(engine, case)


def test_a_function_can_be_named_in_place_of_being_given(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported when a network needs it."""
    monkeypatch.setattr(ops, "_OPS", dict(ops._OPS))
    known = ops._OPS.pop("leaky")
    register_op(
        "leaky",
        known.meaning,
        settings=known.settings,
        parameters=known.parameters,
        **{name: f"own_op_and_network:{function.__name__}" for name, function in known.functions.items()},  # type: ignore[arg-type, union-attr]
    )
    case = case_of("leaky")
    patches = build(ReferenceEngine(), case).predict(case.batch)
    assert_field_close(build(engine, case).predict(case.batch), patches, 1.2e-7, "patches")
