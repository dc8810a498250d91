"""Valid configurations of every kind, for property tests."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st

from ptycho_core.settings.fields import fields_of, hints_of, kind_of
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.settings.training import TrainingConfig

ALL_FIELDS = [(section, name) for section, cls in SECTIONS.items() for name in fields_of(cls)]


def valid_values(cls: type[Any], name: str) -> st.SearchStrategy[Any]:
    """Values that a field takes by itself, made from its type and its check."""
    field, annotation = fields_of(cls)[name], hints_of(cls)[name]
    kind = kind_of(annotation)

    def takes(value: Any) -> bool:
        return field.metadata["check"] is None or field.metadata["check"](value) is None

    if typing.get_origin(kind) is Literal:
        values: st.SearchStrategy[Any] = st.sampled_from(typing.get_args(kind))
    elif kind is bool:
        values = st.booleans()
    elif kind is str:
        text = st.text(st.characters(codec="utf-8"))
        folded = text.map(lambda value: value.casefold() if value.casefold() in field.metadata["spellings"] else value)
        values = folded if takes("any") else st.just(field.default)
    elif kind is Path:
        values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(Path)
    elif kind is int and not takes(2**20):
        values = st.just(field.default)  # there is no other one
    elif kind is int:
        least = next(value for value in range(17) if takes(value))
        powers = st.integers(0, 40).map(lambda exponent: 2**exponent)
        values = st.integers(least, 2**40) if takes(17) else powers
    else:
        values = (st.floats(0, 1e300) | st.integers(0, 10**12) if takes(2) else st.floats(0, 1)).filter(takes)
    return values if kind is annotation else st.none() | values


def effective(cls: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values, those that have no effect beside the others at their defaults."""
    fields = fields_of(cls)
    for name, field in fields.items():
        if any(check(values[other]) is not None for other, check in field.metadata["beside"].items()):
            values[name] = field.default
    return values


def plain(section: str) -> st.SearchStrategy[dict[str, Any]]:
    cls = SECTIONS[section]
    drawn = st.fixed_dictionaries({name: valid_values(cls, name) for name in fields_of(cls)})
    return drawn.map(lambda values: effective(cls, values))


@st.composite
def model_configs(draw: st.DrawFn) -> ModelConfig:
    values = {**draw(plain("model")), "gridsize": draw(st.integers(1, 5))}
    values["group_size"] = draw(st.none() | st.integers(1, 25)) if values["gridsize"] == 1 else None
    return ModelConfig(**effective(ModelConfig, values))


@st.composite
def training_configs(draw: st.DrawFn) -> TrainingConfig:
    """Any valid one: fields drawn each by itself, then mended where they contradict each other."""
    model, values = draw(model_configs()), draw(plain("training"))
    values["loss_weights"] = draw(st.none() | st.sampled_from(["smooth=0.1", "a=0, b=2"]))
    values["held_out_frames"] = draw(st.none() | st.integers(0, model.channels - 1))
    stages = [draw(st.integers(0, 9)) for _ in range(3)]
    if values["scheduler"] == "MultiStage":
        stages[2] += 1
    if model.model_type == "supervised":
        values |= dict.fromkeys(("mae_weight", "realspace_weight", "realspace_mae_weight"), 0.0)
        values |= {"nll_weight": draw(st.sampled_from([0.0, 1.0])), "probe_trainable": False, "loss_weights": None}
        stages = [0, 0, 0]
        values["scheduler"] = "Default" if values["scheduler"] == "MultiStage" else values["scheduler"]
    elif values["nll_weight"] + values["mae_weight"] == 0:
        values["nll_weight"] = 1.0
    if values["scheduler"] == "ReduceLROnPlateau":
        stages[:2] = [0, 0]
        values["plateau_min_lr"] = values["learning_rate"] / 2
    values |= {f"stage_{number}_epochs": epochs for number, epochs in enumerate(stages, 1)}
    values["nepochs"] = sum(stages) or values["nepochs"]
    scheduled = sum(stages) or values["scheduler"] == "WarmupCosine"
    if values["schedule_epochs"] is not None:
        values["schedule_epochs"] = (sum(stages) or values["schedule_epochs"]) if scheduled else None
    values["lr_warmup_epochs"] = min(values["lr_warmup_epochs"], (values["schedule_epochs"] or values["nepochs"]) - 1)
    values |= {"enable_oversampling": values["enable_oversampling"] and model.channels > 1}
    values["neighbor_count"] = max(values["neighbor_count"], model.channels)
    if values["neighbor_pool_size"] is not None:
        values["neighbor_pool_size"] = max(values["neighbor_pool_size"], model.channels)
    if model.probe_scale != 4:
        values["probe_gauge"] = "mean"
    return TrainingConfig(model=model, **effective(TrainingConfig, values))


@st.composite
def inference_configs(draw: st.DrawFn) -> InferenceConfig:
    return InferenceConfig(model=draw(st.none() | model_configs()), **draw(plain("inference")))


@st.composite
def read_options(draw: st.DrawFn) -> ReadOptions:
    values = draw(plain("reading"))
    words = {
        "frames": ["0:9", "3:20:2"],
        "drop_frames": ["1", "7,50-60,empty"],
        "affine": ["1,0,0,1", "0,1,-1,0"],
        "scan_step": ["2", "1,0.5"],
        "scan_shape": ["2,3"],
        "mask": ["nan", "nan,saturated"],
    }
    values |= {name: draw(st.none() | st.sampled_from(choices)) for name, choices in words.items()}
    for names in (
        ("energy_eV", "wavelength_m", "voltage_kV"),
        ("positions", "scan_step"),
        ("bad_pixels", "good_pixels"),
        ("centre", "centre_row"),
        ("probe_pixel_m", "resample_probe"),
    ):
        for other in [name for name in names if values[name] not in (None, False)][1:]:
            values[other] = fields_of(ReadOptions)[other].default
    if values["scan_step"] is None:
        values |= {"scan_shape": None, "scan_rotation": 0.0}
    if values["positions"] is None:
        values["position_order"] = None
        values["position_unit"] = values["position_unit"] if values["scan_step"] is not None else None
    if values["dc"] == "corner":
        values["centre"] = None
    if values["centre_row"] is None or values["centre_column"] is None or values["dc"] == "corner":
        values |= {"centre_row": None, "centre_column": None}
    return ReadOptions(**values)


CONFIGURATIONS = {
    "model": model_configs(),
    "training": training_configs(),
    "inference": inference_configs(),
    "solving": plain("solving").map(lambda values: SECTIONS["solving"](**values)),
    "prior": plain("prior").map(lambda values: SECTIONS["prior"](**values)),
    "execution": plain("execution").map(lambda values: SECTIONS["execution"](**values)),
    "reading": read_options(),
}
"""By section: any valid configuration."""
