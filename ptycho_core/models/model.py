"""Trained models and their archive, `wts.h5.zip`: JSON and safetensors, no pickle (specs/archive.md)."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core.engine.checks import check_model_weights, network_weights
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ArchiveError, ending
from ptycho_core.models.container import (
    MODEL,
    decoding,
    from_arrays,
    from_history_csv,
    history_csv,
    located,
    read_container,
    to_arrays,
    to_json,
    whole_number,
    write_container,
)
from ptycho_core.models.flat import to_legacy_dict
from ptycho_core.models.seen import DAMAGED, Seen, check_light, from_numbered, to_numbered
from ptycho_core.networks.registry import build_table, check_known, module_of
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.lengths import Lengths
from ptycho_core.settings.fields import from_mapping, to_mapping
from ptycho_core.settings.model import CNN, ModelConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.pictures import Picture, shown
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, Weights

ARCHIVE_NAME = MODEL.name
MODELS = ("autoencoder", "diffraction_to_obj")


@attrs.frozen(eq=False, kw_only=True)
class Model:
    """A trained network: what it takes to build it on any engine, and how it came about.

    weights: canonical names → arrays: those of the network, and beside them the illumination that it was trained with,
    a refined probe in place of the one that training began with. history: one row for each epoch.
    engine: what trained it. best_epoch: the epoch that the weights are from, 0 where they are untrained or it is not
    known. backend: the engine to use it with. object_pixel_m: (x, y) of the training scan; None where that is not
    known. reading: how its file was read; None where nobody said. others: a network of a canvas that was trained on
    several scans has seen these beside the first, whose illumination is among the weights.
    """

    config: TrainingConfig
    weights: Weights
    history: list[dict[str, float]]
    engine: EngineInfo
    best_epoch: int
    backend: str = "auto"
    object_pixel_m: tuple[float, float] | None = None
    reading: ReadOptions | None = None
    others: tuple[Seen, ...] = ()

    def __repr__(self) -> str:
        model, epochs = self.config.model, f"best epoch {self.best_epoch} of {len(self.history)}"
        made = f"{ending(model.architecture, 60)}, N={model.N}, groups of {model.channels}"
        return f"Model({made}, {epochs}, {self.engine.name})"

    def _repr_html_(self) -> str:
        """For notebooks: the first mode of the probe that it was trained with."""
        return shown(repr(self), [Picture("amplitude of the probe", np.abs(self.illumination.probe[0]))])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the weights, in hexadecimal: which model made a result."""
        return hashlib.sha256(from_arrays(self.weights)).hexdigest()

    @functools.cached_property
    def illumination(self) -> Illumination:
        """What the network was trained with: a scan that it reconstructs is scaled by it."""
        return Illumination.from_arrays(self.weights)

    @property
    def seen(self) -> tuple[Seen, ...]:
        """All that it was trained with."""
        return Seen(self.illumination, self.object_pixel_m), *self.others

    @property
    def network_weights(self) -> Weights:
        """What an engine builds a network with that predicts."""
        return network_weights(build_table(self.config.model), None, self.weights)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the archive, whole or not at all; returns its path.

        A path without an ending is a folder, created if missing; the archive in it is `wts.h5.zip`.
        """
        tables = {"model": to_mapping(self.config.model), "training": to_mapping(self.config)}
        if self.reading is not None:
            tables["reading"] = to_mapping(self.reading)
        members = {
            "config.json": to_json(tables),
            "params.json": to_json(self.parameters()),
            "weights.safetensors": from_arrays(
                {**self.weights, **to_numbered([each.illumination for each in self.others])}
            ),
            "history.csv": history_csv(self.history).encode(),
        }
        facts: dict[str, Any] = {"engine": attrs.asdict(self.engine), "models": list(MODELS)}
        facts |= {"best_epoch": self.best_epoch, "object_pixel_m": self.object_pixel_m}
        if (module := module_of(self.config.model)) is not None:
            facts["architecture_module"] = module
        if self.others:
            facts["other_pixels_m"] = [each.object_pixel_m for each in self.others]
        return write_container(path, MODEL, facts, members)

    def parameters(self) -> dict[str, Any]:
        """The flat snapshot that consumers of `params.cfg` read, with `intensity_scale` = sqrt(photons)/(N/2)."""
        flat = to_legacy_dict(self.config)
        # input_scale = (N/2) / sqrt(mean frame intensity): specs/physics.md, Scale
        intensity_scale = float(np.sqrt(self.weights[COUNTS_PER_INTENSITY]) / self.weights[INPUT_SCALE])
        return flat | {"intensity_scale": intensity_scale, "nphotons": (intensity_scale * self.config.model.N / 2) ** 2}


def load_model(path: str | os.PathLike[str], *, backend: str = "auto") -> Model:
    """The model in an archive, or in the folder that holds `wts.h5.zip`.

    backend: the engine that `reconstruct` shall use it with; any engine can use any model. auto: the one that trained
    it, where that is installed. Raises ArchiveError naming the file, the member and the remedy.
    """
    target = located(path, MODEL)
    manifest, members = read_container(target, MODEL)
    with decoding(target, MODEL):
        config, tables = read_config_member(members["config.json"])
        reading = (
            None if "reading" not in tables else from_mapping(ReadOptions, tables["reading"], source="config.json")
        )
        check_known(config.model, manifest.get("architecture_module"))
        weights, others = from_numbered(to_arrays(members["weights.safetensors"], "weights"), config.model.N)
        check_model_weights(build_table(config.model), weights, config.model.N)
        check_light(weights)
        history, best = from_history_csv(members["history.csv"]), whole_number(manifest["best_epoch"])
        if history and best > len(history):
            expected, received = f"an epoch of {len(history)}", str(best)
            raise ArchiveError("manifest.json", "best_epoch", expected=expected, received=received, remedy=DAMAGED)
        return Model(
            config=config,
            weights=weights,
            history=history,
            engine=EngineInfo.from_mapping(manifest["engine"]),
            best_epoch=best,
            backend=backend,
            object_pixel_m=Lengths.of(manifest).object_pixel_m,
            reading=reading,
            others=_others(others, manifest.get("other_pixels_m", [])),
        )


def _others(lights: tuple[Illumination, ...], pixels_m: list[Any]) -> tuple[Seen, ...]:
    if len(pixels_m) != len(lights):
        expected, received = f"{len(lights)} of them, as of the illuminations", str(len(pixels_m))
        raise ArchiveError("manifest.json", "other_pixels_m", expected=expected, received=received, remedy=DAMAGED)
    pairs = (Lengths.of({"object_pixel_m": pixel}).object_pixel_m for pixel in pixels_m)
    return tuple(map(Seen, lights, pairs))


def read_config_member(content: bytes) -> tuple[TrainingConfig, dict[str, Any]]:
    """The training configuration, its model in it, and all tables of `config.json`."""
    tables = json.loads(content)
    model = from_mapping(ModelConfig, {"architecture": CNN, **tables["model"]}, source="config.json")
    return from_mapping(TrainingConfig, tables["training"], source="config.json", model=model), tables
