"""The scans of a run, one or several, as one source of batches (specs/engine.md, Training)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence

import attrs
import numpy as np

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups
from ptycho_core.batches.parts import WHOLE, Part
from ptycho_core.batches.prefetch import Share, gathered
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.training.data import TrainingData

PADDING_STEP = 8  # specs/data.md, Batch: of the border of a canvas, so that few shapes occur


@attrs.frozen(eq=False)
class Lit:
    """A scan of a run, and the illumination that its batches have."""

    data: TrainingData
    illumination: Illumination

    @property
    def scan(self) -> Scan:
        return self.data.scan


@attrs.frozen(eq=False)
class Drawn:
    """Groups of every scan. turns: whose the next batch is."""

    shares: tuple[Share, ...]
    turns: tuple[int, ...]

    @property
    def groups(self) -> int:
        return sum(len(share.groups) for share in self.shares)

    @property
    def patterns(self) -> int:
        """A pattern counts once for each group that it is in."""
        return sum(share.groups.indices.size for share in self.shares)


@attrs.frozen(eq=False, kw_only=True)
class RunScans:
    """All that are trained on, or all that are tested with; a batch is of one of them.

    own_border: whether each batch has the border that its own groups need, as a network of a canvas wants it, whose
    cost grows with the area; otherwise all have `canvas_padding_px`. part: of every batch, that this process takes.
    """

    lit: tuple[Lit, ...]
    batch_size: int
    canvas_padding_px: int
    own_border: bool
    workers: int
    part: Part = WHOLE

    def shuffled(self, rng: np.random.Generator) -> Drawn:
        """An epoch: of every scan in turn groups and their order, then the order of all batches."""
        drawn = [(groups := each.data.draw(rng), rng.permutation(len(groups))) for each in self.lit]
        shares = [self._share(number, groups, order=order) for number, (groups, order) in enumerate(drawn)]
        return Drawn(tuple(shares), tuple(rng.permutation(self._in_turn(shares)).tolist()))

    def in_order(self, rng: np.random.Generator, n_groups: int) -> Drawn:
        """At most `n_groups` groups of each scan, as they are drawn, one scan after the other."""
        shares = [
            self._share(number, each.data.draw(rng, min(n_groups, len(each.scan))))
            for number, each in enumerate(self.lit)
        ]
        return Drawn(tuple(shares), tuple(self._in_turn(shares)))

    def batches(self, drawn: Drawn) -> Generator[Batch]:
        """Gathered ahead of their use."""
        batches = gathered(drawn.shares, self.batch_size, turns=drawn.turns, workers=self.workers)
        return self._with_own_border(batches, drawn) if self.own_border else batches

    def _share(self, number: int, groups: Groups, **more: object) -> Share:
        each = self.lit[number]
        numbered = {"number": number + 1} if len(self.lit) > 1 else {}
        return each.data.share(groups, each.illumination, self.canvas_padding_px, part=self.part, **numbered, **more)

    def _in_turn(self, shares: Sequence[Share]) -> list[int]:
        return [number for number, share in enumerate(shares) for _ in range(share.batches(self.batch_size))]

    def _with_own_border(self, batches: Generator[Batch], drawn: Drawn) -> Generator[Batch]:
        """The batches, each with the border that its groups need, those of other processes too.

        Few shapes occur, for engines that trace them.
        """
        with contextlib.closing(batches):
            reaches = [iter(share.reaches(self.batch_size)) for share in drawn.shares]
            for turn, batch in zip(drawn.turns, batches, strict=True):
                reach = math.ceil(next(reaches[turn]))
                yield attrs.evolve(batch, canvas_padding_px=-(-reach // PADDING_STEP) * PADDING_STEP)
