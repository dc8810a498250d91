"""Reconstructors for Ptychodus 1.7: PINN, Supervised and solve, in the library "ptycho-core" (docs/ptychodus.md).

    with ModelCore() as core:
        register(core)  # then the algorithms ptycho-core_pinn, ptycho-core_supervised and ptycho-core_solve

Every training and reconstruction runs in a child process of its own; here no framework is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ptychodus.api.object import Object
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePositionSequence
from ptychodus.api.product import LossValue, Product
from ptychodus.api.reconstruct import (
    ReconstructInput,
    Reconstructor,
    ReconstructorLibrary,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
)
from ptychodus.api.settings import SettingsRegistry

from ptycho_core import embedding
from ptycho_core.embedding import ObjectGrid, ReconstructionProgress, ScanArrays, ScanFile, SolvingProgress
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.integrations.ptychodus_settings import AUTO, PtychoCoreSettings
from ptycho_core.scans.geometry import object_pixel_m
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import make_folder, replacing

log = logging.getLogger(__name__)

LIBRARY = "ptycho-core"
MODEL_FILE = "wts.h5.zip"
TRAIN_FILE, TEST_FILE = "train_data.npz", "test_data.npz"
SAME_PIXEL = 1e-3
"""Relative difference of the pixels of probe and object that is taken for rounding."""


class PtychoCoreReconstructor(TrainableReconstructor):
    """One network, `model_type` "pinn" or "supervised", as an algorithm."""

    def __init__(self, model_type: str, settings: PtychoCoreSettings) -> None:
        super().__init__()
        self._model_type, self._settings = model_type, settings
        self._model_file: Path | None = None
        self._goal: int | None = None

    @property
    def name(self) -> str:
        return embedding.NETWORKS[self._model_type]

    def get_progress_goal(self) -> int:
        """Groups of patterns while a reconstruction runs, else the epochs of a training."""
        return self._settings.epochs() if self._goal is None else self._goal

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """An output at once, after every batch or so, and twice a second in any case; the last one is whole."""
        if self._model_file is None:
            raise self._no_model()
        data, config = arrays_of(parameters), self._settings.inference()
        steps = embedding.reconstruct(data, self._model_file, config, execution=self._settings.execution())
        try:
            with contextlib.closing(steps):
                for progress in steps:
                    self._goal = progress.goal
                    yield ReconstructOutput(product=product_of(parameters.product, progress), progress=progress.done)
        finally:
            self._goal = None

    def is_model_loaded(self) -> bool:
        return self._model_file is not None

    def get_model_file_filter(self) -> str:
        return embedding.MODEL_FILE_FILTER

    def get_model_file_extension(self) -> str:
        return embedding.MODEL_FILE_EXTENSION

    def load_model_from_file(self, file_path: Path) -> None:
        """Raises ArchiveError for a file that is no model."""
        path = file_path / MODEL_FILE if file_path.is_dir() else file_path
        trained = embedding.load_model(path).config.model.model_type
        if trained != self._model_type:
            log.warning("%s: the model was trained as %r and is used as such", path, trained)
        self._model_file = path

    def save_model(self, file_path: Path) -> None:
        if self._model_file is None:
            raise self._no_model()
        content = self._model_file.read_bytes()
        with replacing(file_path) as file:
            file.write(content)

    def get_training_data_file_filter(self) -> str:
        return embedding.TRAINING_DATA_FILE_FILTER

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        """An NPZ file of amplitudes, which says so; `.npz` is added where the name has no ending."""
        path = file_path if file_path.suffix else file_path.with_suffix(embedding.TRAINING_DATA_FILE_EXTENSION)
        embedding.export_training_data(path, arrays_of(parameters))

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """An output after every epoch, with the losses until then; the best model so far is the one that is loaded.

        input_path: a scan file, or a folder with train_data.npz and, if there is one, test_data.npz. output_path: a
        folder for `wts.h5.zip`, created if missing, or a file that ends in .zip.
        """
        train_file, test_file = training_files(input_path)
        config = self._settings.training(self._model_type)
        target = output_path if output_path.suffix == ".zip" else make_folder(output_path) / MODEL_FILE
        training, validation = [], []
        steps = embedding.train(
            self._source(train_file),
            target,
            config,
            test=None if test_file is None else self._source(test_file),
            execution=self._settings.execution(),
        )
        with contextlib.closing(steps):
            for progress in steps:
                self._model_file = progress.model_path
                training.append(LossValue(progress.epoch, progress.train["total"]))
                if progress.validation is not None:
                    validation.append(LossValue(progress.epoch, progress.validation["total"]))
                yield TrainOutput(list(training), list(validation), progress=progress.epoch)

    def _source(self, path: Path) -> ScanFile:
        """The file says what its patterns are, by `_metadata` or by their type, unless the settings do."""
        measurement: Any = self._settings.measurement.get_value().strip().lower()
        return ScanFile(path=path, options=ReadOptions(measurement=None if measurement in ("", AUTO) else measurement))

    def _no_model(self) -> ConfigurationError:
        remedy = "Train one, or open a model file."
        return ConfigurationError(self.name, expected="a model", received="none", remedy=remedy)


class PtychoCoreSolver(Reconstructor):
    """The solver as an algorithm: no network, no training; probe and positions come back as they were refined."""

    def __init__(self, library: PtychoCoreReconstructorLibrary) -> None:
        self.library, self._settings = library, library.settings

    @property
    def name(self) -> str:
        return embedding.SOLVER

    def get_progress_goal(self) -> int:
        """Sweeps."""
        return int(self._settings.values("solving")["sweeps"])

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """An output at once, after every sweep, and twice a second in any case; the last one is whole."""
        data, losses, seen = arrays_of(parameters), list[LossValue](), 0
        steps = embedding.solve(data, self._settings.solving(), execution=self._settings.execution())
        with contextlib.closing(steps):
            for progress in steps:
                if progress.done > seen and "R" in progress.terms:
                    seen = progress.done
                    losses.append(LossValue(seen, progress.terms["R"]))
                product = solved_product(parameters.product, progress)
                product = dataclasses.replace(product, losses=list(losses))
                yield ReconstructOutput(product=product, progress=progress.done)


class PtychoCoreReconstructorLibrary(ReconstructorLibrary):
    """The algorithms of this package."""

    def __init__(self, settings_registry: SettingsRegistry, is_developer_mode_enabled: bool = False) -> None:
        super().__init__("ptycho_core")
        self.settings = PtychoCoreSettings.create(settings_registry)
        networks = [PtychoCoreReconstructor(kind, self.settings) for kind in embedding.NETWORKS]
        self._reconstructors: list[Reconstructor] = [*networks, PtychoCoreSolver(self)]
        missing = [each.name for each in embedding.backends() if not each.available]
        if missing:
            log.info("engines that are not installed: %s", ", ".join(missing))

    @property
    def name(self) -> str:
        return LIBRARY

    def __iter__(self) -> Iterator[Reconstructor]:
        return iter(self._reconstructors)


def register(core: Any) -> PtychoCoreReconstructorLibrary:
    """Add the algorithms to a running `ptychodus.model.ModelCore`; a settings file is opened after that.

    Where they are added already nothing changes, and the library that was added is returned.
    """
    algorithms = core.processing_core.algorithm_parameter
    added = algorithms._reconstructor_map.get(algorithms.generate_key(LIBRARY, embedding.SOLVER))
    if isinstance(added, PtychoCoreSolver):
        return added.library
    library = PtychoCoreReconstructorLibrary(core.settings_registry)
    for reconstructor in library:
        # Ptychodus has no public way to add an algorithm.
        algorithms._reconstructor_map[algorithms.generate_key(library.name, reconstructor.name)] = reconstructor
    library.get_logger().addHandler(core.processing_core.processing_api.task_monitor.get_log_handler())
    return library


def arrays_of(parameters: ReconstructInput) -> ScanArrays:
    """What Ptychodus hands to an algorithm: photon counts, positions in metres, the object of layer 0.

    The probe is that of no position in particular (its first coherent mode), with all incoherent modes. Raises
    DataError where the product is not of the far field or its probe is sampled otherwise than its object.
    """
    product = parameters.product
    metadata, geometry = product.metadata, product.object_.get_geometry()
    if not metadata.far_field:
        remedy = "Reconstruct it with an algorithm for the near field."
        expected = "a product of the far field"
        raise DataError(metadata.name, "far_field", expected=expected, received="one of the near field", remedy=remedy)
    pixel = geometry.pixel_width_m, geometry.pixel_height_m
    sampled = product.probes.get_pixel_geometry()
    if not np.allclose((sampled.width_m, sampled.height_m), pixel, rtol=SAME_PIXEL, atol=0):
        expected, received = f"pixels of {pixel} m, as the object's", f"{(sampled.width_m, sampled.height_m)} m"
        raise DataError(
            metadata.name, "probe", expected=expected, received=received, remedy="Resample the probe or the object."
        )
    positions = product.probe_positions
    return ScanArrays(
        patterns=parameters.diffraction_patterns,
        measurement="intensity",
        positions_m=np.stack([positions.get_coordinates_x_m(), positions.get_coordinates_y_m()], axis=1),
        probe=product.probes.get_probe_no_opr().get_array(),
        grid=ObjectGrid(
            shape=(geometry.height_px, geometry.width_px),
            pixel_m=pixel,
            centre_m=(geometry.center_x_m, geometry.center_y_m),
        ),
        bad_pixels=parameters.bad_pixels,
        object_field=product.object_.get_layer(0),
        name=metadata.name,
        metadata=_lengths(product, parameters.diffraction_patterns.shape[-1]),
    )


def product_of(product: Product, progress: ReconstructionProgress) -> Product:
    """The product with the object so far, of the same shape, type and place.

    Where no pattern says anything the object stays as it was. Layers after the first are 1 where one does.
    """
    object_ = product.object_
    array = object_.get_array().copy()
    array[0][progress.known] = progress.object_field[progress.known]
    array[1:, progress.known] = 1
    placed = Object(
        array=array,
        pixel_geometry=object_.get_pixel_geometry(),
        center=object_.get_center(),
        layer_spacing_m=object_.layer_spacing_m,
    )
    return dataclasses.replace(product, object_=placed, losses=[])


def solved_product(product: Product, progress: SolvingProgress) -> Product:
    """`product_of`, with the probe and the positions of a solve that has ended."""
    placed = product_of(product, progress)
    if progress.probe is None or progress.positions_m is None:
        return placed
    positions = [
        dataclasses.replace(point, x_m=float(x), y_m=float(y))
        for point, (x, y) in zip(product.probe_positions, progress.positions_m, strict=True)
    ]
    probes = ProbeSequence(
        array=progress.probe[None], opr_weights=None, pixel_geometry=product.probes.get_pixel_geometry()
    )
    return dataclasses.replace(placed, probe_positions=ProbePositionSequence(positions), probes=probes)


def training_files(input_path: Path) -> tuple[Path, Path | None]:
    """(training, test) that a path names: a file, or a folder as Ptychodus has it, or with a single NPZ file."""
    if not input_path.is_dir():
        return input_path, None
    train_file, test_file = input_path / TRAIN_FILE, input_path / TEST_FILE
    if train_file.exists():
        return train_file, test_file if test_file.exists() else None
    found = sorted(input_path.glob(f"*{embedding.TRAINING_DATA_FILE_EXTENSION}"))
    if len(found) != 1:
        received = ", ".join(path.name for path in found) or "no .npz file"
        remedy = "Export training data into it, or name a file."
        raise DataError(
            str(input_path), expected=f"{TRAIN_FILE}, or a single .npz file", received=received, remedy=remedy
        )
    return found[0], None


def _lengths(product: Product, N: int) -> dict[str, Any]:
    """What is known of the experiment, by the keys of specs/data.md, Geometry; Ptychodus has 0 for what is not."""
    metadata, pixel = product.metadata, product.object_.get_pixel_geometry()
    facts: dict[str, Any] = {"name": metadata.name}
    energy, distance = metadata.photon_energy_eV, metadata.detector_distance_m
    if energy > 0 and math.isfinite(energy):
        facts["photon_energy_eV"] = float(energy)
        if distance > 0 and math.isfinite(distance):
            facts["detector_distance_m"] = float(distance)
            wavelength, sides = metadata.photon_wavelength_m, (pixel.width_m, pixel.height_m)
            # λ z / (N p) is its own inverse.
            facts["detector_pixel_m"] = [object_pixel_m(wavelength, distance, N, side) for side in sides]
    return facts
