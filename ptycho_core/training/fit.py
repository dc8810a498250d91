"""The one training loop: a generator of epoch reports, the same for every engine (specs/engine.md, Training)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np

from ptycho_core.bars import bar_where_asked
from ptycho_core.batches.batch import Batch
from ptycho_core.engine.processes import ALONE, Processes, agreed, never
from ptycho_core.errors import Cancelled, TrainingError
from ptycho_core.models.checkpoint import Checkpoint
from ptycho_core.models.model import Model
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.best import Best, diverged
from ptycho_core.training.prepare import prepare
from ptycho_core.training.reports import LOSSES_EVERY_S, EpochReport, Progress
from ptycho_core.training.schedules import learning_rate, physics_weight
from ptycho_core.training.start import Scans, Started, start
from ptycho_core.vocabulary import LossTerms

log = logging.getLogger(__name__)


class Fit:
    """A training run: iterate for one `EpochReport` after every epoch; leave the loop to stop.

    `history` has a row for every epoch. `patterns_per_epoch` counts a pattern once for each group that it is in.
    `checkpoint()`, between epochs, is what the run needs to go on, here or on another engine.
    """

    def __init__(
        self,
        started: Started,
        *,
        on_batch: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> None:
        self.config, self.execution, self.engine = started.config, started.execution, started.engine
        self.patterns_per_epoch = started.patterns_per_epoch
        resume = started.resume
        self.history: list[dict[str, float]] = [] if resume is None else [dict(row) for row in resume.history]
        self._started, self._network = started, started.network
        self._best = Best(
            self.config,
            self.execution,
            engine=self.engine,
            history=self.history,
            tested=started.tests is not None,
            judged_by=None if started.guard is None else started.guard.term,
            seen=started.seen,
            resume=resume,
        )
        self._on_batch, self._should_stop = on_batch, agreed(started.processes, should_stop)
        self._between_epochs = True
        self._losses: LossTerms = {}

    def __repr__(self) -> str:
        return f"Fit(epoch {len(self.history)} of {self.config.nepochs}, {self.engine.name}, {self.config.model!r})"

    @property
    def best(self) -> tuple[Model, ...]:
        """The `checkpoint_save_top_k` best models so far, the best first."""
        return self._best.models

    @property
    def model(self) -> Model | None:
        """The model with the best weights so far, by `checkpoint_monitor_metric`.

        Of the test scan, or of the training scan where there is none. None until the first epoch has ended.
        """
        return self.best[0] if self.best else None

    @property
    def ended(self) -> bool:
        """Whether no epoch is left to train."""
        done, patience = len(self.history), self.config.early_stop_patience
        impatient = patience is not None and bool(self.best) and done - self.best[0].best_epoch >= patience
        return done >= self.config.nepochs or impatient

    @property
    def bytes_on_disk(self) -> int:
        """What models and checkpoint take at least, the one that is being written beside the one that it replaces."""
        weights = sum(array.nbytes for array in self._started.weights().values())
        kept = self.execution.checkpoint_save_top_k
        models = kept + 1 if kept > 1 else 1
        whole = 2 * (3 + kept) if self.execution.enable_checkpointing else 0  # weights, two moments, the best
        return weights * (models + whole)

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
        weights, optimizer = self._started.weights(), self._network.optimizer_state()
        if any(not np.isfinite(array).all() for array in (*weights.values(), *optimizer.values())):
            raise diverged(f"weights and optimizer after epoch {len(self.history)}", "NaN or infinity")
        started = self._started
        return Checkpoint(
            config=self.config,
            execution=self.execution.for_any_processes(),
            weights=weights,
            optimizer=optimizer,
            initial_probe=started.illumination.pairs,
            history=[dict(row) for row in self.history],
            scores=tuple(self._best.scores),
            best=self.best,
            engine=self.engine,
            scans=tuple(each.data.fingerprint for each in started.scans.lit),
            tests=tuple(each.data.fingerprint for each in (() if started.tests is None else started.tests.lit)),
            others=tuple(each.illumination for each in started.seen[1:]),
        )

    def __iter__(self) -> Iterator[EpochReport]:
        config, started = self.config, self._started
        if started.guard is not None and started.guard.untrained and not self.ended:
            kept = [model.weights for model in self.best if model.best_epoch == 0]  # where a run goes on
            first = kept[0] if kept else started.untrained()
            self._best.begin(started.guard(first)[started.guard.term], first)
        while not self.ended:
            epoch = len(self.history) + 1
            began = time.perf_counter()
            # Groups and order depend on seed and epoch alone, so a run that goes on later takes the same ones.
            rng = np.random.default_rng([config.seed, epoch])
            drawn = started.scans.shuffled(rng)
            rate, weight = learning_rate(config, epoch, self._best.scores), physics_weight(config, epoch)
            self._between_epochs = False
            gathered = started.scans.batches(drawn)
            # Closed at once whatever happens: a generator that an exception holds on to would keep its thread.
            with contextlib.closing(self._watched(gathered, epoch, len(drawn.turns))) as watched:
                train = self._network.train_epoch(watched, rate, weight)
            seconds = time.perf_counter() - began
            validation = None
            if started.tests is not None and started.tested is not None:
                with contextlib.closing(started.tests.batches(started.tested)) as batches:
                    validation = self._network.evaluate(batches)
            monitored = train if validation is None else validation
            if started.guard is not None:
                monitored = {**monitored, **started.guard(started.weights())}
                train, validation = (monitored, None) if validation is None else (train, monitored)
            train, validation, monitored = started.processes.tell([train, validation, monitored])  # decided once
            is_best, is_kept = self._best.rank(epoch, train, monitored, started.weights)
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
                patterns_per_second=drawn.patterns / seconds,
            )
            self.history.append(report.as_row())
            self._between_epochs = True
            self._losses = report.terms
            yield report
        if len(self.history) < config.nepochs:
            log.info("early stop: no better loss for %d epochs", config.early_stop_patience)

    def _watched(self, gathered: Generator[Batch], epoch: int, total: int) -> Generator[Batch]:
        """The batches; progress is told and a wish to stop is looked at before each one."""
        patterns = 0
        nepochs, whole = self.config.nepochs, self.patterns_per_epoch
        due = time.perf_counter()
        with contextlib.closing(gathered):
            for number, batch in enumerate(gathered):
                if self._should_stop():
                    raise Cancelled(f"stopped in epoch {epoch}, before batch {number + 1} of {total}")
                if self._on_batch is not None:
                    if number > 0 and time.perf_counter() >= due:
                        self._losses = {**self._losses, **self._network.losses_so_far()}
                        due = time.perf_counter() + LOSSES_EVERY_S
                    self._on_batch(
                        Progress(
                            done=(epoch - 1) * whole + patterns,
                            total=nepochs * whole,
                            epoch=epoch,
                            nepochs=nepochs,
                            batch=number,
                            batches=total,
                            patterns=patterns,
                            terms=self._losses,
                        )
                    )
                yield batch
                patterns += len(batch) * self.config.model.channels


def fit(
    scan: Scans,
    config: TrainingConfig,
    *,
    test: Scans = None,
    execution: ExecutionConfig | None = None,
    on_batch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = never,
    resume: Checkpoint | None = None,
    begin_from: Model | None = None,
    processes: Processes = ALONE,
) -> Fit:
    """Begin to train: `for report in (run := fit(scan, config)): …`, then `run.model`.

    scan: one, or several that one model is trained on; None is the scan in `config.train_data_file`, or all that it
    lists. test: likewise, unless given what `config.test_data_file` says; its loss chooses the best weights. on_batch:
    called before every training step.
    should_stop: looked at before every training step; when it says so, `Cancelled` is raised, and `run.model` holds
    the best weights of the epochs that ended. resume: what `run.checkpoint()` gave or `load_checkpoint` read; the run
    goes on, with `resume.config` or one that continues it, and on the same scans in their order. begin_from: a model
    whose layers are the first weights of a new run, of another scan, probe or dose; its optimiser is not. Settings and
    backend are refused before a scan is read. processes: those that train together, each of which calls this with the
    same arguments and iterates; the history, the models and the checkpoint are the same in all of them. Raises
    ConfigurationError, DataError, BackendError, ProcessError or TrainingError.
    """
    started = start(prepare(config, execution=execution, resume=resume), scan, test, begin_from, processes)
    return Fit(started, on_batch=on_batch, should_stop=should_stop)


def train(
    scan: Scans,
    config: TrainingConfig,
    *,
    test: Scans = None,
    execution: ExecutionConfig | None = None,
    callbacks: Iterable[Callable[[EpochReport], bool | None]] = (),
    progress: bool | None = None,
) -> Model:
    """Train to the end and return the model with the best weights.

    scan, test: as `fit` takes them. callbacks: each is given the report of every epoch; where one returns True, the
    training ends there, as well as if that had been its last epoch. What one raises, such as `Cancelled`, is raised
    here, and the model is lost: to stop in the midst of an epoch and keep it, use `fit` with `should_stop`. progress:
    show a bar with the loss; None is on a terminal and in a notebook, unless `enable_progress_bar` is off.
    """
    called, allowed = tuple(callbacks), execution is None or execution.enable_progress_bar
    with bar_where_asked(progress, allowed) as bar:
        run = fit(scan, config, test=test, execution=execution, on_batch=bar)
        for report in run:
            bar(report)
            answers = [callback(report) for callback in called]  # all are told
            if any(answer is True for answer in answers):
                log.info("stopped by a callback after epoch %d of %d", report.epoch, report.nepochs)
                break
    assert run.model is not None  # the first finite loss is a best one, another one raises
    return run.model
