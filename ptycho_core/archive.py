"""Trained models and their archive, `wts.h5.zip`: JSON and safetensors, no pickle (specs/archive.md)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import safetensors
import safetensors.numpy

import ptycho_core
from ptycho_core.architecture import Weights, build_table
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.engine import EngineInfo, check_weights
from ptycho_core.errors import ArchiveError, PtychoError, explain
from ptycho_core.fields import from_mapping, to_mapping
from ptycho_core.io.files import COMPRESSION, UNREADABLE, make_folder, replacing
from ptycho_core.legacy.parameters import to_legacy_dict
from ptycho_core.physics import COUNTS_PER_INTENSITY, INPUT_SCALE

ARCHIVE_NAME = "wts.h5.zip"
FORMAT, FORMAT_VERSION = "ptycho-core model", 1
MODELS = ("autoencoder", "diffraction_to_obj")
MEMBERS = ("config.json", "params.json", "weights.safetensors", "history.csv")
MANIFEST = "manifest.json"
MEMBER_LIMIT = 4 * 2**30  # specs/archive.md, Limits: bytes of one member once unpacked


@attrs.frozen(eq=False, kw_only=True)
class Model:
    """A trained network: what it takes to build it on any engine, and how it came about.

    weights: canonical names → arrays, data scale and probe among them. history: one row for each epoch.
    engine: what trained it. best_epoch: the epoch that the weights are from. backend: the engine to use it with.
    """

    config: TrainingConfig
    weights: Weights
    history: list[dict[str, float]]
    engine: EngineInfo
    best_epoch: int
    backend: str = "auto"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the archive, whole or not at all; returns its path.

        A path without an ending is a folder, made if it is not there; the archive in it is `wts.h5.zip`.
        """
        target = Path(path)
        if target.is_dir() or not target.suffix:
            target = make_folder(target) / ARCHIVE_NAME
        members = {
            "config.json": _to_json({"model": to_mapping(self.config.model), "training": to_mapping(self.config)}),
            "params.json": _to_json(self.parameters()),
            "weights.safetensors": safetensors.numpy.save(
                {name: np.asarray(array, order="C") for name, array in self.weights.items()}
            ),
            "history.csv": history_csv(self.history).encode(),
        }
        manifest = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "ptycho_core": ptycho_core.__version__,
            "engine": attrs.asdict(self.engine),
            "models": list(MODELS),
            "best_epoch": self.best_epoch,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
        }
        with replacing(target) as file, zipfile.ZipFile(file, "w") as archive:
            for name, content in {MANIFEST: _to_json(manifest), **members}.items():
                archive.writestr(name, content)
        return target

    def parameters(self) -> dict[str, Any]:
        """The flat snapshot that consumers of `params.cfg` read, with `intensity_scale` = sqrt(photons)/(N/2)."""
        flat = to_legacy_dict(self.config)
        # input_scale = (N/2) / sqrt(mean frame intensity): specs/physics.md, Scale
        intensity_scale = float(np.sqrt(self.weights[COUNTS_PER_INTENSITY]) / self.weights[INPUT_SCALE])
        return flat | {"intensity_scale": intensity_scale, "nphotons": (intensity_scale * self.config.model.N / 2) ** 2}


def history_csv(history: list[dict[str, float]]) -> str:
    """The history as CSV text: a header line and one line for each epoch."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "epoch": int(row["epoch"])} for row in history)
    return text.getvalue()


def load_model(path: str | os.PathLike[str], *, backend: str = "auto") -> Model:
    """The model in an archive, or in the folder that holds `wts.h5.zip`.

    backend: the engine that `reconstruct` shall use it with; any engine can use any model. Raises ArchiveError naming
    the file, the member and the remedy.
    """
    target = Path(path)
    target = target / ARCHIVE_NAME if target.is_dir() else target
    manifest, members = _read_members(target)
    try:
        sections = json.loads(members["config.json"])
        model = from_mapping(ModelConfig, sections["model"], source=f"{target}: config.json")
        config = from_mapping(TrainingConfig, sections["training"], source=f"{target}: config.json", model=model)
        weights = safetensors.numpy.load(members["weights.safetensors"])
        engine = EngineInfo.from_mapping(manifest["engine"])
        rows = csv.DictReader(io.StringIO(members["history.csv"].decode()))
        history = [{name: float(value) for name, value in row.items() if value} for row in rows]
        best_epoch = int(manifest["best_epoch"])
        check_weights(build_table(model), weights, model.N)
    except PtychoError as error:
        raise ArchiveError(f"{target}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError) as error:
        remedy = "The archive is damaged: train or copy it again."
        received = f"{type(error).__name__}: {error}"
        raise ArchiveError(
            explain(target, None, expected="a whole archive", received=received, remedy=remedy)
        ) from error
    return Model(config=config, weights=weights, history=history, engine=engine, best_epoch=best_epoch, backend=backend)


def _read_members(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the members that it vouches for, their digests verified."""

    def refuse(key: str | None, expected: object, received: object, remedy: str) -> ArchiveError:
        return ArchiveError(explain(path, key, expected=expected, received=received, remedy=remedy))

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if sorted(names) != sorted((MANIFEST, *MEMBERS)):
                dill = any(name.endswith(".dill") for name in names)
                remedy = (
                    "It was written by the published implementation and holds pickles." if dill else "Train it again."
                )
                raise refuse(None, f"the members {MANIFEST}, {', '.join(MEMBERS)}", ", ".join(names[:8]), remedy)
            for info in archive.infolist():
                if info.file_size > MEMBER_LIMIT:
                    remedy = "This is not one of our archives."
                    raise refuse(info.filename, f"at most {MEMBER_LIMIT} bytes", info.file_size, remedy)
                if info.compress_type not in COMPRESSION:
                    remedy = "It is damaged or not one of our archives: copy or train it again."
                    received = f"method {info.compress_type}"
                    raise refuse(info.filename, "a stored or deflated member", received, remedy)
            manifest = json.loads(archive.read(MANIFEST))
            members = {name: archive.read(name) for name in MEMBERS}
        if manifest["format"] != FORMAT or manifest["version"] != FORMAT_VERSION:
            received = f"{manifest['format']!r}, version {manifest['version']}"
            remedy = "Update ptycho-core to read an archive of a later version."
            raise refuse(MANIFEST, f"{FORMAT!r}, version {FORMAT_VERSION}", received, remedy)
        for name, content in members.items():
            digest = hashlib.sha256(content).hexdigest()
            if digest != manifest["sha256"][name]:
                remedy = "It was changed after it was written: copy it again."
                raise refuse(name, f"SHA-256 {manifest['sha256'][name]}", digest, remedy)
    except ArchiveError:
        raise
    except FileNotFoundError as error:
        raise refuse(
            None, f"a folder with {ARCHIVE_NAME}, or such a file", "no such file", "Check the path."
        ) from error
    except (*UNREADABLE, KeyError, TypeError) as error:
        remedy = "It is truncated or not a model archive: copy or train it again."
        received = f"{type(error).__name__}: {error}"
        raise refuse(None, "a readable model archive", received, remedy) from error
    return manifest, members


def _to_json(content: object) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode()
