"""Our algorithms as Ptychodus's reconstructors."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

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
from ptycho_core.embedding import Model, ReconstructionProgress, ScanFile
from ptycho_core.engine.registry import resolve_backend
from ptycho_core.errors import ConfigurationError, PtychoError
from ptycho_core.integrations.ptychodus import settings_files
from ptycho_core.integrations.ptychodus.products import arrays_of, product_of, solved_product
from ptycho_core.integrations.ptychodus.settings import AUTO, PtychoCoreSettings, window_line
from ptycho_core.integrations.ptychodus.training_data import training_files
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import make_folder, replacing

log = logging.getLogger("ptycho_core")

LIBRARY = "ptycho-core"
MODEL_FILE = "wts.h5.zip"
PARTIAL_SECONDS = 2.0
"""Least time between two objects that Ptychodus is given: to draw one holds up its window."""
LOSS = "total"
MISFIT = "R"


class Host:
    """The Ptychodus that we work for: hears of progress and says when to stop. Without a core, nobody does."""

    def __init__(self, core: Any = None) -> None:
        self._core = core

    @property
    def _monitor(self) -> Any:
        return self._core.processing_core.processing_api.task_monitor

    def stopping(self) -> bool:
        """Whether somebody pressed Stop, or Ptychodus ends."""
        if self._core is None:
            return False
        monitor = self._monitor  # which knows of a Stop until the next work begins
        return bool(self._core._task_manager.is_stopping or (monitor.is_processing and monitor.is_stopping))

    def progress(self, done: int, goal: int) -> None:
        if self._core is not None:
            self._monitor.update_progress(done, goal)

    def show(self) -> None:
        """Let the window show what was logged; from its own thread."""
        if self._core is not None:
            self._monitor.notify_observers()


class PtychoCoreAlgorithm(Reconstructor):
    """What all of ours share: the settings, the losses for the plot, and how often an object is shown."""

    def __init__(self, library: PtychoCoreReconstructorLibrary, name: str) -> None:
        super().__init__()
        self.library, self._settings, self._name = library, library.settings, name
        self.training_loss: list[LossValue] = []
        self.validation_loss: list[LossValue] = []

    @property
    def name(self) -> str:
        return self._name

    def engine(self) -> str:
        """The engine that the settings stand for, in words."""
        raise NotImplementedError

    def model_facts(self) -> str | None:
        """What is loaded, in words; None where no model is needed."""
        return None

    def _outputs(
        self, steps: Generator[Any], product: Callable[[Any], Product], heard: Callable[[Any], None]
    ) -> Iterator[ReconstructOutput]:
        """At most one object in two seconds, and the last in any case. heard: called with every item that is new."""
        last, shown, due = None, None, 0.0
        with contextlib.closing(steps):
            for progress in steps:
                self.library.host.progress(progress.done, progress.goal)
                if progress is not last:
                    heard(progress)
                    last = progress
                stop, whole = self.library.host.stopping(), progress.done == progress.goal
                new = progress is not shown and progress.done > 0
                if new and (stop or whole or time.monotonic() >= due):
                    yield ReconstructOutput(product=product(progress), progress=progress.done)
                    shown, due = progress, time.monotonic() + PARTIAL_SECONDS
                if stop and not whole:
                    kept = "the object so far is kept" if progress.done else "nothing is changed"
                    log.info("%s: stopped at %d of %d; %s.", self.name, progress.done, progress.goal, kept)
                    return
        log.info("%s: done. Next: see it under Object, save it under Products.", self.name)


class PtychoCoreReconstructor(PtychoCoreAlgorithm, TrainableReconstructor):
    """One network, `model_type` "pinn" or "supervised", as an algorithm."""

    def __init__(self, model_type: str, library: PtychoCoreReconstructorLibrary) -> None:
        super().__init__(library, embedding.NETWORKS[model_type])
        self._model_type = model_type
        self._model_file: Path | None = None
        self._model: Model | None = None
        self._goal: int | None = None

    def engine(self) -> str:
        return _engine(self._settings.backend("training"))

    def model_facts(self) -> str | None:
        if self._model_file is None:
            return "none: train one, or load a file"
        if self._model is None:
            return str(self._model_file)
        model, made = self._model, self._model.config.model
        best = f"best epoch {model.best_epoch} of {len(model.history)}"
        return f"{self._model_file}: {made.architecture}, N = {made.N}, {best}, {model.engine.name}"

    def get_progress_goal(self) -> int:
        """Groups of patterns while a reconstruction runs, else the epochs of a training; 0 where settings are wrong."""
        if self._goal is not None:
            return self._goal
        try:
            return self._settings.epochs()
        except ConfigurationError:
            return 0  # the training says what is wrong

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """An output after two seconds, and every two seconds then; the last one is whole."""
        with refusals():
            if self._model_file is None:
                raise self._no_model()
            model = self._model or embedding.load_model(self._model_file)  # after a training that failed
            data, config = arrays_of(parameters), self._settings.inference(model.config.model)
            log.info("%s: reconstructing %d patterns with %s", self.name, len(data.patterns), self.model_facts())
            steps = embedding.reconstruct(data, self._model_file, config, execution=self._settings.execution())
            losses = list(self.validation_loss or self.training_loss)

            def heard(progress: ReconstructionProgress) -> None:
                self._goal = progress.goal

            try:
                yield from self._outputs(
                    steps, lambda progress: product_of(parameters.product, progress, losses), heard
                )
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
        with refusals():
            self._load(path)
        assert self._model is not None
        trained = self._model.config.model.model_type
        if trained != self._model_type:
            log.warning("%s: the model was trained as %r and is used as such", path, trained)
        log.info("%s: loaded %s. Next: Infer.", self.name, self.model_facts())

    def save_model(self, file_path: Path) -> None:
        with refusals():
            if self._model_file is None:
                raise self._no_model()
            content = self._model_file.read_bytes()
            with replacing(file_path) as file:
                file.write(content)
        log.info("%s: saved the model as %s.", self.name, file_path)

    def get_training_data_file_filter(self) -> str:
        return embedding.TRAINING_DATA_FILE_FILTER

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        """An NPZ file of amplitudes, which says so; `.npz` is added where the name has no ending."""
        path = file_path if file_path.suffix else file_path.with_suffix(embedding.TRAINING_DATA_FILE_EXTENSION)
        with refusals():
            embedding.export_training_data(path, arrays_of(parameters))
        log.info("%s: wrote %s. Next: Train, and choose its folder.", self.name, path)

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """An output after every epoch, with the losses until then; the best model so far is the one that is loaded.

        input_path: a scan file, or a folder with train_data.npz and, if there is one, test_data.npz. output_path: a
        folder for `wts.h5.zip`, created if missing, or a file that ends in .zip.
        """
        with refusals():
            train_file, test_file = training_files(input_path)
            config = self._settings.training(self._model_type)
            log.info(
                "%s: training on %s for %d epochs with %s, %s",
                self.name,
                train_file,
                config.nepochs,
                self.engine(),
                "without test data" if test_file is None else f"test data {test_file}",
            )
            target = output_path if output_path.suffix == ".zip" else make_folder(output_path) / MODEL_FILE
            steps = embedding.train(
                self._source(train_file),
                target,
                config,
                test=None if test_file is None else self._source(test_file),
                execution=self._settings.execution(),
                should_stop=self.library.host.stopping,
            )
            self.training_loss, self.validation_loss = [], []
            progress = None
            with contextlib.closing(steps):
                for progress in steps:
                    self._model_file, self._model = progress.model_path, None
                    self.training_loss.append(LossValue(progress.epoch, progress.train[LOSS]))
                    text = f"loss {progress.train[LOSS]:.4g}"
                    if progress.validation is not None:
                        self.validation_loss.append(LossValue(progress.epoch, progress.validation[LOSS]))
                        text += f", of the test data {progress.validation[LOSS]:.4g}"
                    best = " (best so far)" if progress.is_best else ""
                    log.info("%s: epoch %d of %d: %s%s", self.name, progress.epoch, progress.goal, text, best)
                    yield TrainOutput(list(self.training_loss), list(self.validation_loss), progress=progress.epoch)
            if progress is None:
                log.info("%s: stopped before the first epoch ended: there is no new model.", self.name)
                return
            ended = "done" if progress.epoch == progress.goal else f"stopped after epoch {progress.epoch}"
            log.info(
                "%s: %s. The model of the best epoch, %d, is %s and is loaded. Next: Infer.",
                self.name,
                ended,
                progress.best_epoch,
                progress.model_path,
            )
            self._load(progress.model_path, keep_losses=True)

    def _load(self, path: Path, *, keep_losses: bool = False) -> None:
        self._model = embedding.load_model(path)
        self._model_file = path
        if not keep_losses:
            self.training_loss, self.validation_loss = [], []

    def _source(self, path: Path) -> ScanFile:
        """The file says what its patterns are, by `_metadata` or by their type, unless the settings do."""
        measurement: Any = self._settings.measurement.get_value().strip().lower()
        return ScanFile(path=path, options=ReadOptions(measurement=None if measurement in ("", AUTO) else measurement))

    def _no_model(self) -> ConfigurationError:
        remedy = "Train one, or open a model file."
        return ConfigurationError(self.name, expected="a model", received="none", remedy=remedy)


class PtychoCoreSolver(PtychoCoreAlgorithm):
    """The solver as an algorithm: no network, no training; probe and positions come back as they were refined."""

    def __init__(self, library: PtychoCoreReconstructorLibrary) -> None:
        super().__init__(library, embedding.SOLVER)

    def engine(self) -> str:
        return _engine(self._settings.backend("solving"))

    def get_progress_goal(self) -> int:
        """Sweeps; 0 of settings that are wrong."""
        try:
            return int(self._settings.values("solving")["sweeps"])
        except ConfigurationError:
            return 0  # the solve says what is wrong

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """An output after a sweep, and every two seconds then; the last one is whole."""
        with refusals():
            data, config = arrays_of(parameters), self._settings.solving()
            log.info("%s: %d patterns, %d sweeps with %s", self.name, len(data.patterns), config.sweeps, self.engine())
            steps = embedding.solve(data, config, execution=self._settings.execution())
            losses: list[LossValue] = []
            self.training_loss = losses

            def heard(progress: Any) -> None:
                if progress.done and MISFIT in progress.terms and not (losses and losses[-1].epoch == progress.done):
                    losses.append(LossValue(progress.done, progress.terms[MISFIT]))
                    log.info("%s: sweep %d of %d: R %.4g", self.name, progress.done, progress.goal, losses[-1].value)

            yield from self._outputs(
                steps, lambda progress: solved_product(parameters.product, progress, list(losses)), heard
            )


class PtychoCoreReconstructorLibrary(ReconstructorLibrary):
    """The algorithms of this package. host: who is told of progress and asked whether to stop."""

    def __init__(self, settings_registry: SettingsRegistry, is_developer_mode_enabled: bool = False) -> None:
        super().__init__("ptycho_core")
        self.host = Host()
        self.settings = PtychoCoreSettings.create(settings_registry)
        networks = [PtychoCoreReconstructor(kind, self) for kind in embedding.NETWORKS]
        self._reconstructors: list[PtychoCoreAlgorithm] = [*networks, PtychoCoreSolver(self)]
        missing = [each.name for each in embedding.backends() if not each.available]
        if missing:
            log.info("engines that are not installed: %s", ", ".join(missing))

    @property
    def name(self) -> str:
        return LIBRARY

    def __iter__(self) -> Iterator[Reconstructor]:
        return iter(self._reconstructors)


def add(core: Any) -> PtychoCoreReconstructorLibrary:
    """`register`."""
    algorithms = core.processing_core.algorithm_parameter
    added = algorithms._reconstructor_map.get(algorithms.generate_key(LIBRARY, embedding.SOLVER))
    if isinstance(added, PtychoCoreAlgorithm):
        return added.library
    registry = core.settings_registry
    library = PtychoCoreReconstructorLibrary(registry)
    library.host = Host(core)
    for reconstructor in library:
        # Ptychodus has no public way to add an algorithm.
        algorithms._reconstructor_map[algorithms.generate_key(library.name, reconstructor.name)] = reconstructor
    library.get_logger().addHandler(core.processing_core.processing_api.task_monitor.get_log_handler())
    logging.getLogger("ptychodus.model.task_manager").addFilter(_not_said_already)
    settings_files.restore(registry, {name: registry[name] for name in library.settings.groups()})
    if algorithms.get_value() == "none_none":
        algorithms.set_value(settings_files.stated_algorithm(registry) or "")
    if algorithms.get_value() == "none_none":
        algorithms.set_value(algorithms.generate_key(LIBRARY, next(iter(library)).name))
    return library


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Say an error that a user can mend as one line in the names of the window; it goes on to whoever waits."""
    try:
        yield
    except PtychoError as error:
        log.error("%s", window_line(error))
        raise


def _not_said_already(record: logging.LogRecord) -> bool:
    """Whether Ptychodus shall log a failure of a task, with its traceback: not where it is ours and has been said."""
    return not (record.exc_info and isinstance(record.exc_info[1], PtychoError))


def _engine(backend: str) -> str:
    try:
        name = resolve_backend(backend)
    except PtychoError as error:
        return str(error)
    return f"{name} (auto)" if backend.casefold() == AUTO else name
