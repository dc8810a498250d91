"""The five entry points that callers of the published implementation know, over the native API.

`train`, `reconstruct` and `load_model` of `ptycho_core` do the work. Nothing here is global: what the published ones
keep in a dictionary or a module, these return or take.
"""

from __future__ import annotations

import logging
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError, DataError, MissingExtraError
from ptycho_core.legacy.data import RawData
from ptycho_core.models.container import MANIFEST, MODEL
from ptycho_core.models.model import ARCHIVE_NAME, Model, load_model
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import make_folder
from ptycho_core.storage.npz import write_npz
from ptycho_core.training.fit import train
from ptycho_core.training.reports import EpochReport

log = logging.getLogger(__name__)

Image = NDArray[np.float32]
Results = dict[str, Any]


def run_cdi_example(
    train_data: RawData | Scan,
    test_data: RawData | Scan | None,
    config: TrainingConfig,
    do_stitching: bool = False,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = None,
    execution: ExecutionConfig | None = None,
    callbacks: Iterable[Callable[[EpochReport], bool | None]] = (),
) -> tuple[Image | None, Image | None, Results]:
    """Train, and with `do_stitching` reconstruct the test scan, or the training scan where there is none.

    Returns (amplitude, phase, results): float32 (H, W) each, phase in rad, None without stitching; results as
    `train_cdi_model` and `reassemble_cdi_image` give them. callbacks: as `ptycho_core.train` takes them.
    """
    results = train_cdi_model(train_data, test_data, config, execution=execution, callbacks=callbacks)
    if not do_stitching:
        return None, None, results
    data = train_data if test_data is None else test_data
    amplitude, phase, stitched = reassemble_cdi_image(
        data,
        config,
        model=results["model"],
        flip_x=flip_x,
        flip_y=flip_y,
        transpose=transpose,
        M=M,
        execution=execution,
    )
    return amplitude, phase, {**results, **stitched}


def train_cdi_model(
    train_data: RawData | Scan,
    test_data: RawData | Scan | None,
    config: TrainingConfig,
    *,
    execution: ExecutionConfig | None = None,
    callbacks: Iterable[Callable[[EpochReport], bool | None]] = (),
) -> Results:
    """Train a network on one scan; the loss of the other chooses the best weights.

    results: `model` (a `Model`), `history` (loss term → one value for each epoch), `best_epoch`, `backend` and
    `engine` (name, and all that it says of itself). callbacks: as `ptycho_core.train` takes them.
    """
    test = None if test_data is None else _scan(test_data, "test_data")
    scan = _scan(train_data, "train_data")
    model = train(scan, config, test=test, execution=execution, callbacks=callbacks, progress=False)
    history = {name: [row[name] for row in model.history] for name in model.history[0]}
    return {
        "model": model,
        "history": history,
        "best_epoch": model.best_epoch,
        "backend": model.engine.name,
        "engine": attrs.asdict(model.engine),
    }


def load_inference_bundle(directory: str | Path) -> tuple[Model, dict[str, Any]]:
    """The model in a folder, and its flat parameters, `intensity_scale` among them.

    directory: the folder that holds `wts.h5.zip`, that archive itself, or a folder that an archive was unpacked into.
    Raises ArchiveError.
    """
    folder = Path(directory)
    unpacked = (folder / MANIFEST).is_file() and not (folder / ARCHIVE_NAME).exists()
    model = _load_unpacked(folder) if unpacked else load_model(folder)
    return model, model.parameters()


def _load_unpacked(folder: Path) -> Model:
    """The model whose members lie in a folder: put back into an archive, so that they are checked like one's."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / ARCHIVE_NAME
        with zipfile.ZipFile(path, "w") as archive:
            for name in (MANIFEST, *MODEL.members):
                if (folder / name).is_file():
                    archive.write(folder / name, name)
        try:
            return load_model(path)
        except ArchiveError as error:
            raise error.placed("unpacked model archive").placed(folder) from error


def reassemble_cdi_image(
    test_data: RawData | Scan,
    config: TrainingConfig | InferenceConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = None,
    coord_scale: float = 1.0,
    *,
    model: Model | None = None,
    execution: ExecutionConfig | None = None,
) -> tuple[Image, Image, Results]:
    """Reconstruct the object of a scan: amplitude and phase, float32 (H, W), and results.

    model: None is the one at `config.model_path`. flip_x, flip_y, transpose, coord_scale: positions are exchanged,
    mirrored and multiplied, in this order of effect, before they are used. M: only the central M × M pixels of a patch
    are placed; all of them if None. results: `obj_image` (complex64 (H, W)), `origin_px`, `reconstruction`, `backend`.
    """
    scan = _scan(test_data, "test_data")
    positions = scan.positions_px[:, ::-1] if transpose else scan.positions_px
    positions = positions * np.array([-1 if flip_x else 1, -1 if flip_y else 1]) * coord_scale
    inference = _inference(config)
    result = reconstruct(
        attrs.evolve(scan, positions_px=positions),
        model,
        config=inference if M is None else attrs.evolve(inference, middle_trim=M),
        execution=execution,
    )
    results = {
        "obj_image": result.object_field,
        "origin_px": result.origin_px,
        "reconstruction": result,
        "backend": result.engine.name,
    }
    return np.abs(result.object_field), np.angle(result.object_field), results


def save_outputs(amplitude: Image | None, phase: Image | None, results: Results, directory: str | Path) -> None:
    """Write `reconstructed.npz` (amplitude, phase) and an image of each; `reconstruction.npz` where results hold one.

    Without a reconstruction nothing is written. Images need the extra `plot`; without it they are left out, and the
    log says so.
    """
    if amplitude is None or phase is None:
        log.info("%s: no amplitude and phase to save: they come with do_stitching", directory)
        return
    folder = make_folder(Path(directory))
    write_npz(folder / "reconstructed.npz", {"amplitude": np.asarray(amplitude), "phase": np.asarray(phase)})
    if (reconstruction := results.get("reconstruction")) is not None:
        reconstruction.save(folder / "reconstruction.npz")
    from ptycho_core.report.plots import save_image

    try:
        save_image(amplitude, folder / "reconstructed_amplitude.png")
        save_image(phase, folder / "reconstructed_phase.png")
    except MissingExtraError as error:
        log.warning("images are left out: %s", error)


def _inference(config: TrainingConfig | InferenceConfig) -> InferenceConfig:
    """How to reconstruct with what a training configuration says about groups."""
    if isinstance(config, InferenceConfig):
        return config
    return InferenceConfig(neighbor_count=config.neighbor_count, backend=config.backend, seed=config.seed)


def _scan(data: object, name: str) -> Scan:
    if isinstance(data, RawData):
        return data.scan
    if isinstance(data, Scan):
        return data
    remedy = "Give the RawData that it was made from: groups are drawn again for each epoch."
    raise DataError(name, expected="a RawData or a Scan", received=type(data).__name__, remedy=remedy)
