"""Our settings as parameters of Ptychodus, and back (docs/ptychodus.md, Settings)."""

from __future__ import annotations

import copy
import re
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
from ptycho_core.errors import ConfigurationError, PtychoError
from ptycho_core.networks.registry import build_table
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.sections import SECTIONS

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
            group = registry.create_group(group_name(section))
            settings = [each for each in describe_settings(section) if each.name not in left_out]
            described[section] = {each.name: each for each in settings}
            parameters[section] = {each.name: _create(group, each) for each in settings}
            if section == "training":
                measurement = group.create_string_parameter(MEASUREMENT, AUTO)
        return cls(parameters, described, measurement)

    def groups(self) -> tuple[str, ...]:
        """Names of the groups in the registry."""
        return tuple(group_name(section) for section in self.parameters)

    def backend(self, section: str) -> str:
        """The engine of a section as it is stated, whatever the other settings are."""
        return str(self.parameters[section]["backend"].get_value())

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

    def default(self, setting: Setting) -> Any:
        """What a setting that is unset stands for, such as the epochs of the chosen architecture; None for nothing."""
        if setting.section != "training":
            return setting.default
        architecture = self.parameters["model"]["architecture"].get_value()
        try:
            return getattr(make_config("training", {"architecture": architecture}), setting.name)
        except ConfigurationError:
            return None  # the training says what is wrong

    def inference(self, network: ModelConfig) -> InferenceConfig:
        """For a network; one of a canvas has no neighbours, and Ptychodus begins with a number of them."""
        values = self.values("inference")
        if build_table(network).canvas and values["neighbor_count"] == DEFAULTS["inference", "neighbor_count"]:
            del values["neighbor_count"]
        config: InferenceConfig = make_config("inference", values)
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


def group_name(section: str) -> str:
    """`training` → PtychoCoreTraining."""
    return f"PtychoCore{section.capitalize()}"


def window_line(error: PtychoError) -> str:
    """The message of an error with the names that groups and settings have in Ptychodus."""
    fields = {each.name for section in LEFT_OUT for each in describe_settings(section)}
    # Of text, what can only be a setting: a name that is no word, one that is compared, and one that is to be set.
    names = "|".join(sorted(fields, key=len, reverse=True))
    pattern = re.compile(rf"\b({names})\b(?= [=<>])|(?<=Set )({names})\b|\b([a-z]+_[a-z_]+)\b")

    def named(text: str | None) -> str | None:
        return text and pattern.sub(lambda match: parameter_name(match[0]) if match[0] in fields else match[0], text)

    said = copy.copy(error)
    said.source = next(
        (group_name(section) for section in LEFT_OUT if SECTIONS[section].__name__ == error.source), error.source
    )
    said.key = parameter_name(error.key) if error.key in fields else error.key
    said.expected, said.received, said.remedy = named(error.expected), error.received, named(error.remedy)
    return said.line(lambda name: parameter_name(name) if name in fields else name)


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
        # Without limits, to which Ptychodus would move a value without a word: what is beyond them is refused.
        parameter = group.create_real_parameter(name, float(default))
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
        group = group_name(setting.section)
        kind = "a whole number" if setting.kind == "integer" else "a number"
        expected, remedy = f"{kind}, or empty", "Correct the setting, or leave it empty."
        raise ConfigurationError(
            group, parameter_name(setting.name), expected=expected, received=repr(text), remedy=remedy
        ) from error
