"""Generators of other publications: Fourier neural operators, and a residual network that mixes modes (specs/model.md).

All of them give real and imaginary part of the patches.
"""

from __future__ import annotations

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks.registry import network_channels, reads
from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.settings.model import ModelConfig

MODES, BLOCKS, RESIDUAL_BLOCKS = 12, 4, 6  # specs/model.md, Other published generators
REFINERS = 2  # specs/model.md, Other published generators


@reads("n_filters_scale")
def fno(model: ModelConfig) -> Table:
    """A Fourier neural operator (Li et al., ICLR 2021)."""
    table, width, modes = TableBuilder(network_channels(model)), _width(model), _modes(model, halvings=0)
    x = table.conv("lift", table.coordinates("coordinates", INPUT), width, "linear", kernel_size=1)
    blocks = model.spectral_blocks or BLOCKS
    for block in range(blocks):
        name = f"block{block}"
        local = table.conv(f"{name}/local", x, width, "linear", kernel_size=1)
        x = table.add(f"{name}/sum", table.spectral_conv(f"{name}/spectral", x, width, modes), local)
        if block < blocks - 1:
            x = table.activate(f"{name}/gelu", x, "gelu")
    return _project(table, x, model)


@reads("n_filters_scale")
def ffno(model: ModelConfig) -> Table:
    """A factorised one, whose blocks share their matrices (Tran et al., ICLR 2023), and residual convolutions."""
    table, width, modes = TableBuilder(network_channels(model)), _width(model), _modes(model, halvings=0)
    x = table.conv("lift", table.coordinates("coordinates", INPUT), width, "linear", kernel_size=1)
    for block in range(model.spectral_blocks or BLOCKS):
        name, shares = f"block{block}", "block0/spectral" if block else ""
        y = table.factorised_spectral_conv(f"{name}/spectral", x, width, modes, shares=shares)
        y = table.conv(f"{name}/conv0", y, 4 * width, kernel_size=1)
        x = table.add(f"{name}/sum", x, table.conv(f"{name}/conv1", y, width, "linear", kernel_size=1))
    for refiner in range(REFINERS):
        name = f"refine{refiner}"
        y = table.conv(f"{name}/conv0", x, width, "gelu")
        x = table.add(f"{name}/sum", x, table.conv(f"{name}/conv1", y, width, "linear"))
    return _project(table, x, model)


@reads("n_filters_scale")
def uno(model: ModelConfig) -> Table:
    """A U-shaped one: five operators, the middle at half the resolution (Rahman, Ross and Azizzadenesheli, 2022)."""
    table, width, modes = TableBuilder(network_channels(model)), _width(model), _modes(model, halvings=1)
    x = table.conv("lift/conv0", table.coordinates("coordinates", INPUT), 4 * width, "gelu", kernel_size=1)
    first = _operator(table, "block0", table.conv("lift/conv1", x, width, "linear", kernel_size=1), width, modes)
    second = _operator(table, "block1", first, 2 * width, modes, scale=0.5)
    x = table.concat("block3/concat", _operator(table, "block2", second, 2 * width, modes), second)
    x = table.concat("block4/concat", _operator(table, "block3", x, 2 * width, modes, scale=2), first)
    return _project(table, _operator(table, "block4", x, width, modes), model)


@reads("n_filters_scale")
def hybrid_resnet(model: ModelConfig) -> Table:
    """Encoder with spectral convolutions, residual blocks that mix modes, decoder of transposed convolutions.

    As in PtychoPINN; blocks and decoder are those of Zhu et al., ICCV 2017.
    """
    table, width, modes = TableBuilder(network_channels(model)), _width(model), _modes(model, halvings=2)
    x = table.conv("lift/conv1", table.conv("lift/conv0", INPUT, width, "gelu"), width, "gelu")
    for level in range(2):
        name, width = f"encoder{level}", 2 * width
        y = table.spectral_conv(f"{name}/spectral", x, width // 2, modes)
        y = table.add(f"{name}/mixed", y, table.conv(f"{name}/local", x, width // 2, "linear"))
        x = table.add(f"{name}/sum", x, table.activate(f"{name}/gelu", y, "gelu"))
        x = _normal_relu(table, name, table.conv(f"{name}/down", x, width, "linear", stride=2))
    for block in range(model.spectral_blocks or RESIDUAL_BLOCKS):
        name = f"block{block}"
        y = table.conv(f"{name}/conv0", x, width, "linear", padding="reflect")
        y = table.conv(f"{name}/conv1", _normal_relu(table, name, y), width, "linear", padding="reflect")
        y = table.add(f"{name}/sum", x, table.instance_norm(f"{name}/norm1", y))
        mixed = table.factorised_spectral_conv(f"{name}/spectral", x, width, modes)
        x = table.add(f"{name}/mixed", y, table.gain(f"{name}/gain", mixed, 0.1))
    for level in range(2):
        name, width = f"decoder{level}", width // 2
        x = _normal_relu(table, name, table.transposed_conv(f"{name}/up", x, width, "linear"))
    return _parts(table, x, model, kernel_size=7, padding="reflect")


# -- parts ---------------------------------------------------------------------------------------------------------


def _operator(table: TableBuilder, name: str, x: str, width: int, modes: int, scale: float = 1) -> str:
    """gelu(spectral convolution + what each pixel gives alone), of `scale` times the side."""
    spectral = table.spectral_conv(f"{name}/spectral", x, width, modes, scale=scale)
    nearest = table.upsample(f"{name}/upsample", x) if scale > 1 else x
    stride = 2 if scale < 1 else 1
    local = table.conv(f"{name}/local", nearest, width, "linear", kernel_size=1, stride=stride)
    return table.activate(f"{name}/gelu", table.add(f"{name}/sum", spectral, local), "gelu")


def _normal_relu(table: TableBuilder, name: str, x: str) -> str:
    return table.activate(f"{name}/relu", table.instance_norm(f"{name}/norm", x), "relu")


def _project(table: TableBuilder, x: str, model: ModelConfig) -> Table:
    x = table.conv("project", x, 4 * _width(model), "gelu", kernel_size=1)
    return _parts(table, x, model, kernel_size=1)


def _parts(table: TableBuilder, x: str, model: ModelConfig, *, kernel_size: int, padding: str = "zeros") -> Table:
    """Real and imaginary part, near 1 to begin with."""
    real, imaginary = (
        table.conv(name, x, network_channels(model), "linear", kernel_size=kernel_size, padding=padding)
        for name in ("real", "imaginary")
    )
    return table.finish(real=real, imaginary=imaginary, faint=(real, imaginary), ones=(real,))


def _width(model: ModelConfig) -> int:
    return 16 * model.n_filters_scale


def _modes(model: ModelConfig, *, halvings: int) -> int:
    """Modes that every spectral convolution keeps; ConfigurationError for an N that cannot be halved so often."""
    factor = 2**halvings
    if model.N % (2 * factor):
        below, above = (model.N // (2 * factor) + more for more in (0, 1))
        remedy = f"Crop the patterns to {2 * factor * below} or pad them to {2 * factor * above} pixels."
        expected = f"a multiple of {2 * factor} with architecture = {model.architecture}"
        raise ConfigurationError("ModelConfig", "N", expected=expected, received=model.N, remedy=remedy)
    most: int = model.N // factor // 2
    if model.spectral_modes is None:
        return min(MODES, most)
    if model.spectral_modes > most:
        expected = f"at most {most}, half of the {model.N // factor} pixels of the smallest maps"
        remedy = f"Set spectral_modes to {most} or less."
        received = model.spectral_modes
        raise ConfigurationError("ModelConfig", "spectral_modes", expected=expected, received=received, remedy=remedy)
    return model.spectral_modes
