"""Our settings as parameters of Ptychodus, and back (docs/ptychodus.md, Settings)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from ptychodus.api.parameters import Parameter
from ptychodus.api.settings import SettingsRegistry

from ptycho_core.embedding import (
    ExecutionConfig,
    InferenceConfig,
    Setting,
    SolveConfig,
    TrainingConfig,
    describe_settings,
    make_config,
)
from ptycho_core.errors import ConfigurationError

NAMES = {
    "gridsize": "GridSize",
    "n_filters_scale": "NumFiltersScale",
    "nphotons": "NumPhotons",
    "nepochs": "NumEpochs",
    "mae_weight": "MAEWeight",
    "nll_weight": "NLLWeight",
    "realspace_mae_weight": "RealspaceMAEWeight",
    "neighbor_count": "NumNearestNeighbors",
    "n_groups": "NumGroups",
}
"""Field → what Ptychodus calls it; others in its style, `batch_size` as BatchSize."""
DEFAULTS = {("training", "nphotons"): 1e6, ("inference", "neighbor_count"): 7}
"""Where Ptychodus's own PtychoPINN settings begin elsewhere than ours."""
LEFT_OUT = {
    "model": ("N", "model_type"),
    "training": ("train_data_file", "test_data_file", "output_dir"),
    "inference": ("model_path", "test_data_file", "output_dir", "debug"),
    "solving": ("data_file", "output_dir", "start"),
    "execution": (
        "devices",
        "num_nodes",
        "strategy",
        "enable_checkpointing",
        "checkpoint_save_top_k",
        "logger",
        "enable_progress_bar",
    ),
}
"""Settings that the data, the algorithm and the paths of a call give, and those that an application has no use for."""
MEASUREMENT = "Measurement"
AUTO = "auto"


@attrs.frozen(eq=False)
class PtychoCoreSettings:
    """The groups PtychoCoreModel, …Training, …Inference, …Solving and …Execution of the registry.

    A setting without a value is an empty text. parameters: section → field → parameter.
    """

    parameters: Mapping[str, Mapping[str, Parameter[Any]]]
    described: Mapping[str, Mapping[str, Setting]]
    measurement: Parameter[str]

    @classmethod
    def create(cls, registry: SettingsRegistry) -> PtychoCoreSettings:
        """Made once for a registry: a group that is there already is a ValueError of Ptychodus's."""
        parameters: dict[str, dict[str, Parameter[Any]]] = {}
        described: dict[str, dict[str, Setting]] = {}
        for section, left_out in LEFT_OUT.items():
            group = registry.create_group(f"PtychoCore{section.capitalize()}")
            settings = [each for each in describe_settings(section) if each.name not in left_out]
            described[section] = {each.name: each for each in settings}
            parameters[section] = {each.name: _create(group, each) for each in settings}
            if section == "training":
                measurement = group.create_string_parameter(MEASUREMENT, AUTO)
        return cls(parameters, described, measurement)

    def values(self, section: str) -> dict[str, Any]:
        """The values of a section by field. Raises ConfigurationError for a text that is no number."""
        return {
            name: _value(setting, self.parameters[section][name].get_value())
            for name, setting in self.described[section].items()
        }

    def training(self, model_type: str) -> TrainingConfig:
        """Raises ConfigurationError naming what contradicts."""
        values = {**self.values("model"), **self.values("training"), "model_type": model_type}
        config: TrainingConfig = make_config("training", values)
        return config

    def epochs(self) -> int:
        """Of a training, whether or not its settings contradict each other. Raises ConfigurationError as `values`."""
        architecture, stated = self.values("model")["architecture"], self.values("training")["nepochs"]
        return int(make_config("training", {"architecture": architecture, "nepochs": stated}).nepochs)

    def inference(self) -> InferenceConfig:
        config: InferenceConfig = make_config("inference", self.values("inference"))
        return config

    def solving(self) -> SolveConfig:
        config: SolveConfig = make_config("solving", self.values("solving"))
        return config

    def execution(self) -> ExecutionConfig:
        config: ExecutionConfig = make_config("execution", self.values("execution"))
        return config


def parameter_name(field: str) -> str:
    """`batch_size` → BatchSize."""
    return NAMES.get(field) or "".join(word.capitalize() for word in field.split("_"))


def _create(group: Any, setting: Setting) -> Parameter[Any]:
    name = parameter_name(setting.name)
    default = DEFAULTS.get((setting.section, setting.name), setting.default)
    limits = {"minimum": setting.minimum, "maximum": setting.maximum}
    parameter: Parameter[Any]
    if setting.optional:
        parameter = group.create_string_parameter(name, "" if default is None else str(default))
    elif setting.kind == "boolean":
        parameter = group.create_boolean_parameter(name, default)
    elif setting.kind == "integer":
        whole = {end: None if limit is None else int(limit) for end, limit in limits.items()}
        parameter = group.create_integer_parameter(name, default, **whole)
    elif setting.kind == "real":
        parameter = group.create_real_parameter(name, float(default), **limits)
    else:
        parameter = group.create_string_parameter(name, str(default))
    return parameter


def _value(setting: Setting, value: Any) -> Any:
    if not setting.optional:
        return value
    text = str(value).strip()
    if not text:
        return None
    convert = {"integer": int, "real": float}.get(setting.kind, str)
    try:
        return convert(text)
    except ValueError as error:
        group = f"PtychoCore{setting.section.capitalize()}"
        expected, remedy = f"{setting.kind} number or nothing", "Correct the setting, or leave it empty."
        raise ConfigurationError(
            group, parameter_name(setting.name), expected=expected, received=repr(text), remedy=remedy
        ) from error
