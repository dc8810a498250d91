"""The classes that Ptychodus trains and reconstructs with, over `ptycho_core`."""

from __future__ import annotations

import enum
import inspect
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from ptycho import window
from ptycho.raw_data import RawData

from ptycho_core import InferenceConfig, load_model, reconstruct
from ptycho_core.cli.options import environment_values
from ptycho_core.embedding import ObjectGrid
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.integrations.ptychodus.training_data import TEST_FILE, TRAIN_FILE, training_files
from ptycho_core.settings.fields import from_mapping
from ptycho_core.settings.sources import warn_of_unknown_variables
from ptycho_core.storage.files import make_folder
from ptycho_core.training.fit import fit
from ptycho_torch import config_params as theirs
from ptycho_torch.lightning_utils import BEST
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.translation import MODES, execution_config, training_config


class ConfigManager:
    """The configurations of a training, or those that a model file stands for."""

    def __init__(
        self,
        *,
        data_config: theirs.DataConfig,
        model_config: theirs.ModelConfig,
        training_config: theirs.TrainingConfig,
        inference_config: theirs.InferenceConfig,
        datagen_config: theirs.DatagenConfig | None = None,
    ) -> None:
        self.data_config, self.model_config = data_config, model_config
        self.training_config, self.inference_config = training_config, inference_config
        self.datagen_config = datagen_config or theirs.DatagenConfig()

    @classmethod
    def from_loaded_model(cls, model: PtychoModel) -> ConfigManager:
        return cls(
            data_config=model.data_config,
            model_config=model.model_config,
            training_config=model.training_config,
            inference_config=model.inference_config,
        )

    def validate_arch_compatibility(self, model: PtychoModel) -> None:
        """A model of ptycho-core says itself what its network is; ConfigurationError where none is loaded."""
        if model.model is None or model.model.archive is None:
            remedy = "Train one, or open a model file."
            raise ConfigurationError("ptycho_torch", expected="a model", received="none", remedy=remedy)


class DataloaderFormats(enum.Enum):
    """How Ptychodus asks for the scans of a folder."""

    LIGHTNING = "lightning_only_module"


class PtychoDataLoader:
    """Scans to train on, in files; or a scan to reconstruct, from arrays."""

    def __init__(
        self,
        *,
        data_dir: Path,
        config_manager: ConfigManager,
        data_format: DataloaderFormats = DataloaderFormats.LIGHTNING,
        output_dir: Path,
    ) -> None:
        """data_dir: a file, a folder with train_data.npz and, if there is one, test_data.npz, or with a single file.

        output_dir: gets a new folder for the run. Raises DataError.
        """
        self.files = training_files(Path(data_dir))
        self.output_dir = str(_new_folder(Path(output_dir)))
        self.scan: RawData | None = None
        self.grid: Any = None

    @classmethod
    def from_np(
        cls, *, diff_patterns: ArrayLike, probe: ArrayLike, positions: ArrayLike, config_manager: ConfigManager
    ) -> PtychoDataLoader:
        """diff_patterns: counts (M, N, N). probe: (modes, N, N). positions: (M, 2) [y, x], pixels of the object's grid.

        The object's shape is not among them, without which no result can be placed; it is read where Ptychodus calls.
        """
        made = cls.__new__(cls)
        made.grid = _object_of_the_caller()
        y, x = np.asarray(positions, np.float64).T
        beneath = made.grid.get_layer(0)
        made.scan = RawData.from_coords_without_pc(x, y, diff_patterns, probe, None, beneath)
        return made


class PtychoModel:
    """A network with its configurations."""

    def __init__(
        self,
        *,
        model_config: theirs.ModelConfig,
        data_config: theirs.DataConfig,
        training_config: theirs.TrainingConfig,
        inference_config: theirs.InferenceConfig,
    ) -> None:
        self.model_config, self.data_config = model_config, data_config
        self.training_config, self.inference_config = training_config, inference_config
        self.model: PtychoPINN_Lightning | None = None

    @staticmethod
    def _extract_configs_from_checkpoint(path: str) -> tuple[Any, Any, Any, Any]:
        """(data, model, training, inference), as far as Ptychodus asks: the mode. Raises ArchiveError."""
        config = load_model(path).config.model
        mode = next(name for name, ours in MODES.items() if ours == config.model_type)
        sides = {"N": config.N, "C": config.channels, "grid_size": (config.gridsize, config.gridsize)}
        model = theirs.ModelConfig(mode=mode)
        return theirs.DataConfig(**sides), model, theirs.TrainingConfig(), theirs.InferenceConfig()

    @classmethod
    def _new_model(cls, *, model: type[PtychoPINN_Lightning], config_manager: ConfigManager) -> PtychoModel:
        made = cls(
            model_config=config_manager.model_config,
            data_config=config_manager.data_config,
            training_config=config_manager.training_config,
            inference_config=config_manager.inference_config,
        )
        made.model = model()
        return made


class Progress:
    """What a callback is given: the epoch, from 0, and its losses by name."""

    sanity_checking = False

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.callback_metrics: dict[str, float] = {}
        self.current_epoch = 0


class Trainer:
    """A training; after each epoch that was the best its model is in the folder of the run."""

    def __init__(self, model: PtychoModel, dataloader: PtychoDataLoader, config_manager: ConfigManager) -> None:
        self._model, self._loader, self._manager = model, dataloader, config_manager
        self._trainer = Progress()

    @classmethod
    def _from_lightning(
        cls, *, model: PtychoModel, dataloader: PtychoDataLoader, orchestration: str, config_manager: ConfigManager
    ) -> Trainer:
        return cls(model, dataloader, config_manager)

    def train(self, *, orchestration: str, experiment_name: str) -> None:
        """Raises what `ptycho_core.train` raises."""
        warn_of_unknown_variables()
        train_file, test_file = self._loader.files
        if test_file is None and train_file.name == TRAIN_FILE:
            test_file = train_file.with_name(TEST_FILE)  # a part of the other
        test = None if test_file is None else RawData.from_file(test_file).scan
        scan = RawData.from_file(train_file).scan
        with window.refusals():
            config = training_config(self._manager, N=scan.N, frames=len(scan))
            run = fit(scan, config, test=test, execution=execution_config(self._manager.training_config))
            window.introduce(f"{config.nepochs} epochs", config.backend)
        module, progress, place = self._model.model, self._trainer, Path(self._loader.output_dir) / BEST
        assert module is not None
        for report in run:
            if report.is_best:
                run.best[0].save(place)
            progress.current_epoch = report.epoch - 1
            progress.callback_metrics = {module.loss_name: report.train["total"]}
            if report.validation is not None:
                progress.callback_metrics[module.val_loss_name] = report.validation["total"]
                for callback in progress.callbacks:
                    callback.on_validation_epoch_end(progress, module)
            for callback in progress.callbacks:
                callback.on_train_epoch_end(progress, module)
            window.log.info("epoch %d/%d: loss %.4g", report.epoch, report.nepochs, report.train["total"])
        if run.model is not None:
            run.model.save(place)  # with the whole history
            module.archive = run.model


class InferenceEngine:
    """A model that reconstructs."""

    def __init__(self, *, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        self._manager, self._model = config_manager, ptycho_model

    def predict_and_stitch(self, loader: PtychoDataLoader) -> NDArray[np.complex64]:
        """The object (layers, H, W) on the grid of the one that the scan came with; there it stays without a patch.

        Layers after the first are 1 where it is known. Raises what `ptycho_core.reconstruct` raises.
        """
        self._manager.validate_arch_compatibility(self._model)
        assert self._model.model is not None and loader.scan is not None
        trained = self._model.model.archive
        assert trained is not None
        settings = {"neighbor_count": trained.config.neighbor_count, **environment_values("inference")}
        result = reconstruct(
            loader.scan.scan,
            trained,
            config=from_mapping(InferenceConfig, settings),
            execution=execution_config(self._manager.training_config),
            progress=False,
        )
        layers: NDArray[np.complex64] = loader.grid.get_array().astype(np.complex64)
        field, grid = result.object_field, ObjectGrid(shape=layers.shape[1:], pixel_m=(1.0, 1.0))
        placed, known = grid.place(field, field != 0, result.origin_px, layers[0])
        layers[0] = placed
        layers[1:, known] = 1
        return layers


def _new_folder(folder: Path) -> Path:
    """A folder of its own for a run, named by the time."""
    name = time.strftime("run_%Y%m%d_%H%M%S")
    for number in range(100):
        place = folder / (f"{name}_{number}" if number else name)
        if not place.exists():
            return make_folder(place)
    raise DataError(
        folder, expected="a folder for one more run", received="100 of the same second", remedy="Try again."
    )


def _object_of_the_caller() -> Any:
    """The object of the product that Ptychodus reconstructs; DataError where it cannot be found.

    Ptychodus gives positions in pixels of its grid, and takes what it gets for an object of the same centre.
    """
    frame = inspect.currentframe()
    for _ in range(2):
        frame = None if frame is None else frame.f_back
    product = None if frame is None else getattr(frame.f_locals.get("parameters"), "product", None)
    if product is None:
        raise DataError(
            "ptycho_torch",
            "from_np",
            expected="a call from Ptychodus 1.7, which has the object's grid",
            received="none",
            remedy="Use the algorithms of ptycho_core.integrations.ptychodus.",
        )
    return product.object_
