"""The one training loop: a generator of epoch reports, the same for every engine (specs/engine.md, Training)."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.batches.prefetch import gathered
from ptycho_core.batches.sampling import subsample
from ptycho_core.engine.objective import Objective, check_monitor
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import Cancelled, ConfigurationError, DataError, TrainingError
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import Checkpoint
from ptycho_core.models.model import Model
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import Table
from ptycho_core.physics.scale import calibrated_probe, measure_scale
from ptycho_core.physics.suitability import (
    check_size,
    report_dose,
    warn_if_ambiguous,
    warn_if_wide,
    warn_of_other_intensity,
)
from ptycho_core.scans.fingerprint import Fingerprint, check_same_scan, fingerprint
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.sections import existing_file
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.reports import EpochReport, Progress
from ptycho_core.training.resuming import check_continues
from ptycho_core.training.schedules import learning_rate, physics_weight
from ptycho_core.vocabulary import LOG_SCALE, PROBE, LossTerms, Weights

log = logging.getLogger(__name__)

LARGEST_REACH = 4  # specs/data.md, Groups


class Fit:
    """A training run: iterate for one `EpochReport` after every epoch; leave the loop to stop.

    `model` is the model with the best weights so far: the lowest `checkpoint_monitor_metric` (total loss unless set)
    on the test scan, or on the training scan when there is none. It is None until the first epoch has ended. `best`
    holds the `checkpoint_save_top_k` best ones, the best first. `patterns_per_epoch` counts a pattern once for each
    group that it is in. `checkpoint()`, between epochs, is what the run needs to go on, here or on another engine.
    """

    def __init__(
        self,
        scan: Scan | None,
        config: TrainingConfig,
        *,
        test: Scan | None = None,
        execution: ExecutionConfig | None = None,
        on_batch: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        resume: Checkpoint | None = None,
    ) -> None:
        config.validate()
        self.config = config = attrs.evolve(config, model=attrs.evolve(config.model))  # later changes do not reach it
        if execution is None:
            execution = ExecutionConfig() if resume is None else resume.execution
        self.execution = execution = attrs.evolve(execution)
        self.history: list[dict[str, float]] = []
        self.best: tuple[Model, ...] = ()
        self._scores: list[float] = []  # of the epochs so far, lower is better
        self._kept: list[tuple[float, float, int]] = []  # ranks of the best models, the epoch last
        self._fingerprints: dict[int, Fingerprint] = {}
        self._on_batch, self._should_stop = on_batch, should_stop
        table = build_table(config.model)
        check_monitor(execution, config)
        if resume is not None:
            check_continues(resume, config, execution)
        scan = self._checked(_given_or_loaded(scan, config, "train_data_file"))
        if scan is None:
            remedy = "Pass a scan, or set train_data_file."
            expected = "a scan to train on"
            raise ConfigurationError(
                "TrainingConfig", "train_data_file", expected=expected, received="none", remedy=remedy
            )
        self._scan = subsample(scan, config)
        self._test = test = self._checked(_given_or_loaded(test, config, "test_data_file"))

        self._test_groups = None
        if test is not None:
            n_groups = min(config.n_groups, len(test))
            self._test_groups = self._draw(test, np.random.default_rng([config.seed, 0]), n_groups)
        groups = self._draw(self._scan, np.random.default_rng(config.seed), config.n_groups)  # or it says why not
        self.patterns_per_epoch = groups.indices.size
        self._padding = max(self._canvas_padding(each) for each in (self._scan, test) if each is not None)
        if resume is None:
            weights = self._begun(table)
        else:
            self._check_same_scans(resume)
            weights = {**resume.weights, PROBE: resume.initial_probe}  # merge weights: specs/physics.md, Groups
        self._initial_probe = np.array(weights[PROBE])
        if test is not None:
            warn_of_other_intensity(test, weights)
        # Another engine goes on to rounding alone, so the one that began is preferred.
        automatic = resume is not None and config.backend == "auto"
        engine = load_engine(resume.engine.name if resume is not None and automatic else config.backend)
        self.engine = engine.describe()
        self._network = engine.build(config.model, self.config, weights, execution)
        self._between_epochs = True
        if resume is not None:
            self._go_on_from(resume)

    @property
    def model(self) -> Model | None:
        """The model with the best weights so far."""
        return self.best[0] if self.best else None

    @property
    def ended(self) -> bool:
        """Whether no epoch is left to train."""
        done, patience = len(self.history), self.config.early_stop_patience
        impatient = patience is not None and bool(self.best) and done - self.best[0].best_epoch >= patience
        return done >= self.config.nepochs or impatient

    def checkpoint(self) -> Checkpoint:
        """What the run needs to go on after its last whole epoch: `fit(..., resume=checkpoint)`.

        Raises TrainingError before the first epoch has ended, after an epoch that was left in the middle, and where a
        number is not finite.
        """
        if not self.history or not self._between_epochs:
            received = "no whole epoch" if not self.history else f"a part of epoch {len(self.history) + 1}"
            remedy = "Take a checkpoint when an epoch has ended, in the loop over the run."
            expected = "the state after a whole epoch"
            raise TrainingError("checkpoint", expected=expected, received=received, remedy=remedy)
        weights, optimizer = self._network.weights(), self._network.optimizer_state()
        if any(not np.isfinite(array).all() for array in (*weights.values(), *optimizer.values())):
            raise _diverged(f"weights and optimizer after epoch {len(self.history)}", "NaN or infinity")
        test = self._test
        return Checkpoint(
            config=self.config,
            execution=self.execution,
            weights=weights,
            optimizer=optimizer,
            initial_probe=self._initial_probe,
            history=[dict(row) for row in self.history],
            scores=tuple(self._scores),
            best=self.best,
            engine=self.engine,
            scan=self._fingerprint(self._scan),
            test=None if test is None else self._fingerprint(test),
        )

    def __iter__(self) -> Iterator[EpochReport]:
        config, scan = self.config, self._scan
        while not self.ended:
            epoch = len(self.history) + 1
            started = time.perf_counter()
            # Groups and order depend on seed and epoch alone, so a run that goes on later takes the same ones.
            rng = np.random.default_rng([config.seed, epoch])
            groups = self._draw(scan, rng, config.n_groups)
            order = rng.permutation(len(groups))
            rate, weight = learning_rate(config, epoch, self._scores), physics_weight(config, epoch)
            self._between_epochs = False
            # Closed at once whatever happens: a generator that an exception holds on to would keep its thread.
            with contextlib.closing(self._watched(self._gathered(scan, groups, order), epoch, len(groups))) as watched:
                train = self._network.train_epoch(watched, rate, weight)
            seconds = time.perf_counter() - started
            validation = None
            if self._test is not None and self._test_groups is not None:
                with contextlib.closing(self._gathered(self._test, self._test_groups)) as batches:
                    validation = self._network.evaluate(batches)
            is_best, is_kept = self._rank(epoch, train, train if validation is None else validation)
            report = EpochReport(
                done=epoch,
                total=config.nepochs,
                learning_rate=rate,
                physics_weight=weight,
                train=train,
                validation=validation,
                is_best=is_best,
                is_kept=is_kept,
                seconds=seconds,
                patterns_per_second=len(groups) * config.model.channels / seconds,
            )
            self.history.append(report.as_row())
            self._between_epochs = True
            yield report
        if len(self.history) < config.nepochs:
            log.info("early stop: no better loss for %d epochs", config.early_stop_patience)

    def _begun(self, table: Table) -> Weights:
        """The weights that a run begins with: probe and data scale measured on the scan, the others drawn."""
        config, scan = self.config, self._scan
        scale = measure_scale(scan, config.nphotons)
        report_dose(scan, config, scale.mean_counts_per_frame)
        probe = calibrated_probe(
            scan, config.probe_gauge, masked=config.model.probe_mask, scale=config.model.probe_scale
        )
        warn_if_ambiguous(scan, config)
        warn_if_wide(scan, config)
        drawn = initial_weights(table, np.random.default_rng(config.seed))
        return {**drawn, PROBE: probe, LOG_SCALE: np.zeros((), np.float32), **scale.as_weights()}

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        self._network.load_weights(checkpoint.weights)
        self._network.load_optimizer_state(checkpoint.optimizer)
        self.history = [dict(row) for row in checkpoint.history]
        self._scores = list(checkpoint.scores)
        self.best = tuple(
            attrs.evolve(model, config=self.config, history=self.history, backend=model.engine.name)
            for model in checkpoint.best
        )
        self._kept = sorted(self._rank_of(model.best_epoch) for model in self.best)

    def _check_same_scans(self, checkpoint: Checkpoint) -> None:
        """DataError unless the scans are those that the run began with."""
        check_same_scan(self._scan, self._fingerprint(self._scan), checkpoint.scan)
        if (self._test is None) != (checkpoint.test is None):
            known = {True: "a test scan", False: "no test scan"}
            expected = f"{known[checkpoint.test is not None]}, as the run began"
            received, remedy = known[self._test is not None], "Give what it began with, or begin a new run."
            raise DataError("TrainingConfig.test_data_file", expected=expected, received=received, remedy=remedy)
        if self._test is not None and checkpoint.test is not None:
            check_same_scan(self._test, self._fingerprint(self._test), checkpoint.test)

    def _fingerprint(self, scan: Scan) -> Fingerprint:
        known = self._fingerprints.get(id(scan))
        if known is None:
            known = self._fingerprints[id(scan)] = fingerprint(scan, with_truth=self._with_truth)
        return known

    def _rank(self, epoch: int, train: LossTerms, monitored: LossTerms) -> tuple[bool, bool]:
        """Keep the network's weights if they are among the best; whether they are the best, and whether kept."""
        metric = self.execution.checkpoint_monitor_metric
        value = monitored[metric]
        if not math.isfinite(train["total"]) or not math.isfinite(value):
            raise _diverged(f"loss of epoch {epoch}", f"train {train['total']}, monitored {metric} {value}")
        self._scores.append(value if self.execution.checkpoint_mode == "min" else -value)
        self._kept = sorted([*self._kept, self._rank_of(epoch)])[: self.execution.checkpoint_save_top_k]
        models = {model.best_epoch: model for model in self.best}
        if any(epoch == kept for *_, kept in self._kept):
            models[epoch] = self._snapshot(epoch)
        self.best = tuple(models[kept] for *_, kept in self._kept)
        return self.best[0].best_epoch == epoch, epoch in {model.best_epoch for model in self.best}

    def _rank_of(self, epoch: int) -> tuple[float, float, int]:
        """By what an epoch is ranked, the lowest first."""
        # Under another physics weight the training loss means another thing: what came under the last one is best.
        weight = physics_weight(self.config, epoch) if self._test is None else 1.0
        return -weight, self._scores[epoch - 1], epoch

    def _snapshot(self, epoch: int) -> Model:
        weights = self._network.weights()
        if any(not np.isfinite(array).all() for array in weights.values()):
            raise _diverged(f"weights after epoch {epoch}", "NaN or infinity")  # its last step is in no loss yet
        return Model(
            config=self.config,
            weights=weights,
            history=self.history,
            engine=self.engine,
            best_epoch=epoch,
            backend=self.engine.name,
        )

    def _gathered(self, scan: Scan, groups: Groups, order: NDArray[np.int64] | None = None) -> Generator[Batch]:
        """Batches of the groups, gathered ahead."""
        return gathered(
            groups,
            scan,
            self.config.batch_size,
            canvas_padding_px=self._padding,
            order=order,
            with_truth=self._with_truth,
            workers=self.execution.num_workers,
        )

    @property
    def _with_truth(self) -> bool:
        return Objective.of(self.config).compares("truth")

    def _checked(self, scan: Scan | None) -> Scan | None:
        """The scan, at the positions that training uses; DataError where it does not suit the configuration."""
        if scan is None:
            return None
        check_size(scan, self.config.model.N)
        if self._with_truth and scan.object_field is None:
            remedy = "Give a scan with objectGuess, or use model_type = 'pinn' with realspace_mae_weight = 0."
            expected = "ground truth for supervised training or realspace_mae_weight"
            raise DataError(scan.source, "objectGuess", expected=expected, received="none", remedy=remedy)
        if not self.config.positions_provided:
            scan = attrs.evolve(scan, positions_px=np.asarray(scan.nominal_positions_px))
        return scan

    def _draw(self, scan: Scan, rng: np.random.Generator, n_groups: int) -> Groups:
        config = self.config
        return draw_groups(
            scan.positions_px,
            rng,
            gridsize=config.model.gridsize,
            n_groups=n_groups,
            neighbor_count=config.neighbor_count,
            enable_oversampling=config.enable_oversampling,
            neighbor_pool_size=config.neighbor_pool_size,
            sequential=config.sequential_sampling,
        )

    def _canvas_padding(self, scan: Scan) -> int:
        pool = self.config.neighbor_pool_size or self.config.neighbor_count
        reach = largest_reach_px(scan.positions_px, gridsize=self.config.model.gridsize, neighbor_count=pool)
        if reach > LARGEST_REACH * scan.N:
            expected = f"neighbours within {LARGEST_REACH} patches of each other, so that a group fits on a canvas"
            received, remedy = f"a reach of {reach} px at N = {scan.N}", "Drop stray positions, or use gridsize 1."
            raise DataError(scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy)
        return reach

    def _watched(self, gathered: Generator[Batch], epoch: int, groups: int) -> Generator[Batch]:
        """The batches; progress is told and a wish to stop is looked at before each one."""
        total, patterns = -(-groups // self.config.batch_size), 0
        nepochs, whole = self.config.nepochs, self.patterns_per_epoch
        with contextlib.closing(gathered):
            for number, batch in enumerate(gathered):
                if self._should_stop():
                    raise Cancelled(f"stopped in epoch {epoch}, before batch {number + 1} of {total}")
                if self._on_batch is not None:
                    self._on_batch(
                        Progress(
                            done=(epoch - 1) * whole + patterns,
                            total=nepochs * whole,
                            epoch=epoch,
                            nepochs=nepochs,
                            batch=number,
                            batches=total,
                            patterns=patterns,
                        )
                    )
                yield batch
                patterns += len(batch) * self.config.model.channels


def fit(
    scan: Scan | None,
    config: TrainingConfig,
    *,
    test: Scan | None = None,
    execution: ExecutionConfig | None = None,
    on_batch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    resume: Checkpoint | None = None,
) -> Fit:
    """Begin to train: `for report in (run := fit(scan, config)): …`, then `run.model`.

    scan: None is the scan in `config.train_data_file`; test, unless given, is the one in `config.test_data_file`.
    test: a second scan whose loss chooses the best weights. on_batch: called before every training step.
    should_stop: looked at before every training step; when it says so, `Cancelled` is raised, and `run.model` holds
    the best weights of the epochs that ended. resume: what `run.checkpoint()` gave or `load_checkpoint` read; the run
    goes on, with `resume.config` or one that continues it, and on the same scans. Raises ConfigurationError, DataError,
    BackendError or TrainingError.
    """
    return Fit(scan, config, test=test, execution=execution, on_batch=on_batch, should_stop=should_stop, resume=resume)


def train(
    scan: Scan | None,
    config: TrainingConfig,
    *,
    test: Scan | None = None,
    execution: ExecutionConfig | None = None,
    callbacks: Iterable[Callable[[EpochReport], None]] = (),
) -> Model:
    """Train to the end and return the model with the best weights; every callback is given every epoch's report."""
    run = fit(scan, config, test=test, execution=execution)
    for report in run:
        for callback in callbacks:
            callback(report)
    assert run.model is not None  # the first finite loss is a best one, another one raises
    return run.model


def _diverged(what: str, received: str) -> TrainingError:
    remedy = "Lower learning_rate or set gradient_clip_val."
    return TrainingError("training", what, expected="finite numbers", received=received, remedy=remedy)


def _given_or_loaded(scan: Scan | None, config: TrainingConfig, field: str) -> Scan | None:
    """The scan itself, or the one in the file that the configuration names, if it does."""
    path = existing_file(config, field) if scan is None else None
    return scan if path is None else load_scan(path)
