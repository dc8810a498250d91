"""A prior learns: crops of lessons, steps of Adam, a report per epoch (specs/prior.md, Learning)."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.images import Images
from ptycho_core.engine.protocol import Engine, ImageNetwork
from ptycho_core.errors import Cancelled, ConfigurationError, DataError, TrainingError
from ptycho_core.events import Event
from ptycho_core.models.prior import CHANNELS, LearnedPrior, TeachingCheckpoint, described
from ptycho_core.networks.unet import canvas_unet, first_weights
from ptycho_core.physics.constants import IMAGE_LOSS_FLOOR
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.solving.features import View, range_of, view_of
from ptycho_core.solving.lessons import Lesson
from ptycho_core.training.schedules import learning_rate
from ptycho_core.vocabulary import Weights

WORK = "train-prior"
LEAST_RATIO = 0.01  # specs/prior.md, Learning
EVERY = 20  # specs/prior.md, Learning: the lessons of one scan of so many are looked at and never learned from
MOST_TRIES = 100
FREE = ("scans_dir", "output_dir", "backend")
"""Fields of PriorConfig that may be set again when a run goes on."""


@attrs.frozen(kw_only=True, repr=False)
class LearningReport(Event):
    """What one epoch did. terms: "loss", relative error power on the way; "unseen", that of lessons set aside."""

    kind: Any = "epoch"
    work: str = WORK
    unit: str = "epoch"
    learning_rate: float
    seconds: float

    def as_row(self) -> dict[str, float]:
        """One flat row of the history."""
        return {"epoch": float(self.done), "learning_rate": self.learning_rate, **self.terms, "seconds": self.seconds}


class Teaching:
    """A round: iterate for a report after every epoch; leave the loop to stop; then `prior`.

    `checkpoint()`, between epochs, is what the run needs to go on, here or on another engine.
    """

    def __init__(
        self,
        lessons: Sequence[Sequence[Lesson]],
        config: PriorConfig,
        engine: Engine,
        execution: ExecutionConfig,
        *,
        after: LearnedPrior | None = None,
        resume: TeachingCheckpoint | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """lessons: those of each scan. after: the prior of the round before. resume: a checkpoint of this round."""
        self.config, self.execution, self.engine = config, execution, engine.describe()
        self._table = canvas_unet(CHANNELS, config.channels)
        _check(config, self._table.block)
        self._should_stop = should_stop
        viewed = [[Viewed.of(each) for each in scan if fits(each, config.crop_px)] for scan in lessons]
        viewed = [scan for scan in viewed if scan]
        if not viewed:
            side = config.crop_px
            remedy = "Give more positions, or set crop_px lower."
            received = f"{len(lessons)} scans, all smaller" if lessons else "none"
            raise DataError(
                WORK, "lessons", expected=f"a canvas of {side} x {side} pixels", received=received, remedy=remedy
            )
        self._unseen = [each for scan in viewed[EVERY - 1 :: EVERY] for each in scan]
        self._lessons = [each for number, scan in enumerate(viewed, 1) if number % EVERY for each in scan]
        self.seen = range_of(each.view.facts() for each in self._lessons)
        self.digest = digest_of(lessons)
        self._training = TrainingConfig(
            nepochs=config.epochs,
            learning_rate=config.learning_rate,
            scheduler="WarmupCosine",
            lr_min_ratio=LEAST_RATIO,
            gradient_clip_val=None,
        )
        begun = after if resume is None else resume.prior
        if resume is not None:
            check_continues(resume, config, self.digest)
        if begun is None:
            weights: Weights = first_weights(self._table, np.random.default_rng(config.seed))
        else:
            weights = begun.weights
        self.history = [] if begun is None else [dict(row) for row in begun.history]
        self.round = resume.round if resume is not None else len(self.history) // config.epochs + 1
        self._network: ImageNetwork = engine.build_image_network(self._table, self._training, weights, execution)
        if resume is not None:
            self._network.load_optimizer_state(resume.optimizer)
        self._in_epoch = False

    @property
    def prior(self) -> LearnedPrior:
        """As it is after the last epoch. TrainingError before the first one has ended, and where it diverged."""
        prior = self._as_it_is()
        return attrs.evolve(prior, weights={name: np.asarray(a, np.float32) for name, a in prior.weights.items()})

    def _as_it_is(self) -> LearnedPrior:
        """In the precision of the run."""
        weights = self._network.weights()
        finite = all(np.isfinite(array).all() for array in weights.values())
        if not self.history or self._in_epoch or not finite:
            received = "no whole epoch" if finite else "NaN or infinity in its weights"
            remedy = "Let an epoch end." if finite else "Lower learning_rate."
            raise TrainingError(WORK, expected="a prior after a whole epoch", received=received, remedy=remedy)
        return LearnedPrior(
            channels=self.config.channels,
            weights=weights,
            seen=self.seen,
            learned=described(self.config),
            lessons=len(self._lessons),
            history=[dict(row) for row in self.history],
            engine=self.engine,
        )

    def checkpoint(self) -> TeachingCheckpoint:
        """What the run needs to go on after its last whole epoch."""
        return TeachingCheckpoint(
            prior=self._as_it_is(),
            round=self.round,
            config=self.config,
            optimizer=self._network.optimizer_state(),
            digest=self.digest,
        )

    def __iter__(self) -> Iterator[LearningReport]:
        config = self.config
        before = (self.round - 1) * config.epochs
        while len(self.history) < before + config.epochs:
            epoch, begun = len(self.history) + 1, time.perf_counter()
            rate = learning_rate(self._training, epoch - before)
            rng = np.random.default_rng([config.seed, epoch])
            self._in_epoch = True
            losses = []
            for step in range(config.steps):
                if self._should_stop():
                    raise Cancelled(f"stopped in epoch {epoch}, before step {step + 1} of {config.steps}")
                images = crops(self._lessons, config.batch_size, config.crop_px, rng)
                losses.append(self._network.train_step(images, rate))
            loss = math.fsum(losses) / len(losses)
            if not math.isfinite(loss):
                remedy = "Lower learning_rate."
                received = f"a loss of {loss} in epoch {epoch}"
                raise TrainingError(WORK, expected="finite numbers", received=received, remedy=remedy)
            terms = {"loss": loss}
            if self._unseen:
                terms["unseen"] = self._of_unseen()
            self._in_epoch = False
            message = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
            report = LearningReport(
                done=epoch,
                total=config.taught_rounds * config.epochs,
                learning_rate=rate,
                seconds=time.perf_counter() - begun,
                terms=terms,
                message=message,
            )
            self.history.append(report.as_row())
            yield report

    def _of_unseen(self) -> float:
        """Relative error power over one crop of each lesson that is set aside, always the same."""
        rng = np.random.default_rng([self.config.seed, 0])
        errors = []
        for each in self._unseen:
            images = crops([each], 1, self.config.crop_px, rng)
            given, weight = self._network.run(images.maps), images.weight[..., None]
            error = float((weight * np.square(given - images.wanted)).sum(dtype=np.float64))
            before = float((weight * np.square(images.wanted)).sum(dtype=np.float64))
            errors.append(error / (before + IMAGE_LOSS_FLOOR * float(images.weight.sum())))
        return float(np.mean(errors))


@attrs.frozen(eq=False)
class Viewed:
    """A lesson as the network sees it. wanted: complex64 (H, W), 0 where not known."""

    view: View
    wanted: NDArray[np.complex64]

    @classmethod
    def of(cls, lesson: Lesson) -> Viewed:
        return cls(view_of(lesson.canvas, lesson.counts.astype(np.float64)), lesson.wanted)


def crops(lessons: Sequence[Viewed], count: int, side: int, rng: np.random.Generator) -> Images:
    """Crops of lessons drawn at random, turned by quarters, conjugated half the time.

    What is wanted is multiplied by the complex factor that brings it nearest to the crop: a solve that begins at 1 ends
    at a phase of its own. A crop lies where half of it is lit at least.
    """
    maps, wanted, weights = [], [], []
    for _ in range(count):
        lesson = lessons[int(rng.integers(len(lessons)))]
        part, weight = _place(lesson, side, rng)
        seen = lesson.view.maps[part].astype(np.float32)
        canvas = seen[..., 0] + 1 + 1j * seen[..., 1]
        truth = lesson.wanted[part]
        power = float((weight * np.square(np.abs(truth))).sum(dtype=np.float64))
        factor = complex((weight * truth.conj() * canvas).sum(dtype=np.complex128)) / power if power else 0
        change = weight * (factor * truth - canvas)
        pair = np.stack([change.real, change.imag], axis=-1)
        if rng.random() < 0.5:
            seen, pair = seen * CONJUGATED, pair * CONJUGATED[:2]
        turns = int(rng.integers(4))
        maps.append(np.rot90(seen, turns))
        wanted.append(np.rot90(pair, turns))
        weights.append(np.rot90(weight, turns))
    return Images(
        maps=np.ascontiguousarray(maps, np.float32),
        wanted=np.ascontiguousarray(wanted, np.float32),
        weight=np.ascontiguousarray(weights, np.float32),
    )


CONJUGATED = np.array([1, -1, 1], np.float32)


def _place(lesson: Viewed, side: int, rng: np.random.Generator) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Where a crop lies, and which of its pixels are lit and known; the best of some tries."""
    height, width = lesson.wanted.shape
    best: tuple[tuple[slice, slice], NDArray[np.float32]] | None = None
    for _ in range(MOST_TRIES):
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        part = slice(y, y + side), slice(x, x + side)
        weight = (lesson.view.lit[part] & (lesson.wanted[part] != 0)).astype(np.float32)
        if best is None or weight.sum() > best[1].sum():
            best = part, weight
        if weight.mean() >= 0.5:
            break
    assert best is not None
    return best


def fits(lesson: Lesson, side: int) -> bool:
    """Whether a crop fits into the canvas."""
    return bool(min(lesson.canvas.shape) >= side)


def digest_of(lessons: Sequence[Sequence[Lesson]]) -> str:
    """SHA-256 of all numbers: by it a run that goes on knows its lessons."""
    digest = hashlib.sha256()
    for lesson in (each for scan in lessons for each in scan):
        for array in (lesson.canvas, lesson.wanted, lesson.counts):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_continues(checkpoint: TeachingCheckpoint, config: PriorConfig, digest: str) -> None:
    """Refuse what would make another run of it."""
    for name in fields_of(PriorConfig):
        before, now = getattr(checkpoint.config, name), getattr(config, name)
        if name not in FREE and now != before:
            remedy = "Leave it as it was, or begin a new run."
            raise ConfigurationError(
                "PriorConfig", name, expected=f"{before}, as the run began", received=now, remedy=remedy
            )
    if checkpoint.digest != digest:
        remedy = "Give the scans that it began with, or begin a new run."
        raise DataError(WORK, "lessons", expected="those that the run began with", received="others", remedy=remedy)


def _check(config: PriorConfig, block: int) -> None:
    if config.crop_px % block:
        remedy = f"Set crop_px to {max(block, config.crop_px // block * block)}."
        expected = f"a multiple of {block}, for {len(config.channels)} levels"
        raise ConfigurationError("PriorConfig", "crop_px", expected=expected, received=config.crop_px, remedy=remedy)
