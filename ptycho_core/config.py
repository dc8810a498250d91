"""Configuration classes: every field typed, checked and documented in one place (specs/configuration.md).

The command line's flags, the TOML file and the reference table are all made from these classes.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import attrs
import tomli_w

from ptycho_core.errors import ConfigurationError, explain

Check = Callable[[Any], str | None]
"""Returns what is allowed and the remedy, as one sentence, when a value is refused; otherwise None."""


def _at_least(minimum: float, *, exclusive: bool = False) -> Check:
    sign = ">" if exclusive else ">="

    def check(value: float) -> str | None:
        fits = value > minimum if exclusive else value >= minimum
        finite = isinstance(value, int) or math.isfinite(value)  # an int may be too large for math.isfinite
        return None if fits and finite else f"a finite number {sign} {minimum:g}"

    return check


def _weight(value: float) -> str | None:
    return None if 0 <= value <= 1 else "a number between 0 and 1"


def _power_of_two(value: int) -> str | None:
    return None if value > 0 and value & (value - 1) == 0 else "a positive power of two, such as 8, 16 or 32"


def _field(default: Any, help: str, check: Check | None = None) -> Any:
    return attrs.field(default=default, converter=_plain, validator=_validate, metadata={"help": help, "check": check})


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number that it holds."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse a value of the wrong type or outside what the field's check allows."""
    annotation = typing.get_type_hints(type(instance))[attribute.name]
    allowed = None if _has_type(value, annotation) else describe_type(annotation)
    check = attribute.metadata["check"]
    if allowed is None and check is not None and value is not None:
        allowed = check(value)
    if allowed is not None:
        remedy = f"Set {attribute.name} to {allowed}."
        if isinstance(value, str) and (near := _closest(value, typing.get_args(annotation))):
            remedy = f"Did you mean {near!r}?"
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ConfigurationError(explain(name, None, expected=allowed, received=repr(value), remedy=remedy))


def _has_type(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return value in typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_has_type(value, option) for option in typing.get_args(annotation))
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def describe_type(annotation: Any) -> str:
    """`int | None` → "a whole number or nothing", for messages and help."""
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(describe_type(option) for option in typing.get_args(annotation))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing"}
    return names.get(annotation, f"a {annotation.__name__}")


def _closest(word: str, options: typing.Iterable[Any]) -> str | None:
    near = difflib.get_close_matches(word, [option for option in options if isinstance(option, str)], n=1)
    return near[0] if near else None


def _refuse(name: str, expected: str, received: object, remedy: str) -> None:
    raise ConfigurationError(explain(name, None, expected=expected, received=received, remedy=remedy))


@attrs.define(kw_only=True)
class ModelConfig:
    """What the network is: fixed once it is trained, stored in its archive."""

    N: int = _field(64, "Side of a diffraction pattern and of an object patch, pixels.", _at_least(16))
    gridsize: int = _field(1, "A group holds gridsize² overlapping patterns.", _at_least(1))
    n_filters_scale: int = _field(2, "Multiplies the width of every layer.", _at_least(1))
    model_type: Literal["pinn", "supervised"] = _field(
        "pinn", "pinn: compare the far field with the measurement; supervised: compare patches with ground truth."
    )
    amp_activation: Literal["sigmoid", "swish", "softplus", "relu"] = _field(
        "sigmoid", "Activation of the amplitude head."
    )
    object_big: bool = _field(
        True, "Merge the patches of a group into one object before the forward model; otherwise every frame is alone."
    )
    probe_big: bool = _field(True, "With pad_object: also predict the object outside the central N/2 square.")
    probe_mask: bool = _field(False, "Multiply the probe by a circular mask of radius N/4.")
    pad_object: bool = _field(True, "Predict the central N/2 square and pad it with zeros.")
    gaussian_smoothing_sigma: float = _field(
        0.0, "Standard deviation of a Gaussian smoothing of the exit wave, pixels; 0 is none.", _at_least(0)
    )
    architecture: str = _field("cnn", "Name of the network in the architecture table.")
    amplitude_ceiling: float = _field(
        2.0,
        "Factor of a sigmoid amplitude head; an untrained network predicts half.",
        _at_least(0, exclusive=True),
    )
    merge_weights: Literal["probe", "uniform", "central"] = _field(
        "probe", "Weights of the patches in a merge: probe intensity, a plain count, or the central N/2 square only."
    )

    @property
    def channels(self) -> int:
        """C, patterns a group."""
        return self.gridsize**2


@attrs.define(kw_only=True)
class TrainingConfig:
    """How a network is trained."""

    model: ModelConfig = attrs.field(factory=ModelConfig, validator=attrs.validators.instance_of(ModelConfig))
    backend: str = _field("auto", "Engine: auto, torch, tensorflow or another registered one.")
    batch_size: int = _field(16, "Groups a training step.", _power_of_two)
    nepochs: int = _field(50, "Passes over the groups.", _at_least(1))
    n_groups: int = _field(512, "Groups an epoch, drawn anew every epoch.", _at_least(1))
    neighbor_count: int = _field(4, "K: nearest neighbours that a group may be drawn from.", _at_least(1))
    neighbor_pool_size: int | None = _field(
        None, "With enable_oversampling: neighbours to choose from instead of neighbor_count.", _at_least(1)
    )
    enable_oversampling: bool = _field(False, "Allow more groups than positions (gridsize > 1).")
    sequential_sampling: bool = _field(False, "Seed the groups at the first n_groups positions instead of random ones.")
    n_subsample: int | None = _field(
        None, "Train on that many frames, drawn at random; all of them if unset.", _at_least(1)
    )
    subsample_seed: int | None = _field(None, "Seed of n_subsample; `seed` if unset.", _at_least(0))
    nll_weight: float = _field(1.0, "Weight of the Poisson negative log likelihood of the counts.", _weight)
    mae_weight: float = _field(0.0, "Weight of the mean absolute error of the diffraction amplitude.", _weight)
    realspace_weight: float = _field(0.0, "Weight of the total variation of the complex object.", _weight)
    realspace_mae_weight: float = _field(0.0, "Weight of the mean absolute error against ground truth.", _weight)
    nphotons: float = _field(
        1e9, "Mean photons a frame where the scan's dose is unknown.", _at_least(0, exclusive=True)
    )
    probe_gauge: Literal["mean", "given"] = _field(
        "mean", "mean: scale the probe to the mean intensity of a frame; given: trust the probe's own."
    )
    probe_trainable: bool = _field(False, "Refine the probe with the network.")
    intensity_scale_trainable: bool = _field(True, "Refine a global factor between predicted and measured amplitude.")
    learning_rate: float = _field(1e-3, "Learning rate at its highest.", _at_least(0, exclusive=True))
    scheduler: Literal["Default", "Exponential", "WarmupCosine"] = _field(
        "WarmupCosine",
        "Learning rate over the epochs: constant, times lr_decay an epoch, or warm-up and a cosine to lr_final.",
    )
    lr_decay: float = _field(0.95, "Factor an epoch of the Exponential schedule.", _at_least(0, exclusive=True))
    lr_warmup_epochs: int = _field(0, "Epochs of linear warm-up of the WarmupCosine schedule.", _at_least(0))
    lr_final: float = _field(0.02, "Last learning rate of WarmupCosine as a fraction of learning_rate.", _weight)
    gradient_clip_val: float | None = _field(
        None, "Clip the gradient's norm over all weights to this value.", _at_least(0, exclusive=True)
    )
    early_stop_patience: int | None = _field(None, "Stop after that many epochs without a better loss.", _at_least(1))
    seed: int = _field(0, "Seed of initial weights, groups and batch order.", _at_least(0))

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check what no single field can: called on construction, and again when a run starts.

        Raises ConfigurationError naming the fields that contradict each other.
        """
        if self.model.model_type == "pinn" and self.nll_weight + self.mae_weight <= 0:
            received = f"nll_weight = {self.nll_weight:g}, mae_weight = {self.mae_weight:g}"
            _refuse("TrainingConfig", "a positive nll_weight or mae_weight", received, "Set nll_weight to 1.")
        needed = self.model.channels - 1
        pool = self.neighbor_count if self.neighbor_pool_size is None else self.neighbor_pool_size
        if self.neighbor_count < needed:
            expected = f"neighbor_count >= gridsize² - 1 = {needed}"
            _refuse("TrainingConfig.neighbor_count", expected, self.neighbor_count, f"Set it to {needed} or more.")
        if self.neighbor_pool_size is not None and not self.enable_oversampling:
            remedy = "Set enable_oversampling, or leave neighbor_pool_size unset."
            _refuse("TrainingConfig.neighbor_pool_size", "enable_oversampling beside it", pool, remedy)
        if pool < self.model.channels and self.enable_oversampling and self.model.channels > 1:
            expected = f"neighbor_pool_size >= gridsize² = {self.model.channels} for oversampling"
            remedy = f"Set neighbor_pool_size to {self.model.channels} or more."
            _refuse("TrainingConfig.neighbor_pool_size", expected, pool, remedy)
        others = {"mae_weight": self.mae_weight, "realspace_weight": self.realspace_weight}
        others |= {"realspace_mae_weight": self.realspace_mae_weight}
        if self.model.model_type == "supervised" and (any(others.values()) or self.nll_weight not in (0, 1)):
            weights = {"nll_weight": self.nll_weight, **others}
            received = ", ".join(f"{name} = {value:g}" for name, value in weights.items())
            remedy = "Leave them at their defaults: a supervised network is trained on ground truth alone."
            _refuse(
                "TrainingConfig", "no weights of the diffraction losses with model_type = supervised", received, remedy
            )
        if self.lr_warmup_epochs >= self.nepochs and self.scheduler == "WarmupCosine":
            remedy = "Warm up for fewer epochs than there are."
            _refuse(
                "TrainingConfig.lr_warmup_epochs", f"fewer than nepochs = {self.nepochs}", self.lr_warmup_epochs, remedy
            )


@attrs.define(kw_only=True)
class InferenceConfig:
    """How a trained network is used on a scan."""

    n_groups: int | None = _field(None, "Groups to reconstruct; one for every frame if unset.", _at_least(1))
    neighbor_count: int = _field(4, "K: nearest neighbours that a group may be drawn from.", _at_least(1))
    weighting: Literal["probe", "uniform"] = _field(
        "probe", "Weights of overlapping patches in the object: probe intensity, or a plain count."
    )
    seed: int = _field(0, "Seed of the groups.", _at_least(0))


@attrs.define(kw_only=True)
class ExecutionConfig:
    """Where and how an engine computes: changes speed and rounding, never the meaning of a result."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = _field(
        "auto", "Device: auto takes a GPU if the framework sees one."
    )
    precision: Literal["32-true", "64-true", "bf16-mixed"] = _field(
        "32-true", "Floating-point precision; bf16-mixed runs the network's layers in bfloat16."
    )
    inference_batch_size: int = _field(32, "Groups predicted at a time.", _at_least(1))


SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "inference": InferenceConfig,
    "execution": ExecutionConfig,
}
"""The tables of a configuration file, and the class that each one fills."""

T = TypeVar("T")
NO_FILE = "configuration"


def fields_of(cls: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The settable fields of a configuration class; `model` is a table of its own."""
    return {field.name: field for field in attrs.fields(cls) if field.name != "model"}


def from_mapping(cls: type[T], values: Mapping[str, Any], *, source: str = NO_FILE, **nested: Any) -> T:
    """An instance of `cls` from plain values; an unknown key is an error that names the closest known one."""
    known = fields_of(cls)
    for key in values:
        if key not in known:
            near = _closest(key, known)
            remedy = f"Did you mean {near!r}?" if near else f"Known fields: {', '.join(sorted(known))}."
            expected = f"a field of {cls.__name__}"
            raise ConfigurationError(explain(source, key, expected=expected, received="an unknown one", remedy=remedy))
    try:
        return cls(**values, **nested)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}" if source != NO_FILE else str(error)) from error


def to_mapping(config: Any) -> dict[str, Any]:
    """The fields of one configuration as plain values, unset ones left out, `model` left to its own table."""
    plain: dict[str, Any] = attrs.asdict(config)
    return {key: value for key, value in plain.items() if value is not None and key != "model"}


def read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file, unknown tables refused; the fields are checked by `from_mapping`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        remedy = "Give an existing TOML file."
        raise ConfigurationError(
            explain(path, None, expected="readable TOML", received=error, remedy=remedy)
        ) from error
    for name, table in document.items():
        if name not in SECTIONS or not isinstance(table, dict):
            near = _closest(name, SECTIONS)
            remedy = f"Did you mean [{near}]?" if near else "Put each field under its table's heading."
            expected = "the tables " + ", ".join(f"[{key}]" for key in SECTIONS)
            raise ConfigurationError(explain(path, name, expected=expected, received=f"{name!r}", remedy=remedy))
    return document


def to_toml(**sections: Any) -> str:
    """The text of a configuration file: one table for each configuration given, as `training=…, model=…`."""
    return tomli_w.dumps({name: to_mapping(config) for name, config in sections.items()})
