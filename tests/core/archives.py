"""A model of a few kilobytes, its archive, and what is done to it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ArchiveError
from ptycho_core.models.container import MANIFEST
from ptycho_core.models.model import Model, load_model
from ptycho_core.networks.cnn import network_channels
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table, register_architecture
from ptycho_core.networks.table import Table, TableBuilder
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE

MEMBERS = ("config.json", "params.json", "weights.safetensors", "history.csv")
ENGINE = EngineInfo("fake", "no framework", "1.0", ("cuda", "cpu"), ("32-true",))


def register_tiny() -> None:
    """Two convolutions, so that an archive takes a few kilobytes: the architecture "tiny"."""

    @register_architecture("tiny")
    def tiny(model: ModelConfig) -> Table:
        table = TableBuilder(network_channels(model))
        x, channels = table.conv("trunk", "input", model.n_filters_scale), network_channels(model)
        amplitude, phase = table.conv("a", x, channels, "sigmoid"), table.conv("p", x, channels, "tanh")
        return table.finish(amplitude=amplitude, phase=phase)


def tiny_model(seed: int = 0, *, scale: int = 1, modes: int = 1, gridsize: int = 1, **training: Any) -> Model:
    rng = np.random.default_rng(seed)
    config = ModelConfig(N=16, n_filters_scale=scale, gridsize=gridsize, architecture="tiny")
    scan = Scan(
        diffraction_amplitude=rng.uniform(0, 9, (4, 16, 16)),
        positions_px=rng.uniform(0, 9, (4, 2)),
        probe=rng.normal(size=(modes, 16, 16)) + 1j,
    )
    train = TrainingConfig(model=config, **training)
    weights = {
        **initial_weights(build_table(config), rng),
        LOG_SCALE: np.array(rng.normal(), np.float32),
        **Illumination.of(scan, nphotons=train.nphotons).arrays(),
    }
    history = [{"epoch": float(epoch), "total": rng.normal(), "seconds": 1 / epoch} for epoch in (1, 2, 3)]
    return Model(config=train, weights=weights, history=history, engine=ENGINE, best_epoch=2)


def assert_same(loaded: Model, saved: Model) -> None:
    assert loaded.config == saved.config
    assert loaded.history == saved.history
    assert (loaded.engine, loaded.best_epoch) == (saved.engine, saved.best_epoch)
    assert set(loaded.weights) == set(saved.weights)
    for name, array in saved.weights.items():
        assert loaded.weights[name].dtype == array.dtype, name
        assert loaded.weights[name].shape == array.shape, name
        np.testing.assert_array_equal(loaded.weights[name], array, err_msg=name)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as source:
        return {name: source.read(name) for name in source.namelist()}


def rewrite(path: Path, *, trusted: bool = True, **changes: bytes | None) -> None:
    """Replace members, or leave them out where None; `trusted`: with digests that fit, as a forger would."""
    members = members_of(path)
    for name, content in changes.items():
        name = {"manifest": MANIFEST, "config": MEMBERS[0], "weights": MEMBERS[2], "history": MEMBERS[3]}.get(
            name, name
        )
        members[name] = content  # type: ignore[assignment]
    if trusted and "manifest" not in changes:
        manifest = json.loads(members[MANIFEST])
        manifest["sha256"] = {name: hashlib.sha256(members[name] or b"").hexdigest() for name in manifest["sha256"]}
        members[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            if content is not None:
                target.writestr(name, content)


def refusal(path: Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    return message.removeprefix(f"{path}: ")
