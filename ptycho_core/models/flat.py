"""Configurations as flat dictionaries, as readers of `params.cfg` know them.

Keys and rules: specs/configuration.md, Flat dictionaries.

There is no global dictionary: a caller that has one passes it in.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeVar

from ptycho_core.settings.fields import default_of, fields_of, from_mapping
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import CNN, ModelConfig
from ptycho_core.settings.training import TrainingConfig

log = logging.getLogger(__name__)

Config = TypeVar("Config", ModelConfig, TrainingConfig, InferenceConfig)

RENAMED = {
    "object_big": "object.big",
    "probe_big": "probe.big",
    "probe_mask": "probe.mask",
    "probe_trainable": "probe.trainable",
    "intensity_scale_trainable": "intensity_scale.trainable",
    "positions_provided": "positions.provided",
    "output_dir": "output_prefix",
    "train_data_file": "train_data_file_path",
    "test_data_file": "test_data_file_path",
}
"""Field → flat key, where the two differ."""

PUBLISHED: dict[type[Any], tuple[str, ...]] = {
    ModelConfig: (
        "N",
        "gridsize",
        "n_filters_scale",
        "model_type",
        "amp_activation",
        "object_big",
        "probe_big",
        "probe_mask",
        "pad_object",
        "probe_scale",
        "gaussian_smoothing_sigma",
    ),
    TrainingConfig: (
        "train_data_file",
        "test_data_file",
        "batch_size",
        "nepochs",
        "mae_weight",
        "nll_weight",
        "realspace_mae_weight",
        "realspace_weight",
        "nphotons",
        "n_groups",
        "n_subsample",
        "subsample_seed",
        "neighbor_count",
        "positions_provided",
        "probe_trainable",
        "intensity_scale_trainable",
        "output_dir",
        "sequential_sampling",
    ),
    InferenceConfig: (
        "model_path",
        "test_data_file",
        "n_groups",
        "n_subsample",
        "subsample_seed",
        "neighbor_count",
        "debug",
        "output_dir",
    ),
}
"""The fields that readers of a flat dictionary know; with `n_images`, another spelling of `n_groups`, they are 38."""

LEFT_OUT = {"architecture": CNN}
"""What a flat dictionary means by leaving a field out, where our default is another."""

MEASURED = ("intensity_scale",)
"""Flat keys that a trained model adds: they follow from its data, not from its configuration."""


def flat_key(field: str) -> str:
    """`object_big` → `object.big`; most fields keep their name."""
    return RENAMED.get(field, field)


def update_legacy_dict(cfg: MutableMapping[str, Any], config: ModelConfig | TrainingConfig | InferenceConfig) -> None:
    """Write the published fields of `config` into `cfg`: `model` flattened, paths as text, unset fields left out.

    A training and then an inference configuration over one dictionary leave what the second does not set.
    """
    for part in _parts(config):
        for name in PUBLISHED[type(part)]:
            value = getattr(part, name)
            if value is not None:
                cfg[flat_key(name)] = str(value) if isinstance(value, Path) else value


def to_legacy_dict(config: ModelConfig | TrainingConfig | InferenceConfig) -> dict[str, Any]:
    """The flat dictionary of `config`: its published fields, and every other one that is not at its default.

    That of `architecture` is cnn. `from_legacy_dict` gives an equal configuration back.
    """
    flat: dict[str, Any] = {}
    update_legacy_dict(flat, config)
    for part in _parts(config):
        for name, field in fields_of(type(part)).items():
            if name not in PUBLISHED[type(part)] and getattr(part, name) != LEFT_OUT.get(name, default_of(part, field)):
                flat[flat_key(name)] = getattr(part, name)
    return flat


def from_legacy_dict(flat: Mapping[str, Any], cls: type[Config]) -> Config:
    """A configuration of class `cls` from a flat dictionary; keys that are no field of ours are listed in the log.

    A dictionary serves all classes, so keys of another class are left to it. An InferenceConfig has a model where
    the dictionary describes one. Raises ConfigurationError for a value that its field does not take.
    """
    by_key = {flat_key(name): name for known in PUBLISHED for name in fields_of(known)} | {"n_images": "n_images"}
    unknown = sorted(key for key in flat if key not in by_key and key not in MEASURED)
    if unknown:
        log.warning("flat dictionary: no field is called %s; left out", ", ".join(unknown))

    def values(part: type[Any]) -> dict[str, Any]:
        names = [*fields_of(part), *getattr(part, "DEPRECATED", ())]
        return {name: flat[flat_key(name)] for name in names if flat.get(flat_key(name)) is not None}

    nested: dict[str, Any] = {}
    if cls is TrainingConfig or (cls is InferenceConfig and values(ModelConfig)):
        nested["model"] = _of(ModelConfig, values(ModelConfig))
    return _of(cls, values(cls), **nested)


def _of(cls: type[Config], values: Mapping[str, Any], **nested: Any) -> Config:
    usual: Mapping[str, Any] = LEFT_OUT if cls is ModelConfig else {}
    return from_mapping(cls, {**usual, **values}, source="flat dictionary", **nested)


def _parts(config: Any) -> list[Any]:
    """The model of a configuration, if it has one, and the configuration."""
    model = getattr(config, "model", None)
    return [config] if model is None else [model, config]
