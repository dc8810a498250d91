"""The architecture table has the published widths, one canonical name for every array, and reproducible weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks import registry
from ptycho_core.networks.cnn import network_channels
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table, register_architecture
from ptycho_core.networks.table import Table, TableBuilder
from ptycho_core.settings.model import ModelConfig
from tests.contract.cases import ATTENTION
from tests.networks import cnn


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry.ARCHITECTURES, "_registered", dict(registry.ARCHITECTURES._registered))


def size(table: Table) -> int:
    return sum(math.prod(shape) for shape in table.parameters.values())


def widths(table: Table, *prefixes: str) -> list[int]:
    """Output channels of the first convolution of each block whose name begins with a prefix."""
    kernels = [(name, shape) for name, shape in table.parameters.items() if name.endswith("conv0/kernel")]
    return [shape[-1] for prefix in prefixes for name, shape in kernels if name.startswith(prefix)]


def test_the_default_network_has_the_published_number_of_parameters() -> None:
    assert size(build_table(cnn())) == 2_331_772


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(
    ("N", "encoder", "decoder", "outer"),
    [
        (64, [32, 64, 128], [64, 32], 32),
        (128, [16, 32, 64, 128], [128, 64, 32], 16),
        (256, [8, 16, 32, 64, 128], [256, 128, 64, 32], 8),
    ],
)
def test_block_widths(N: int, scale: int, encoder: list[int], decoder: list[int], outer: int) -> None:
    table = build_table(cnn(N=N, n_filters_scale=scale))
    assert widths(table, "encoder") == [scale * width for width in encoder]
    for branch in ("amplitude", "phase"):
        assert widths(table, f"{branch}/block") == [scale * width for width in decoder]
        assert widths(table, f"{branch}/outer") == [scale * outer]


@pytest.mark.parametrize("branch", ["amplitude", "phase"])
def test_the_last_four_channels_make_the_outer_part(branch: str) -> None:
    shapes = build_table(cnn(gridsize=2)).parameters
    assert shapes[f"{branch}/head/conv/kernel"] == (3, 3, 64 - 4, 4)
    assert shapes[f"{branch}/outer/conv0/kernel"] == (3, 3, 4, 64)


def test_without_the_outer_part_its_layers_are_gone_and_four_channels_unused() -> None:
    shapes = build_table(cnn(probe_big=False)).parameters
    assert not [name for name in shapes if "outer" in name]
    assert shapes["phase/head/conv/kernel"] == (3, 3, 60, 1)


def test_without_padding_the_head_upsamples_all_channels() -> None:
    shapes = build_table(cnn(pad_object=False)).parameters
    assert shapes["amplitude/head/conv0/kernel"] == (3, 3, 64, 64)
    assert shapes["amplitude/head/conv/kernel"] == (3, 3, 64, 1)
    assert not [name for name in shapes if "outer" in name]


@pytest.mark.parametrize(
    ("gridsize", "object_big", "channels"), [(1, True, 1), (2, True, 4), (3, True, 9), (2, False, 1), (3, False, 1)]
)
def test_input_and_output_channels(gridsize: int, object_big: bool, channels: int) -> None:
    table = build_table(cnn(gridsize=gridsize, object_big=object_big))
    assert table.layers[0].in_channels == (channels,)
    out = {layer.name: layer.out_channels for layer in table.layers}
    assert (out[table.amplitude], out[table.phase]) == (channels, channels)


@pytest.mark.parametrize("N", [32, 48, 64, 72, 96, 128, 160, 512])
@pytest.mark.parametrize("pad_object", [True, False])
@pytest.mark.parametrize("attention", [{}, ATTENTION], ids=["plain", "attention"])
def test_the_maps_have_the_size_of_a_patch(N: int, pad_object: bool, attention: dict[str, Any]) -> None:
    table = build_table(cnn(N=N, pad_object=pad_object, **attention))
    sides = table.sizes(N)
    for layer in table.layers:
        first, *others = (sides[name] for name in layer.inputs)
        assert all(other == first or (layer.op == "multiply" and other == 1) for other in others), layer.name
        assert layer.op != "max_pool" or first % 2 == 0, layer.name
    assert (sides[table.amplitude], sides[table.phase]) == (N, N)


@pytest.mark.parametrize(("activation", "ceiling", "factor"), [("sigmoid", 2.5, 2.5), ("relu", 2.0, 1.0)])
def test_only_a_sigmoid_is_multiplied_by_the_ceiling(activation: Any, ceiling: float, factor: float) -> None:
    table = build_table(cnn(amp_activation=activation, amplitude_ceiling=ceiling))
    (amplitude,) = (layer for layer in table.layers if layer.name == table.amplitude)
    assert (amplitude.op, amplitude.settings) == ("scale", {"factor": factor})


@pytest.mark.parametrize(
    ("N", "remedy"),
    [
        (63, "Crop the patterns to 60 or pad them to 64 pixels."),
        (65, "Crop the patterns to 64 or pad them to 72 pixels."),
        (200, "Crop the patterns to 192 or pad them to 208 pixels."),
        (31, "Pad the patterns to 32 pixels."),
        (520, "Crop the patterns to 512 pixels."),
    ],
)
def test_a_size_that_does_not_halve_names_the_nearest_that_do(N: int, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_table(cnn(N=N))
    expected = "a size from 32 to 512 that halves evenly to 8-15 pixels"
    assert str(caught.value) == f"ModelConfig: N must be {expected}; got {N}. {remedy}"


def test_a_network_of_a_canvas_has_patterns_of_an_even_size() -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_table(ModelConfig(N=65))
    remedy = "Crop the patterns to 64 or pad them to 66 pixels (--crop, --pad)."
    assert str(caught.value) == f"ModelConfig: N must be an even number; got 65. {remedy}"


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    message = r"^ModelConfig: architecture must be one of cnn, .*; got 'unet'. Registered architectures: cnn, "
    with pytest.raises(ConfigurationError, match=message):
        build_table(ModelConfig(architecture="unet"))


# -- weights -------------------------------------------------------------------------------------------------------


def test_initial_weights_are_a_function_of_the_seed() -> None:
    table = build_table(cnn(N=32, n_filters_scale=1))
    first, again, other = (initial_weights(table, np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name in table.parameters:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    kernel = "encoder/block0/conv0/kernel"
    assert (first[kernel] != other[kernel]).any()


def test_initial_weights_have_the_names_and_shapes_of_the_table() -> None:
    table = build_table(cnn(N=64, gridsize=2, n_filters_scale=1))
    weights = initial_weights(table, np.random.default_rng(0))
    assert {name: array.shape for name, array in weights.items()} == table.parameters
    assert list(weights) == list(table.parameters)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_kernels_fill_the_glorot_range_and_biases_are_zero() -> None:
    table = build_table(cnn(N=32, n_filters_scale=1))
    for name, array in initial_weights(table, np.random.default_rng(0)).items():
        if name.endswith("/bias"):
            assert not array.any(), name
            continue
        limit = math.sqrt(6 / (9 * (array.shape[2] + array.shape[3])))
        assert np.abs(array).max() <= np.float32(limit), name
        if array.size > 1000:
            assert np.abs(array).max() > 0.98 * limit, name
            assert array.std() == pytest.approx(limit / math.sqrt(3), rel=0.1), name
            assert abs(array.mean()) < 0.1 * limit, name


# -- attention -----------------------------------------------------------------------------------------------------


def test_without_attention_the_weights_are_those_of_a_network_that_has_none() -> None:
    """Drawn once for N = 64, and written down: a change of order or of a limit would draw others."""
    table = build_table(cnn())
    assert {layer.op for layer in table.layers} <= {
        *("conv", "max_pool", "upsample", "channels", "pad", "outside_centre", "add", "scale")
    }
    weights = initial_weights(table, np.random.default_rng(0))
    assert list(weights)[-1] == "phase/outer/conv/bias"
    last = weights["phase/outer/conv/kernel"].ravel()[-3:]
    np.testing.assert_array_equal(last, np.array([-0.07361027, -0.02978725, -0.0716847], np.float32))


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (7, 1), (8, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5)])
def test_length_of_an_eca_kernel(channels: int, size: int) -> None:
    table = TableBuilder(channels)
    table.eca("eca", "input")
    shapes = table.finish(amplitude="", phase="").parameters
    assert shapes == {"eca/conv/kernel": (size, 1, 1, 1)}


@pytest.mark.parametrize(("channels", "hidden"), [(5, 1), (16, 1), (47, 2), (128, 8)])
def test_cbam_has_one_mlp_for_mean_and_maximum(channels: int, hidden: int) -> None:
    table = TableBuilder(channels)
    table.cbam("cbam", "input")
    assert table.finish(amplitude="", phase="").parameters == {
        "cbam/channel/conv0/kernel": (1, 1, channels, hidden),
        "cbam/channel/conv0/bias": (hidden,),
        "cbam/channel/conv1/kernel": (1, 1, hidden, channels),
        "cbam/channel/conv1/bias": (channels,),
        "cbam/spatial/conv/kernel": (7, 7, 2, 1),
        "cbam/spatial/conv/bias": (1,),
    }


def test_attention_comes_after_the_second_convolution_of_a_block_in_one_order() -> None:
    names = [layer.name for layer in build_table(cnn(**dict.fromkeys(ATTENTION, True))).layers]
    encoder = [name for name in names if name.startswith("encoder/block1/")]
    decoder = [name for name in names if name.startswith("phase/block0/")]
    for block, gates, last in ((encoder, ["eca", "cbam"], "pool"), (decoder, ["eca", "cbam", "spatial"], "upsample")):
        parts = list(dict.fromkeys(name.split("/")[2] for name in block))
        assert parts == ["conv0", "conv1", *gates, last]
    between = names.index("encoder/block2/pool") + 1, names.index("amplitude/block0/conv0")
    assert {name.split("/")[0] for name in names[slice(*between)]} == {"bottleneck"}


def test_glorot_limits_of_other_kernels() -> None:
    table = TableBuilder(512)
    table.conv("wide", table.conv("narrow", "input", 512, kernel_size=1), 64, kernel_size=7)
    table.channel_conv("along", "input", 2001)
    weights = initial_weights(table.finish(amplitude="", phase=""), np.random.default_rng(0))
    for name, fans in (("narrow", 512 + 512), ("wide", 49 * (512 + 64)), ("along", 2001 * 2)):
        assert np.abs(weights[f"{name}/kernel"]).max() == pytest.approx(math.sqrt(6 / fans), rel=5e-3)


def test_a_conv_shares_only_what_fits() -> None:
    table = TableBuilder(3)
    table.conv("first", "input", 5)
    table.conv("again", "input", 5, shares="first")
    for out_channels, shares in ((6, "first"), (5, "second")):
        with pytest.raises(ValueError, match=f"'other'.*{shares}"):
            table.conv("other", "input", out_channels, shares=shares)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="'y': expected an odd kernel_size; received 4"):
        TableBuilder(3).conv("y", "input", 3, kernel_size=4)


# -- registration --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_registry")
def test_a_registered_architecture_builds_by_its_name() -> None:
    @register_architecture("plain")
    def plain(model: ModelConfig) -> Table:
        table = TableBuilder(network_channels(model))
        x = table.conv("trunk", "input", 4)
        return table.finish(amplitude=table.conv("a", x, 1, "sigmoid"), phase=table.conv("p", x, 1, "tanh"))

    table = build_table(ModelConfig(architecture="plain"))
    assert table.parameters == {
        "trunk/kernel": (3, 3, 1, 4),
        "trunk/bias": (4,),
        "a/kernel": (3, 3, 4, 1),
        "a/bias": (1,),
        "p/kernel": (3, 3, 4, 1),
        "p/bias": (1,),
    }
    assert (table.amplitude, table.phase) == ("a", "p")


@pytest.mark.usefixtures("own_registry")
def test_a_name_can_be_registered_once() -> None:
    with pytest.raises(ConfigurationError, match=r"architecture 'CNN': registered already\. Choose another name"):
        register_architecture("CNN")(lambda model: Table((), "", ""))


def test_channels_are_cut_like_a_slice() -> None:
    table = TableBuilder(10)
    table.channels("inner", "input", 0, -4)
    table.channels("outer", "input", -4, 0)
    inner, outer = table.finish(amplitude="inner", phase="outer").layers
    assert (inner.settings, inner.out_channels) == ({"start": 0, "stop": 6}, 6)
    assert (outer.settings, outer.out_channels) == ({"start": 6, "stop": 10}, 4)
