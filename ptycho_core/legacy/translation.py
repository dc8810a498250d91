"""Configurations in the style of the published PyTorch implementation (docs/legacy.md has the table of every field).

Their DataConfig, ModelConfig, TrainingConfig and InferenceConfig may be any objects or mappings with those names.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import numpy as np

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.fields import fields_of, from_mapping
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import CNN, ModelConfig
from ptycho_core.settings.training import TrainingConfig

log = logging.getLogger(__name__)

T = TypeVar("T")
THEIR_NPHOTONS = 1e5
"""Their default of nphotons, which is not ours (1e9)."""


@attrs.frozen
class Rule:
    """How one of our fields follows from one of theirs.

    theirs: its class and name, "TrainingConfig.epochs". default: of theirs. convert: their value to ours. how: the same
    in words, for the table.
    """

    cls: type[Any]
    ours: str
    theirs: str
    default: Any
    convert: Callable[[Any], Any] = lambda value: value
    how: str = "as it is"


def _gridsize(value: Any) -> Any:
    sides = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    if len(sides) != 2 or sides[0] != sides[1]:
        remedy = "Give (g, g): a group is a square of g × g positions."
        raise ConfigurationError(
            "DataConfig", "grid_size", expected="a square grid, (g, g)", received=repr(value), remedy=remedy
        )
    return sides[0]


def _probe_mask(value: Any) -> Any:
    return value if isinstance(value, (bool, np.bool_)) else value is not None


def _model_type(value: Any) -> Any:
    return {"Unsupervised": "pinn", "Supervised": "supervised"}.get(value, value)


def _nll_weight(value: Any) -> Any:
    return float(value) if isinstance(value, (bool, np.bool_)) else value


def _same(cls: type[Any], theirs: str, **defaults: Any) -> tuple[Rule, ...]:
    """Fields whose names and meanings are the same on both sides."""
    return tuple(Rule(cls, name, f"{theirs}.{name}", default) for name, default in defaults.items())


MODEL_RULES = (
    *_same(ModelConfig, "DataConfig", N=64, probe_scale=4.0),
    Rule(ModelConfig, "gridsize", "DataConfig.grid_size", (2, 2), _gridsize, "g of (g, g); another shape is an error"),
    Rule(
        ModelConfig,
        "model_type",
        "ModelConfig.mode",
        "Unsupervised",
        _model_type,
        "Unsupervised → pinn, Supervised → supervised",
    ),
    Rule(ModelConfig, "amp_activation", "ModelConfig.amp_activation", "silu", how="silu → swish"),
    Rule(
        ModelConfig,
        "probe_mask",
        "ModelConfig.probe_mask",
        False,
        _probe_mask,
        "array → true (the mask is our disk of radius N/4), None → false",
    ),
    *_same(
        ModelConfig,
        "ModelConfig",
        architecture=CNN,
        n_filters_scale=2,
        object_big=True,
        probe_big=True,
        pad_object=True,
        gaussian_smoothing_sigma=0.0,
        cbam_encoder=True,
        cbam_bottleneck=False,
        cbam_decoder=False,
        eca_encoder=False,
        eca_decoder=False,
        spatial_decoder=False,
    ),
)
TRAINING_RULES = (
    *_same(TrainingConfig, "DataConfig", nphotons=THEIR_NPHOTONS),
    Rule(TrainingConfig, "neighbor_count", "DataConfig.K", 6),
    Rule(
        TrainingConfig,
        "subsample_seed",
        "DataConfig.subsample_seed",
        None,
        how="only beside an override n_subsample",
    ),
    *_same(TrainingConfig, "ModelConfig", intensity_scale_trainable=False),
    Rule(TrainingConfig, "nepochs", "TrainingConfig.epochs", 50, how="the stages' sum where there are stages"),
    Rule(TrainingConfig, "nll_weight", "TrainingConfig.nll", True, _nll_weight, "true → 1, false → 0"),
    Rule(
        TrainingConfig,
        "mae_weight",
        "TrainingConfig.nll",
        True,
        lambda nll: 0.0 if nll else 1.0,
        "true → 0, false → 1: without the likelihood the amplitude error is what is left",
    ),
    *_same(
        TrainingConfig,
        "TrainingConfig",
        train_data_file=None,
        test_data_file=None,
        output_dir="training_outputs",
        n_groups=None,
        batch_size=16,
        learning_rate=1e-3,
        scheduler="Default",
        lr_warmup_epochs=0,
        lr_min_ratio=0.1,
        plateau_factor=0.5,
        plateau_patience=2,
        plateau_min_lr=5e-5,
        plateau_threshold=0.0,
        accum_steps=1,
        gradient_clip_val=None,
        gradient_clip_algorithm="norm",
        optimizer="adam",
        momentum=0.9,
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        stage_1_epochs=0,
        stage_2_epochs=0,
        stage_3_epochs=0,
        physics_weight_schedule="cosine",
        stage_3_lr_factor=0.1,
    ),
)
INFERENCE_RULES = (
    Rule(InferenceConfig, "neighbor_count", "DataConfig.K", 6),
    Rule(
        InferenceConfig,
        "subsample_seed",
        "DataConfig.subsample_seed",
        None,
        how="only beside an override n_subsample",
    ),
    Rule(InferenceConfig, "weighting", "InferenceConfig.patch_weighting", "probe"),
    *_same(InferenceConfig, "InferenceConfig", middle_trim=32),
)

NOT_CARRIED = {
    "DataConfig.n_subsample": "theirs thins neighbours, ours chooses frames: give ours as an override",
    "DataConfig.C": "C = gridsize² here",
    "DataConfig.neighbor_function": "groups are drawn from the nearest neighbours",
    "DataConfig.normalize": "one scale for the whole training set: specs/physics.md, Scale",
    "DataConfig.data_scaling": "by Parseval: specs/physics.md, Scale",
    "DataConfig.x_bounds": "positions are not cropped: choose frames before",
    "DataConfig.y_bounds": "positions are not cropped: choose frames before",
    "ModelConfig.loss_function": "follows from nll",
    "ModelConfig.amp_loss": "give realspace_weight as an override",
    "ModelConfig.phase_loss": "give realspace_weight as an override",
    "ModelConfig.edge_pad": "the network's border is specs/model.md, The cnn architecture",
    "TrainingConfig.device": "ExecutionConfig.accelerator",
    "TrainingConfig.strategy": "a run uses one device",
    "TrainingConfig.n_devices": "a run uses one device",
    "TrainingConfig.num_workers": "ExecutionConfig.num_workers",
    "InferenceConfig.batch_size": "ExecutionConfig.inference_batch_size",
}
"""Theirs that no field of our three classes follows from, and where it went instead."""


def to_model_config(data: Any, model: Any, overrides: Mapping[str, Any] | None = None) -> ModelConfig:
    """Our ModelConfig from their DataConfig and ModelConfig; `overrides`, our fields, take precedence.

    Raises ConfigurationError naming the field. Their fields that nothing of ours follows from are listed in the log.
    """
    theirs = {"DataConfig": data, "ModelConfig": model}
    values = {"architecture": CNN, **_translated(MODEL_RULES, theirs, overrides)}
    config: ModelConfig = _built(ModelConfig, values, overrides)
    _list_the_rest(theirs, MODEL_RULES, TRAINING_RULES, INFERENCE_RULES)
    return config


def to_training_config(
    model: ModelConfig, data: Any, pt_model: Any, training: Any, overrides: Mapping[str, Any] | None = None
) -> TrainingConfig:
    """Our TrainingConfig from their DataConfig, ModelConfig and TrainingConfig; `overrides`, our fields, come first.

    Raises ConfigurationError where nphotons was left at their default, which is not ours, where n_groups or
    train_data_file is missing, and for a value that our field does not take. A missing test_data_file is a UserWarning.
    """
    overrides = dict(overrides or {})
    theirs = {"DataConfig": data, "ModelConfig": pt_model, "TrainingConfig": training}
    values = _translated(TRAINING_RULES, theirs, overrides)
    if "nphotons" not in overrides and values.get("nphotons", THEIR_NPHOTONS) == THEIR_NPHOTONS:
        raise ConfigurationError(
            "DataConfig",
            "nphotons",
            expected="a stated dose",
            received=f"their default {THEIR_NPHOTONS:g}, where ours is 1e9 (nphotons default divergence)",
            remedy="Give the mean photons per frame as overrides={'nphotons': …}.",
        )
    for name, what in (("n_groups", "the number of groups per epoch"), ("train_data_file", "the scan to train on")):
        if values.get(name) is None:
            remedy = f"Set TrainingConfig.{name}, or give it as overrides={{{name!r}: …}}."
            raise ConfigurationError("TrainingConfig", name, expected=what, received="nothing", remedy=remedy)
    if values.get("test_data_file") is None:
        text = "TrainingConfig.test_data_file is missing: the training scan's own loss chooses the best weights."
        warnings.warn(text, UserWarning, stacklevel=2)
    staged = sum(values.get(f"stage_{number}_epochs", 0) for number in (1, 2, 3))
    if staged and "nepochs" not in overrides:
        values["nepochs"] = staged
    config: TrainingConfig = _built(TrainingConfig, values, overrides, model=model)
    _list_the_rest(theirs, MODEL_RULES, TRAINING_RULES, INFERENCE_RULES)
    return config


def to_inference_config(
    model: ModelConfig, data: Any, inference: Any, overrides: Mapping[str, Any] | None = None
) -> InferenceConfig:
    """Our InferenceConfig from their DataConfig and InferenceConfig; `overrides`, our fields, take precedence.

    Give model_path and test_data_file as overrides: theirs has neither. Raises ConfigurationError naming the field.
    """
    theirs = {"DataConfig": data, "InferenceConfig": inference}
    values = _translated(INFERENCE_RULES, theirs, overrides)
    config: InferenceConfig = _built(InferenceConfig, values, overrides, model=model)
    _list_the_rest(theirs, MODEL_RULES, TRAINING_RULES, INFERENCE_RULES)
    return config


def _get(source: Any, name: str) -> tuple[bool, Any]:
    """Whether an object or mapping has `name`, and its value."""
    if isinstance(source, Mapping):
        return name in source, source.get(name)
    return hasattr(source, name), getattr(source, name, None)


def _names(source: Any) -> list[str]:
    if isinstance(source, Mapping):
        return list(source)
    names = getattr(type(source), "__dataclass_fields__", None) or vars(source)
    return [name for name in names if not name.startswith("_")]


def _translated(
    rules: tuple[Rule, ...], theirs: Mapping[str, Any], overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Our fields by name, from theirs where they are there, and from `overrides`."""
    values: dict[str, Any] = {}
    for rule in rules:
        owner, _, name = rule.theirs.partition(".")
        there, value = _get(theirs[owner], name)
        if there and rule.ours not in (overrides or {}):
            values[rule.ours] = rule.convert(value)
    return {name: value for name, value in {**values, **(overrides or {})}.items() if value is not None}


def _built(cls: type[T], values: dict[str, Any], overrides: Mapping[str, Any] | None, **nested: Any) -> T:
    """The configuration; what would have no effect in it, and is no override, is left out and listed."""
    fields, settled = fields_of(cls), dict(values)
    for name in values:
        if name not in fields or name in (overrides or {}):
            continue
        for other, check in fields[name].metadata["beside"].items():
            beside = settled.get(other, fields[other].default)
            spelt = fields[other].metadata["spellings"].get(beside, beside)
            if values[name] != fields[name].default and check(spelt) is not None:
                settled.pop(name, None)
                log.info("%s has no effect beside %s = %r: not carried over", name, other, beside)
    try:
        return from_mapping(cls, settled, **nested)
    except ConfigurationError as error:
        raise error.placed("PyTorch-style configuration") from error


def _list_the_rest(theirs: Mapping[str, Any], *rules: tuple[Rule, ...]) -> None:
    """Say which of their fields nothing of ours follows from."""
    known = {rule.theirs for group in rules for rule in group}
    for owner, source in theirs.items():
        names = [f"{owner}.{name}" for name in _names(source)]
        for name in names:
            if name in NOT_CARRIED:
                log.info("%s is not carried over: %s", name, NOT_CARRIED[name])
        unknown = [name for name in names if name not in known and name not in NOT_CARRIED]
        if unknown:
            text = f"PyTorch-style configuration: unknown fields are left out: {', '.join(sorted(unknown))}."
            warnings.warn(text, UserWarning, stacklevel=3)
