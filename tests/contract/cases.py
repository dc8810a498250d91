"""What the contract tests give to an engine: small, seeded, realistic in scale, and symmetric in nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import attrs
import numpy as np
from numpy.typing import NDArray
from ptycho_core_reference import ReferenceEngine, ReferenceNetwork
from ptycho_core_reference.ops import OPS, windows_of_2
from scipy.ndimage import gaussian_filter

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import draw_groups
from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.engine.protocol import Engine, Network
from ptycho_core.networks.cnn import network_channels
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table, register_architecture
from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE, PROBE, LossTerms, Weights

PRECISIONS = ("64-true", "32-true")
FORWARD_RTOL = {"64-true": 1e-12, "32-true": 2e-6}
GRADIENT_RTOL = {"64-true": 1e-10, "32-true": 1e-5}
"""Peak-normalised: specs/engine.md, Numerics."""
ALL_TERMS = {"nll_weight": 0.7, "mae_weight": 0.5, "realspace_weight": 0.3, "realspace_mae_weight": 0.4}
ATTENTION = dict.fromkeys(
    ("eca_encoder", "cbam_encoder", "cbam_bottleneck", "eca_decoder", "cbam_decoder", "spatial_decoder"), True
)

CASES: dict[str, dict[str, Any]] = {
    "merged": {},
    "one_frame": {"gridsize": 1},
    "frames_alone": {"object_big": False},
    "nine_frames": {"gridsize": 3},
    "merge_uniform": {"merge_weights": "uniform"},
    "merge_central": {"merge_weights": "central"},
    "wider_canvas": {"canvas_margin_px": 3},
    "swish": {"amp_activation": "swish"},
    "softplus": {"amp_activation": "softplus"},
    "relu": {"amp_activation": "relu"},
    "centre_only": {"probe_big": False},
    "short": {"gridsize": 1, "probe_big": False},
    "not_padded": {"pad_object": False},
    "probe_mask": {"probe_mask": True},
    "smoothing": {"gaussian_smoothing_sigma": 0.8},
    "two_modes": {"modes": 2},
    "given_probe": {"modes": 2, "training": {"probe_trainable": False}},
    "bad_pixels": {"bad_pixels": True},
    "amplitude_loss": {"modes": 2, "training": {"nll_weight": 0.0, "mae_weight": 1.0}},
    "all_terms": {"training": ALL_TERMS},
    "everything": {
        "modes": 2,
        "bad_pixels": True,
        "probe_mask": True,
        "gaussian_smoothing_sigma": 0.8,
        "training": ALL_TERMS,
    },
    "eca": {"n_filters_scale": 2, "gridsize": 1, "eca_encoder": True, "eca_decoder": True, "training": ALL_TERMS},
    "cbam": {
        "n_filters_scale": 2,
        "gridsize": 1,
        "cbam_encoder": True,
        "cbam_bottleneck": True,
        "cbam_decoder": True,
        "training": ALL_TERMS,
    },
    "spatial": {"gridsize": 1, "spatial_decoder": True, "training": ALL_TERMS},
    "supervised": {"model_type": "supervised"},
    "supervised_frames_alone": {"model_type": "supervised", "object_big": False},
    "cnn": {"architecture": "cnn", "groups": 1, "modes": 2},
    "canvas": {
        "architecture": "canvas",
        "N": 16,
        "group_size": 5,
        "gridsize": 1,
        "modes": 2,
        "groups": 2,
        "bad_pixels": True,
        "warm_sweeps": 2,
        "canvas_blocks": 2,
        "held_out_frames": 2,
        "training": {"realspace_mae_weight": 0.25},
    },
    "ffno": {
        "architecture": "ffno",
        "N": 16,
        "groups": 1,
        "spectral_modes": 3,
        "spectral_blocks": 2,
        "bad_pixels": True,
        "training": ALL_TERMS,
    },
    # Compared with a truth too: else the global phase is free, and the gradient by its bias a sum that cancels.
    "cnn_one_frame": {"architecture": "cnn", "gridsize": 1, "groups": 1, "pad_object": False, "training": ALL_TERMS},
}
"""Every switch of the forward model and the losses, by name: arguments of `make_case`. "short" has few layers."""
SINGLE = ("merged", "nine_frames", "amplitude_loss", "everything", "cbam", "supervised", "cnn", "canvas", "ffno")
"""Of these also in single precision, where only rounding is new: of merges, losses and every kind of network."""
IN_PRECISION = [(name, "64-true") for name in CASES] + [(name, "32-true") for name in SINGLE]
SEEDS = {
    "merged": 7,
    "nine_frames": 10,
    "merge_uniform": 5,
    "merge_central": 5,
    "wider_canvas": 7,
    "swish": 7,
    "softplus": 5,
    "relu": 5,
    "not_padded": 7,
    "probe_mask": 5,
    "smoothing": 7,
    "two_modes": 4,
    "given_probe": 4,
    "bad_pixels": 4,
    "amplitude_loss": 4,
    "all_terms": 5,
    "eca": 7,
    "cbam": 22,
    "supervised": 5,
    "cnn": 6,
    "cnn_one_frame": 11,
}
"""Of weights for which a case is well conditioned, where those of 3 are not: the search begins there."""


@attrs.frozen(eq=False)
class Case:
    """A configuration, weights for it and batches of one scan, the last one smaller.

    A probe among the weights, where it is refined, is another than that of the batches.
    """

    model: ModelConfig
    training: TrainingConfig
    weights: Weights
    batches: tuple[Batch, ...]

    @property
    def batch(self) -> Batch:
        return self.batches[0]

    @property
    def illumination(self) -> Illumination:
        return self.batch.illumination

    def lit_by(self, **changes: Any) -> Case:
        """The case with another illumination of all its batches."""
        illumination = attrs.evolve(self.illumination, **changes)
        batches = tuple(attrs.evolve(batch, illumination=illumination) for batch in self.batches)
        return attrs.evolve(self, batches=batches)


@attrs.frozen(eq=False)
class Expected:
    """What the reference says about the first batch of a case."""

    patches: NDArray[np.complex64]
    terms: LossTerms
    gradients: Weights


@functools.cache
def named_case(name: str) -> Case:
    """A case of `CASES`, well conditioned in its first batch."""
    return well_conditioned(make_case(**CASES[name]), SEEDS.get(name, 3))


@functools.cache
def expected(name: str) -> Expected:
    case = named_case(name)
    network = build_reference(case)
    return Expected(network.predict(case.batch), network.evaluate([case.batch]), network.gradients(case.batch))


def make_case(
    *,
    N: int = 32,
    gridsize: int = 2,
    modes: int = 1,
    groups: int = 2,
    photons: float = 2e4,
    bad_pixels: bool = False,
    canvas_margin_px: int = 0,
    training: Mapping[str, Any] | None = None,
    held_out_frames: int = 0,
    **model: Any,
) -> Case:
    """Three batches of `groups`, `groups` and 1 groups; so few `photons` per frame that many pixels count none."""
    config = ModelConfig(N=N, gridsize=gridsize, **{"architecture": "contract", "n_filters_scale": 1, **model})
    neighbor_count = max(4, config.channels)
    trained = config.model_type == "pinn"  # a supervised network touches no probe
    settings = {"probe_trainable": trained, "neighbor_count": neighbor_count, "nphotons": photons, **(training or {})}
    scan = make_scan(N, modes, photons, bad_pixels)
    drawn = draw_groups(
        scan.positions_px,
        np.random.default_rng(1),
        gridsize=gridsize,
        group_size=config.group_size,
        n_groups=2 * groups + 1,
        neighbor_count=neighbor_count,
    ).holding_out(held_out_frames, np.random.default_rng(2))
    reach = largest_reach_px(scan.positions_px, channels=config.channels, neighbor_count=neighbor_count)
    padding = reach + canvas_margin_px
    illumination = Illumination.of(scan, nphotons=photons)
    batches = drawn.batches(scan, groups, illumination=illumination, canvas_padding_px=padding, with_truth=True)
    train = TrainingConfig(model=config, **settings)
    weights = {**network_weights(config, seed=3), LOG_SCALE: np.asarray(0.03, np.float32)}
    if train.probe_trainable:
        weights[PROBE] = refined(illumination)
    return Case(config, train, weights, tuple(batches))


def well_conditioned(case: Case, seed: int, attempts: int = 40) -> Case:
    """The case with the first weights, from `seed` on, for which float32 can be expected to give float64's gradient.

    Otherwise the network stands on a kink, or the gradient is a sum that cancels; no engine is to blame.
    """
    for each in range(seed, seed + attempts):
        candidate = attrs.evolve(case, weights={**case.weights, **network_weights(case.model, each)})
        if kink_margin(candidate) > 1e-6 and rounding_error(candidate) < GRADIENT_RTOL["32-true"] / 3:
            return candidate
    raise AssertionError(f"no well-conditioned weights among {attempts} for {case.model}")


def rounding_error(case: Case, draws: int = 4) -> float:
    """Peak-normalised error of the worst gradient where light, amplitudes, weights and layers are float32: the largest.

    Measured with the reference, in float64: each number is off by up to half a step of float32, by chance.
    """
    exact = build_reference(case).gradients(case.batch)
    worst = 0.0
    for seed in range(draws):
        rounded = functools.partial(off_by_rounding, rng=np.random.default_rng(seed))
        amplitude, probe = rounded(case.batch.diffraction_amplitude), case.illumination.probe
        lit = case.lit_by(probe=rounded(probe.real) + 1j * rounded(probe.imag))
        network = reference_network(attrs.evolve(lit, weights={n: rounded(a) for n, a in case.weights.items()}))
        with patch.dict(OPS, {name: rounding(function, rounded) for name, function in OPS.items()}):
            gradients = network.gradients(attrs.evolve(lit.batch, diffraction_amplitude=amplitude))
        for name, array in exact.items():
            if array.any():
                worst = max(worst, float(np.abs(gradients[name] - array).max() / np.abs(array).max()))
    return worst


def off_by_rounding(array: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    return array.astype(np.float64) * (1 + 2.0**-24 * rng.uniform(-1, 1, array.shape))


def rounding(function: Callable[..., Any], rounded: Callable[..., Any]) -> Callable[..., Any]:
    """An op of the reference whose output is rounded."""

    def op(*inputs: Any, **settings: Any) -> Any:
        output, back = function(*inputs, **settings)
        return rounded(output), back

    return op


def kink_margin(case: Case) -> float:
    """Smallest distance of a relu's input from 0 and of a maximum from the second largest, by the layer's peak.

    Within rounding of a kink, float32 may fall on the other side than float64, and the gradient jumps. Ties do
    not count: they are pixels with equal surroundings, whose gradients are equal too, or zeros behind a relu.
    """
    network = reference_network(case)
    outputs, _ = network.run(case.batch)
    margin = np.inf
    for layer in network.table.layers:
        if layer.op == "conv" and layer.settings["activation"] == "relu":
            own = {parameter: network.arrays[name] for parameter, name in layer.uses.items()}
            linear, _ = OPS["conv"](outputs[layer.inputs[0]], **own, **{**layer.settings, "activation": "linear"})
            distance = np.abs(linear)
        elif layer.op in ("max_pool", "global_max", "channel_max_mean"):
            x = outputs[layer.inputs[0]]
            rivals = {
                "max_pool": windows_of_2,
                "global_max": lambda x: x.reshape(len(x), -1, x.shape[-1]).swapaxes(1, 2),
                "channel_max_mean": lambda x: x,
            }[layer.op](x)
            ordered = np.sort(rivals, axis=-1)
            distance = ordered[..., -1] - ordered[..., -2]
            distance = distance[distance > 1e-9 * ordered.max()]
        else:
            continue
        margin = min(margin, float(distance.min() / distance.max())) if distance.size else 0.0
    return margin


@register_architecture("contract")
def small_network(model: ModelConfig) -> Table:
    """A few filters a layer and every kind of layer: quick, and with few kinks for rounding to fall over."""
    channels, scale = network_channels(model), model.n_filters_scale
    table = TableBuilder(channels)
    x = table.conv("encoder/conv0", INPUT, 5 * scale)
    x = table.conv("encoder/conv1", x, 6 * scale)
    x = table.max_pool("encoder/pool", x)
    # Not before the pool: where nothing was counted, gates make near ties of its ties.
    x = table.attention("encoder", x, eca=model.eca_encoder, cbam=model.cbam_encoder)
    bottleneck = table.attention("bottleneck", x, cbam=model.cbam_bottleneck)
    in_decoder = {"eca": model.eca_decoder, "cbam": model.cbam_decoder, "spatial": model.spatial_decoder}
    outputs = {}
    for branch, activation, factor in (("amplitude", model.amp_activation, 1.5), ("phase", "tanh", math.pi)):
        x = table.attention(branch, table.conv(f"{branch}/conv", bottleneck, 7 * scale), **in_decoder)
        inner = x if model.pad_object else table.up_block(f"{branch}/head", x, 4)
        inner = table.channels(f"{branch}/inner", inner, 0, -3 if model.pad_object else 0)
        y = table.scale(f"{branch}/scale", table.conv(f"{branch}/head/conv", inner, channels, activation), factor)
        if model.pad_object:
            y = table.pad(f"{branch}/pad", y, model.N // 4)
        if model.pad_object and model.probe_big:
            outer = table.up_block(f"{branch}/outer", table.channels(f"{branch}/outer/channels", x, -3, 0), 3)
            outer = table.conv(f"{branch}/outer/conv", outer, channels, "swish")
            y = table.add(f"{branch}/sum", y, table.outside_centre(f"{branch}/outer/mask", outer))
        outputs[branch] = y
    return table.finish(**outputs)


@functools.cache
def make_scan(N: int, modes: int, photons: float, bad_pixels: bool) -> Scan:
    """Twenty overlapping frames with photon noise, in an arbitrary unit, on a grid that differs along x and y."""
    rng = np.random.default_rng(7)
    column, row = np.meshgrid(np.arange(5), np.arange(4))
    positions = np.stack([column * N / 10, row * N / 14], axis=-1).reshape(-1, 2) + rng.uniform(-0.7, 0.7, (20, 2))
    positions += N
    side = 3 * N
    relief, thickness = (gaussian_filter(rng.normal(size=(side, side)), N / 16, mode="wrap") for _ in range(2))
    field = (1 + 0.15 * thickness / thickness.std()) * np.exp(0.5j * relief / relief.std())
    probe = make_probe(N, modes)
    patches = extract_patches(field, positions, N)
    waves = np.fft.fftshift(np.fft.fft2(patches[:, None] * probe, norm="ortho"), axes=(-2, -1))
    intensity = np.sum(np.abs(waves) ** 2, axis=1)
    counts = rng.poisson(intensity * photons / intensity.sum(axis=(1, 2)).mean())
    mask = rng.random((N, N)) < 0.05 if bad_pixels else None
    amplitude = 0.3 * np.sqrt(counts)  # the unit is not the photon: intensity · 1/0.09 = counts
    return Scan(
        diffraction_amplitude=amplitude.astype(np.float32),
        positions_px=positions,
        probe=probe,
        bad_pixels=mask,
        object_field=field.astype(np.complex64),
    )


def make_probe(N: int, modes: int) -> NDArray[np.complex64]:
    """(modes, N, N): off centre, elliptic, curved, tilted; no mode is the mirror image or the conjugate of itself."""
    y, x = (np.mgrid[:N, :N] - N / 2) / N
    probe = [
        0.6**mode
        * (1 + mode * (x - 0.5 * y) * 8)
        * np.exp(-(((x - 0.03) / 0.16) ** 2) - ((y + 0.05) / 0.22) ** 2)
        * np.exp(1j * (14 * x**2 + 8 * y**2 - 9 * x * y + 2 * x + mode))
        for mode in range(modes)
    ]
    return np.stack(probe).astype(np.complex64)


def network_weights(model: ModelConfig, seed: int) -> dict[str, NDArray[np.floating]]:
    """Initial weights, with biases that are not zero: gates are rather open than not, and what feeds them is alive."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.floating]] = {}
    for name, array in initial_weights(attrs.evolve(build_table(model), zeros=(), faint=()), rng).items():
        nudge = rng.normal(scale=0.05, size=array.shape) if name.endswith("/bias") else 0
        gating = name.endswith(("/channel/conv0/bias", "/spatial/conv/bias"))
        weights[name] = (array + nudge + gating).astype(np.float32)
    return weights


def refined(illumination: Illumination) -> NDArray[np.floating]:
    """A probe, (modes, N, N, 2), off the one that training began with."""
    pairs = illumination.pairs
    noise = np.random.default_rng(5).normal(scale=0.05 * np.abs(pairs).max(), size=pairs.shape)
    return np.asarray(pairs + noise, np.float32)


def build(engine: Engine, case: Case, precision: str = "64-true", **changes: Any) -> Network:
    """A network of the engine on the CPU; the case's probe is left out where it is not refined."""
    execution = ExecutionConfig(accelerator="cpu", precision=precision)  # type: ignore[arg-type]
    settings = {"model": case.model, "training": case.training, "weights": case.weights, **changes}
    if settings["training"] is None or not settings["training"].probe_trainable:
        settings["weights"] = {name: array for name, array in settings["weights"].items() if name != PROBE}
    return engine.build(**settings, execution=execution)


def reference_network(case: Case) -> ReferenceNetwork:
    return ReferenceNetwork(case.model, case.training, case.weights)


def build_reference(case: Case, **changes: Any) -> Network:
    return build(ReferenceEngine(), case, **changes)


def assert_field_close(actual: Any, reference: Any, peak_rtol: float, what: str = "field") -> None:
    """max |actual - reference| <= peak_rtol · max |reference|; on failure the worst place and its values are shown."""
    actual, reference = np.asarray(actual), np.asarray(reference)
    assert actual.shape == reference.shape, f"{what}: shape {actual.shape}; the reference has {reference.shape}"
    error, peak = np.abs(actual - reference), np.abs(reference).max()
    worst = np.unravel_index(np.argmax(np.where(np.isfinite(error), error, np.inf)), error.shape)
    assert np.isfinite(actual).all() and error[worst] <= peak_rtol * peak, (
        f"{what}: |actual - reference| = {error[worst]:.3e} at {tuple(map(int, worst))}, that is "
        f"{error[worst] / peak if peak else np.inf:.3e} of the peak {peak:.6g}, allowed {peak_rtol:.1e}; "
        f"actual {actual[worst]:.9g}, reference {reference[worst]:.9g}"
    )


def assert_arrays_close(actual: Weights, reference: Weights, peak_rtol: float, what: str = "weights") -> None:
    """The same names, and every array close, each by its own peak."""
    assert sorted(actual) == sorted(reference), what
    for name, array in reference.items():
        assert_field_close(actual[name], array, peak_rtol, f"{what}: {name}")


def assert_terms_close(actual: LossTerms, reference: LossTerms, rtol: float) -> None:
    """The same loss terms by name, each close."""
    assert sorted(actual) == sorted(reference)
    for name, value in reference.items():
        assert abs(actual[name] - value) <= rtol * abs(value), (
            f"loss term {name}: {actual[name]!r}; the reference has {value!r}; allowed {rtol:.1e} of it"
        )
