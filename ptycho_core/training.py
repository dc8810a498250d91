"""The one training loop: a generator of epoch reports, the same for every engine (specs/engine.md, Training)."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import attrs
import numpy as np

from ptycho_core.architecture import Weights, build_table, initial_weights
from ptycho_core.archive import Model
from ptycho_core.config import ExecutionConfig, TrainingConfig
from ptycho_core.contracts import Batch, Scan
from ptycho_core.engine import LossTerms, load_engine
from ptycho_core.errors import Cancelled, ConfigurationError, DataError, TrainingError, explain
from ptycho_core.grouping import Groups, draw_groups, largest_reach_px
from ptycho_core.physics import (
    LOG_SCALE,
    MEAN_INTENSITY,
    PROBE,
    calibrated_probe,
    mean_frame_intensity,
    measure_scale,
    outside_centre_mask,
    probe_mask,
)
from ptycho_core.prefetch import prefetch

log = logging.getLogger(__name__)

SYMMETRIC_PROBE = 0.9  # specs/physics.md, Ambiguity
SMALLEST_EXTENT_PX, LARGEST_REACH = 0.1, 4  # specs/data.md, Groups
WIDE_PROBE = 0.2  # specs/model.md, Wide probes


@attrs.frozen
class EpochReport:
    """What one epoch did. `epoch` counts from 1; loss terms are means over the epoch's groups."""

    epoch: int
    nepochs: int
    learning_rate: float
    train: LossTerms
    validation: LossTerms | None
    is_best: bool
    seconds: float
    patterns_per_second: float

    def as_row(self) -> dict[str, float]:
        """One flat row of the history: training terms by name, validation terms with the prefix `validation_`."""
        row = {"epoch": float(self.epoch), "learning_rate": self.learning_rate, **self.train}
        row |= {f"validation_{name}": value for name, value in (self.validation or {}).items()}
        return row | {"seconds": self.seconds}


@attrs.frozen
class Progress:
    """Within an epoch, before a batch is handed to the engine: `patterns` of the epoch are done."""

    epoch: int
    nepochs: int
    batch: int
    batches: int
    patterns: int


class Fit:
    """A training run: iterate for one `EpochReport` after every epoch; leave the loop to stop.

    `model` is the model with the best weights so far: lowest total loss on the test scan, or on the training scan
    when there is none. It is None until the first epoch has ended. `patterns_per_epoch` counts a pattern once for each
    group that it is in.
    """

    def __init__(
        self,
        scan: Scan,
        config: TrainingConfig,
        *,
        test: Scan | None = None,
        execution: ExecutionConfig | None = None,
        on_batch: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        config.validate()
        self.config = config = attrs.evolve(config, model=attrs.evolve(config.model))  # later changes do not reach it
        self.history: list[dict[str, float]] = []
        self.model: Model | None = None
        self._best, self._best_epoch = math.inf, 0
        self._on_batch, self._should_stop = on_batch, should_stop
        table = build_table(config.model)
        self._check_scan(scan, config)
        self._scan = _subsample(scan, config)
        self._test = test
        if test is not None:
            self._check_scan(test, config)

        self._test_groups = None
        if test is not None:
            n_groups = min(config.n_groups, len(test))
            self._test_groups = self._draw(test, np.random.default_rng([config.seed, 0]), n_groups)
        groups = self._draw(self._scan, np.random.default_rng(config.seed), config.n_groups)  # or it says why not
        self.patterns_per_epoch = groups.indices.size
        self._padding = max(self._canvas_padding(each) for each in (self._scan, test) if each is not None)
        scale = measure_scale(self._scan, config.nphotons)
        _report_dose(self._scan, config, scale.mean_counts_per_frame)
        probe = calibrated_probe(self._scan, config.probe_gauge, masked=config.model.probe_mask)
        _warn_if_ambiguous(self._scan, config)
        _warn_if_wide(self._scan, config)
        weights = initial_weights(table, np.random.default_rng(config.seed))
        weights |= {PROBE: probe, LOG_SCALE: np.zeros((), np.float32), **scale.as_weights()}
        if test is not None:
            warn_of_other_intensity(test, weights)
        engine = load_engine(config.backend)
        self.engine = engine.describe()
        self._network = engine.build(config.model, self.config, weights, execution or ExecutionConfig())

    def __iter__(self) -> Iterator[EpochReport]:
        config, scan, padding = self.config, self._scan, self._padding
        while len(self.history) < config.nepochs:
            epoch = len(self.history) + 1
            started = time.perf_counter()
            # Groups and order depend on seed and epoch alone, so a run that goes on later takes the same ones.
            rng = np.random.default_rng([config.seed, epoch])
            groups = self._draw(scan, rng, config.n_groups)
            order = rng.permutation(len(groups))
            rate = learning_rate(config, epoch)
            batches = groups.batches(
                scan, config.batch_size, canvas_padding_px=padding, order=order, with_truth=self._with_truth
            )
            # Closed at once whatever happens: a generator that an exception holds on to would keep its thread.
            with contextlib.closing(self._watched(batches, epoch, len(groups))) as watched:
                train = self._network.train_epoch(watched, rate)
            seconds = time.perf_counter() - started
            validation = None
            if self._test is not None and self._test_groups is not None:
                batches = self._test_groups.batches(
                    self._test, config.batch_size, canvas_padding_px=padding, with_truth=self._with_truth
                )
                with contextlib.closing(prefetch(batches)) as gathered:
                    validation = self._network.evaluate(gathered)
            monitored = (train if validation is None else validation)["total"]
            if not math.isfinite(train["total"]) or not math.isfinite(monitored):
                raise _diverged(f"loss of epoch {epoch}", f"train {train['total']}, monitored {monitored}")
            is_best = monitored < self._best
            weights = self._network.weights() if is_best else {}
            if any(not np.isfinite(array).all() for array in weights.values()):
                raise _diverged(f"weights after epoch {epoch}", "NaN or infinity")  # its last step is in no loss yet
            report = EpochReport(
                epoch=epoch,
                nepochs=config.nepochs,
                learning_rate=rate,
                train=train,
                validation=validation,
                is_best=is_best,
                seconds=seconds,
                patterns_per_second=len(groups) * config.model.channels / seconds,
            )
            self.history.append(report.as_row())
            if is_best:
                self._best, self._best_epoch = monitored, epoch
                self.model = Model(
                    config=self.config,
                    weights=weights,
                    history=self.history,
                    engine=self.engine,
                    best_epoch=epoch,
                    backend=self.engine.name,
                )
            yield report
            if config.early_stop_patience is not None and epoch - self._best_epoch >= config.early_stop_patience:
                log.info("early stop: no better loss for %d epochs", config.early_stop_patience)
                return

    @property
    def _with_truth(self) -> bool:
        return self.config.model.model_type == "supervised" or self.config.realspace_mae_weight > 0

    def _check_scan(self, scan: Scan, config: TrainingConfig) -> None:
        check_size(scan, config.model.N)
        if self._with_truth and scan.object_field is None:
            remedy = "Give a scan with objectGuess, or use model_type = 'pinn' with realspace_mae_weight = 0."
            expected = "ground truth for supervised training or realspace_mae_weight"
            raise DataError(explain(scan.source, "objectGuess", expected=expected, received="none", remedy=remedy))

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
            raise DataError(
                explain(scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy)
            )
        return reach

    def _watched(self, batches: Iterator[Batch], epoch: int, groups: int) -> Generator[Batch]:
        """The batches, gathered ahead; progress is told and a wish to stop is looked at before each one."""
        total = -(-groups // self.config.batch_size)
        patterns = 0
        with contextlib.closing(prefetch(batches)) as gathered:
            for number, batch in enumerate(gathered):
                if self._should_stop():
                    raise Cancelled(f"stopped in epoch {epoch}, before batch {number + 1} of {total}")
                if self._on_batch is not None:
                    self._on_batch(Progress(epoch, self.config.nepochs, number, total, patterns))
                yield batch
                patterns += len(batch) * self.config.model.channels


def fit(
    scan: Scan,
    config: TrainingConfig,
    *,
    test: Scan | None = None,
    execution: ExecutionConfig | None = None,
    on_batch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fit:
    """Begin to train: `for report in (run := fit(scan, config)): …`, then `run.model`.

    test: a second scan whose loss chooses the best weights. on_batch: called before every training step.
    should_stop: looked at before every training step; when it says so, `Cancelled` is raised, and `run.model` holds
    the best weights of the epochs that ended. Raises ConfigurationError, DataError, BackendError or TrainingError.
    """
    return Fit(scan, config, test=test, execution=execution, on_batch=on_batch, should_stop=should_stop)


def train(
    scan: Scan,
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


def learning_rate(config: TrainingConfig, epoch: int) -> float:
    """Learning rate of an epoch (from 1) under `config.scheduler`."""
    done = epoch - 1
    if config.scheduler == "Exponential":
        return config.learning_rate * config.lr_decay**done
    if config.scheduler == "WarmupCosine":
        if done < config.lr_warmup_epochs:
            return config.learning_rate * (done + 1) / (config.lr_warmup_epochs + 1)
        span = max(1, config.nepochs - 1 - config.lr_warmup_epochs)
        cosine = 0.5 * (1 + math.cos(math.pi * (done - config.lr_warmup_epochs) / span))
        return config.learning_rate * (config.lr_min_ratio + (1 - config.lr_min_ratio) * cosine)
    return config.learning_rate


def _diverged(what: str, received: str) -> TrainingError:
    remedy = "Lower learning_rate or set gradient_clip_val."
    return TrainingError(explain("training", what, expected="finite numbers", received=received, remedy=remedy))


def warn_of_other_intensity(scan: Scan, weights: Weights) -> None:
    """The network's input is scaled as in training: patterns of another intensity are outside what it has seen."""
    trained = float(weights[MEAN_INTENSITY]) * int((~np.asarray(scan.bad_pixels)).sum())
    ratio = mean_frame_intensity(scan) / trained
    if not 0.1 < ratio < 10:
        log.warning(
            "%s: a frame's intensity is %.3g times that of the training scan. Check whether one of them holds counts "
            "and the other amplitudes (--measurement), or train on this dose.",
            scan.source,
            ratio,
        )


def check_size(scan: Scan, N: int) -> None:
    """DataError unless the scan's patterns have the network's size, and its positions can be in pixels."""
    extent = float(np.ptp(scan.positions_px, axis=0).max())
    if len(scan) > 1 and 0 < extent < SMALLEST_EXTENT_PX:
        expected = "positions in pixels of the object grid"
        received, remedy = f"positions within {extent:g} px", "Convert metres to pixels."
        raise DataError(explain(scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy))
    if scan.N != N:
        remedy = f"Crop or pad the patterns to {N} x {N}, or train with --N {scan.N}."
        expected = f"{N} x {N} patterns, as the model is configured"
        raise DataError(
            explain(scan.source, "diff3d", expected=expected, received=f"{scan.N} x {scan.N}", remedy=remedy)
        )


def _subsample(scan: Scan, config: TrainingConfig) -> Scan:
    if config.n_subsample is None:
        return scan
    if config.n_subsample > len(scan):
        expected, remedy = f"at most {len(scan)}, the frames of {scan.source}", "Lower n_subsample or leave it unset."
        raise ConfigurationError(
            explain("TrainingConfig.n_subsample", None, expected=expected, received=config.n_subsample, remedy=remedy)
        )
    seed = config.seed if config.subsample_seed is None else config.subsample_seed
    chosen = np.random.default_rng(seed).choice(len(scan), config.n_subsample, replace=False)
    return scan.subset(np.sort(chosen))


def _report_dose(scan: Scan, config: TrainingConfig, counts: float) -> None:
    if not scan.dose_known:
        log.info("%s: dose unknown; nphotons = %g is taken as the mean photons a frame", scan.source, counts)
        return
    log.info("%s: %.4g photons a frame on average", scan.source, counts)
    stated = config.nphotons
    if stated != attrs.fields(TrainingConfig).nphotons.default and not 0.1 < stated / counts < 10:
        log.warning("nphotons = %g is stated, %.3g were measured; the measured dose is used", stated, counts)


def _warn_if_wide(scan: Scan, config: TrainingConfig) -> None:
    """With pad_object, four channels alone predict the object outside the centre (specs/model.md, Wide probes)."""
    intensity = np.square(np.abs(scan.probe)).sum(axis=0)
    if config.model.probe_mask:
        intensity = intensity * probe_mask(scan.N)
    outside = float((intensity * outside_centre_mask(scan.N)).sum() / intensity.sum())
    if config.model.pad_object and outside > WIDE_PROBE:
        log.warning(
            "%s: %.0f %% of the probe's intensity is outside the central N/2 square, where pad_object leaves the "
            "network little to predict with. Training without pad_object (--no-pad-object) converges faster here.",
            scan.source,
            100 * outside,
        )


def _warn_if_ambiguous(scan: Scan, config: TrainingConfig) -> None:
    """A symmetric probe of flat phase lights an object and its conjugate mirror image alike (specs/physics.md)."""
    mirrored = np.roll(scan.probe[:, ::-1, ::-1], (1, 1), axis=(1, 2))  # about pixel [N/2, N/2]
    symmetry = np.abs(np.sum(scan.probe * mirrored, axis=(1, 2))).sum() / np.sum(np.abs(scan.probe) ** 2)
    alone = config.model.gridsize == 1 or not config.model.object_big
    if symmetry > SYMMETRIC_PROBE and alone and config.model.model_type == "pinn":
        log.warning(
            "%s: the probe is symmetric with a flat phase (%.2f of 1): single patterns cannot tell an object from its "
            "conjugate mirror image. Use gridsize 2 with object_big, or a curved probe.",
            scan.source,
            symmetry,
        )
