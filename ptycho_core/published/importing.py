"""A published archive as a `Model` of ours: its weights, its parameters, and what they say of the data.

What carries over and what cannot: docs/published.md.
"""

from __future__ import annotations

import logging
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_model_weights
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ArchiveError, ConfigurationError, PtychoError
from ptycho_core.models.container import MODEL, located, shown
from ptycho_core.models.flat import PUBLISHED, flat_key
from ptycho_core.models.model import Model
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import CLEAR_PROBE_SCALE, Illumination
from ptycho_core.physics.suitability import check_size
from ptycho_core.physics.weights import probe_mask
from ptycho_core.published.keras_network import read_keras
from ptycho_core.published.members import Members, opened
from ptycho_core.published.pickles import plain, read_mapping
from ptycho_core.published.tensors import read_tensors
from ptycho_core.published.torch_network import check_settings, model_settings, read_network
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.model import CNN, ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import UNREADABLE
from ptycho_core.vocabulary import LOG_SCALE, Weights

log = logging.getLogger(__name__)

DIRECTORY = "manifest.dill"
NETWORK = "diffraction_to_obj"
PARAMETERS = f"{NETWORK}/params.dill"
KERAS, PYTORCH, SCALING = f"{NETWORK}/model.keras", f"{NETWORK}/model.pth", "torch_scaling_metadata.pt"
KINDS = {"1.0": "published tensorflow", "2.0-pytorch": "published torch"}
"""Version in `manifest.dill` → what messages and the imported model call its origin."""
LEAST_SCALE, LARGEST_SCALE = 1e-30, 1e30
"""Of an intensity_scale: the square of any other says nothing of photons, and may leave double precision."""
NOT_IMPORTED = "It cannot be imported (docs/published.md): train it again."


@attrs.frozen
class Published:
    """What an archive says before its weights are read: `kind`, one of KINDS, and flat parameters.

    settings: of the network, `model_config`, in the PyTorch implementation. Both hold scalars alone.
    """

    kind: str
    version: str
    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]
    probe: object


def import_published(path: str | os.PathLike[str], *, scan: Scan | None = None) -> Model:
    """The model in a published archive, or in the folder that holds it, as one of ours.

    scan: one that the model was trained on or shall be used on. The published implementations measure the scale of
    the intensities again on every scan; ours is measured on this one and kept. Without it, amplitudes are taken to be
    in sqrt(photons), with as many per frame as the archive states. Raises ArchiveError naming the file, the member and
    the remedy, DataError where the scan is of another size.
    """
    target = located(path, MODEL)
    network = _read_network(target)
    if scan is not None:
        check_size(scan, network.model.N)
    config = _training_config(network.published, network.model)
    illumination = _illumination(network.published, config, scan, str(target))
    weights = {**network.layers, LOG_SCALE: np.zeros((), np.float32), **illumination.arrays()}
    try:
        check_model_weights(build_table(network.model), weights, network.model.N)
    except ArchiveError as error:
        raise ArchiveError(target, received=error, remedy=NOT_IMPORTED) from error
    return Model(config=config, weights=weights, history=[], engine=network.engine, best_epoch=0)


def convert_published(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, scan: Scan | None = None
) -> Path:
    """`import_published` and then `Model.save`: the archive of ours, whole or not at all; its path."""
    return import_published(source, scan=scan).save(target)


def is_published(path: str | os.PathLike[str]) -> bool:
    """Whether a readable zip file, or the one in a folder, is an archive of a published implementation by its names."""
    try:
        with zipfile.ZipFile(located(path, MODEL)) as archive:
            return DIRECTORY in archive.namelist()
    except UNREADABLE:
        return False


def published_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a published archive is and holds, as plain values: for `ptycho inspect`. Raises ArchiveError."""
    target = located(path, MODEL)
    with opened(target, str(target)) as members:
        published = _read(members, str(target))
    facts: dict[str, Any] = {
        "kind": "published model archive",
        "written_by": published.kind,
        "version": published.version,
    }
    try:
        network = _read_network(target)
        facts["written_by"] += f" ({network.engine.framework} {network.engine.version})"
        facts["architecture"] = network.model.architecture
        facts["parameters"] = sum(array.size for array in network.layers.values())
        facts["importable"] = "yes"
    except PtychoError as error:
        facts["importable"] = f"no: {error}"
    facts["settings"] = {
        key: shown(value) if isinstance(value, str) else value
        for key, value in sorted(published.parameters.items())
        if value is not None and not key.startswith("_")
    }
    return facts


@attrs.frozen
class _Network:
    """A published network in our terms: its configuration, its layers' weights, and what wrote it."""

    published: Published
    model: ModelConfig
    layers: Weights
    engine: EngineInfo


def _read_network(target: Path) -> _Network:
    source = str(target)
    with opened(target, source) as members:
        published = _read(members, source)
        if published.kind == "published torch":
            check_settings(published.settings, f"{source}: {SCALING}")
        model = _model_config(published, source)
        try:
            table = build_table(model)
        except ConfigurationError as error:
            raise ArchiveError(source, PARAMETERS, received=error, remedy=NOT_IMPORTED) from error
        if published.kind == "published torch":
            framework, version = "PyTorch", "unknown"
            state = read_tensors(members.read(PYTORCH), f"{source}: {PYTORCH}")
            layers = read_network(state, f"{source}: {PYTORCH}", table, model)
        else:
            framework = "Keras"
            layers, version = read_keras(members.read(KERAS), f"{source}: {KERAS}", table, model.N)
    return _Network(published, model, layers, EngineInfo(published.kind, framework, version, (), ("32-true",)))


# -- what the archive says -----------------------------------------------------------------------------------------


def _read(members: Members, source: str) -> Published:
    if DIRECTORY not in members.names:
        received = ", ".join(shown(name, 60) for name in members.names[:8]) or "no members"
        remedy = "Give the whole wts.h5.zip that the published implementation wrote; load_model reads ours."
        raise ArchiveError(source, expected=f"an archive with {DIRECTORY}", received=received, remedy=remedy)
    manifest = read_mapping(members.read(DIRECTORY), source, DIRECTORY)
    version, models = plain(manifest.get("version")), manifest.get("models")
    names = [plain(name) for name in models[:8]] if isinstance(models, (list, tuple)) else []
    if version not in KINDS or NETWORK not in names:
        received = (
            f"version {shown(repr(version), 60)}, models {', '.join(shown(name, 60) for name in names) or 'none'}"
        )
        expected = f"version {' or '.join(KINDS)} with the model {NETWORK}"
        raise ArchiveError(source, DIRECTORY, expected=expected, received=received, remedy=NOT_IMPORTED)
    parameters = read_mapping(members.read(PARAMETERS), source, PARAMETERS)
    settings = _network_settings(members, source) if KINDS[version] == "published torch" else {}
    flat = {key: plain(value) for key, value in parameters.items() if key != "probe"}
    return Published(KINDS[version], str(version), flat, settings, parameters.get("probe"))


def _network_settings(members: Members, source: str) -> Mapping[str, Any]:
    where = f"{source}: {SCALING}"
    tables = read_tensors(members.read(SCALING), where)
    settings = tables.get("model_config") if isinstance(tables, dict) else None
    if not isinstance(settings, dict):
        raise ArchiveError(
            where, "model_config", expected="the settings of the network", received="none", remedy=NOT_IMPORTED
        )
    return {str(plain(name)): plain(value) for name, value in settings.items()}


def _model_config(published: Published, source: str) -> ModelConfig:
    values: dict[str, Any] = {name: published.parameters.get(flat_key(name)) for name in PUBLISHED[ModelConfig]}
    values = {"architecture": CNN} | {name: value for name, value in values.items() if value is not None}
    if (kind := values.get("model_type", "pinn")) != "pinn":
        raise ArchiveError(
            source, f"{PARAMETERS}: model_type", expected="'pinn'", received=shown(repr(kind), 60), remedy=NOT_IMPORTED
        )
    if published.kind == "published torch":
        values |= model_settings(published.settings, published.parameters)
        values["probe_mask"] = bool(values.get("probe_mask", False))
    if values.get("amp_activation", "sigmoid") == "sigmoid":
        values["amplitude_ceiling"] = 1.0  # the published sigmoid has no other
    if values.get("object_big", True) and values.get("gridsize", 1) != 1:
        values["merge_weights"] = "central"
    try:
        return ModelConfig(**values)
    except ConfigurationError as error:
        raise ArchiveError(source, PARAMETERS, received=error, remedy=NOT_IMPORTED) from error


def _training_config(published: Published, model: ModelConfig) -> TrainingConfig:
    """The settings of training that ours takes; one that it does not take stays at our default, and the log says so."""
    kept: dict[str, Any] = {"neighbor_count": max(4, model.channels - 1)}
    config = TrainingConfig(model=model, **kept)
    for name in PUBLISHED[TrainingConfig]:
        value = published.parameters.get(flat_key(name))
        if value is None:
            continue
        try:
            config = TrainingConfig(model=model, **{**kept, name: value})
            kept[name] = value
        except ConfigurationError as error:
            log.warning("%s: left at its default: %s", name, error)
    return config


# -- what it says of the data --------------------------------------------------------------------------------------


def _illumination(published: Published, config: TrainingConfig, scan: Scan | None, source: str) -> Illumination:
    """Probe and data scale (specs/physics.md, Scale)."""
    model = config.model
    if scan is None:
        measured = _stated_illumination(published, config)
        log.warning(
            "%s: holds no scale of its data: amplitudes are taken to be in sqrt(photons), %.4g photons per frame. "
            "Give a scan for another unit.",
            source,
            measured.mean_intensity * model.N**2,
        )
    else:
        nphotons = config.nphotons
        measured = Illumination.of(scan, nphotons=nphotons, masked=model.probe_mask, probe_scale=model.probe_scale)
    probe = _archived_probe(published, model.N, source)
    if probe is not None:
        # The published probe belongs to k times the amplitude. Ours belongs to the amplitude.
        return attrs.evolve(measured, probe=(probe / measured.input_scale).astype(np.complex64))
    if scan is None:
        log.warning("%s: holds no probe: a disk of radius N/4 stands for it. Give a scan to take its probe.", source)
    return measured


def _stated_illumination(published: Published, config: TrainingConfig) -> Illumination:
    """A disk, and the scale of data in photons: intensity_scale = sqrt(photons per frame) / (N/2)."""
    model = config.model
    stated = published.parameters.get("intensity_scale")
    counts = config.nphotons
    if isinstance(stated, (int, float)) and LEAST_SCALE <= stated <= LARGEST_SCALE:
        counts = (stated * model.N / 2) ** 2
    disk = probe_mask(model.N)
    amplitude = disk * math.sqrt(counts / disk.sum()) / (model.probe_scale / CLEAR_PROBE_SCALE)
    return Illumination(
        probe=amplitude[None].astype(np.complex64),
        input_scale=model.N / 2 / math.sqrt(counts),
        mean_intensity=counts / model.N**2,
        counts_per_intensity=1.0,
    )


def _archived_probe(published: Published, N: int, source: str) -> NDArray[np.complex128] | None:
    """(1, N, N) where the archive has one. The TensorFlow implementation stores it as (N, N, 1)."""
    probe = published.probe
    if probe is None:
        return None
    key = f"{PARAMETERS}: probe"
    if not isinstance(probe, np.ndarray) or probe.shape not in ((N, N), (N, N, 1)) or probe.dtype.kind not in "fc":
        received = f"{probe.dtype} {probe.shape}" if isinstance(probe, np.ndarray) else f"a {type(probe).__name__}"
        raise ArchiveError(
            source, key, expected=f"complex numbers of shape {(N, N, 1)}", received=received, remedy=NOT_IMPORTED
        )
    field = probe.reshape(1, N, N).astype(np.complex128)
    if not np.isfinite(field).all() or not field.any():
        raise ArchiveError(
            source, key, expected="finite numbers that are not all 0", received="others", remedy=NOT_IMPORTED
        )
    return field
