"""A trained network as a program that runs without this package: diffraction → patches (specs/engine.md, Export)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

import ptycho_core
from ptycho_core.batches.batch import Batch
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import BackendError, ConfigurationError
from ptycho_core.models.model import Model
from ptycho_core.models.onnx import onnx_bytes
from ptycho_core.models.signature import CHANNELS_LAST, Signature, signature_of
from ptycho_core.networks.registry import build_table
from ptycho_core.settings.model import ModelConfig
from ptycho_core.storage.files import making, replacing
from ptycho_core.vocabulary import Weights

FORMS: Mapping[str, tuple[str | None, str]] = {
    "onnx": (None, ".onnx"),
    "savedmodel": ("tensorflow", ""),
    "torch-export": ("torch", ".pt2"),
}
"""Form → the engine that writes it by default, None where the core does, and the ending of its name; "": a folder."""
FACTS = "ptycho_core.json"
"""Where a form has no metadata of its own, the facts are a file of this name."""


@runtime_checkable
class Exporter(Protocol):
    """What an engine adds to write programs: the forms that it knows, and how to write one."""

    exports: tuple[str, ...]

    def export(
        self, form: str, model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]
    ) -> None:
        """Write the program of a network at `target`, where there is nothing yet, with the facts in it.

        batch: an example of what it will be given; its data scale is in the program.
        """


def export_model(
    model: Model,
    path: str | os.PathLike[str],
    *,
    form: str = "onnx",
    backend: str = "auto",
    layout: str = CHANNELS_LAST,
) -> Path:
    """Write the network as a program: measured amplitudes (B, N, N, C) → patches, whatever B; returns its path.

    form: "onnx"; "savedmodel" of TensorFlow, a folder that must not be there yet; "torch-export", a `.pt2` file.
    backend: the engine that writes; ONNX needs none. layout: "channels-last", or "nchw-amp-phase" of ONNX, (B, 1, N, N)
    → amplitude and phase (B, 2, N, N). A path without the form's ending is given it. Written whole or not at all.

    Raises ConfigurationError for another form or layout, BackendError where the engine is not there or does not know
    the form, MissingExtraError without `onnx`, DataError where the path cannot be written.
    """
    form = form.lower()
    if form not in FORMS:
        known = ", ".join(FORMS)
        raise ConfigurationError(
            "export", "form", expected=f"one of {known}", received=repr(form), remedy="Choose one of them."
        )
    default, ending = FORMS[form]
    target = Path(path)
    if ending and target.suffix != ending:
        target = target.with_name(target.name + ending)
    network, weights = model.config.model, model.network_weights
    signature = signature_of(network, layout)
    if layout != CHANNELS_LAST and default is not None:
        raise ConfigurationError(
            "export", "layout", expected=CHANNELS_LAST, received=layout, remedy="Only onnx has other layouts."
        )
    facts = program_facts(model, signature)
    if default is None:
        content = onnx_bytes(network, weights, model.illumination, signature, facts)
        with replacing(target) as file:
            file.write(content)
        return target
    engine = load_engine(default if backend == "auto" else backend)
    if not isinstance(engine, Exporter) or form not in engine.exports:
        known = ", ".join(getattr(engine, "exports", ())) or "none"
        text = f"Backend {engine.name!r} does not write {form!r}. It writes: {known}. Leave it at auto."
        raise BackendError(text, setting="backend")
    with making(target) as made:
        engine.export(form, network, weights, example_batch(model), made, facts)
    return target


def example_batch(model: Model) -> Batch:
    """Two groups of frames without a count, a pixel from one another: what a program is traced with."""
    network = model.config.model
    frames = 3 if build_table(network).canvas else network.channels
    offsets = np.arange(frames, dtype=np.float32) - frames // 2
    return Batch(
        diffraction_amplitude=np.zeros((2, network.N, network.N, frames), np.float32),
        relative_offsets_px=np.broadcast_to(offsets, (2, 1, 2, frames)).copy(),
        canvas_padding_px=frames,
        bad_pixels=np.zeros((network.N, network.N), bool),
        illumination=model.illumination,
    )


def form_of(path: Path) -> str:
    """The form that an ending stands for; ConfigurationError where it stands for none."""
    for form, (_, ending) in FORMS.items():
        if path.suffix == ending:
            return form
    endings = ", ".join(f"{ending or 'none'} ({form})" for form, (_, ending) in FORMS.items())
    remedy = "Give it another ending, or state the form."
    raise ConfigurationError(path, expected=f"one of the endings {endings}", received=path.suffix, remedy=remedy)


def program_facts(model: Model, signature: Signature) -> dict[str, str]:
    """What a user of the program must know, as text: it is in its metadata."""
    network = model.config.model
    return {
        "producer": f"ptycho-core {ptycho_core.__version__}",
        "trained_by": f"{model.engine.name} ({model.engine.framework} {model.engine.version})",
        "input": "; ".join(map(str, signature.inputs)),
        "output": "; ".join(map(str, signature.outputs)),
        "layout": signature.layout,
        "N": str(network.N),
        "gridsize": str(network.gridsize),
        "channels": str(network.channels),
        "architecture": network.architecture,
        "input_scale": f"{model.illumination.input_scale:.9g}",
        "mean_intensity": f"{model.illumination.mean_intensity:.9g}",
    }


def facts_json(facts: Mapping[str, str]) -> str:
    """The facts as the file that accompanies a program."""
    return json.dumps(dict(facts), indent=2, sort_keys=True)
