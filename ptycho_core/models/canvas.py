"""A network of a canvas at work on a whole scan as one group (specs/model.md, Tables of a canvas).

Ops of the physics run over all frames, a few at a time, by the engine's solver, and so are exact whatever the size of
the scan; what lies between them is an image network, which works in tiles. In memory are a few canvases and one piece
of the patterns.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.prefetch import prefetch
from ptycho_core.engine.problem import FrameFacts, Frames, Problem
from ptycho_core.engine.processes import ALONE, Processes, agreed, gathered_facts, never
from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import Cancelled, ConfigurationError
from ptycho_core.events import Event
from ptycho_core.models.tiles import whole
from ptycho_core.networks.ops import Layer
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import INPUT
from ptycho_core.physics.canvas import canvas_extent, corners_on, summed_weight
from ptycho_core.physics.constants import DATA_STEP_FLOOR, NOISE_LEVEL
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import lit_probe, probe_mask
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import OBJECT, PROBE, Weights

PIECE_BYTES = 2**25
"""Patterns that are read at a time."""
CANVAS_FLOOR = 1e-6  # of the largest summed weight; below it the object is not known


@attrs.define(eq=False)
class WholeScan:
    """A scan on one canvas, and the network that is to see it.

    held_out: bool (P, N, N), true = held out, and pattern: int64 (M,), which of them a frame uses. processes: those
    that work on it together, each on its share of the frames.
    """

    engine: Engine
    execution: ExecutionConfig
    model: ModelConfig
    scan: Scan
    illumination: Illumination
    held_out: NDArray[np.bool_]
    pattern: NDArray[np.int64]
    should_stop: Callable[[], bool] = never
    processes: Processes = ALONE

    @classmethod
    def of(
        cls,
        engine: Engine,
        execution: ExecutionConfig,
        model: ModelConfig,
        scan: Scan,
        illumination: Illumination,
        **more: Any,
    ) -> WholeScan:
        """With nothing held out unless `more` says so."""
        nothing = {"held_out": np.zeros((1, scan.N, scan.N), bool), "pattern": np.zeros(len(scan), np.int64)}
        return cls(engine, execution, model, scan, illumination, **{**nothing, **more})

    @functools.cached_property
    def _extent(self) -> tuple[tuple[float, float], tuple[int, int]]:
        return canvas_extent(self.scan.positions_px, self.scan.N)

    @property
    def origin_px(self) -> tuple[float, float]:
        """Coordinate [x, y] of pixel [0, 0] of the canvas."""
        return self._extent[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the canvas."""
        return self._extent[1]

    @functools.cached_property
    def _probe(self) -> NDArray[np.complex64]:
        mask = probe_mask(self.scan.N) if self.model.probe_mask else 1.0
        return np.asarray(self.illumination.probe * mask, np.complex64)

    @functools.cached_property
    def _lit(self) -> NDArray[np.float64]:
        """(N, N): of one frame."""
        return lit_probe(self.illumination.intensity, self.model)

    @property
    def _noise(self) -> float:
        """log₁₀, where the brightest pixel of the probe fell once."""
        return float(NOISE_LEVEL - np.log10(2 * self.illumination.counts_per_intensity * self._lit.max()) / 2)

    @functools.cached_property
    def light(self) -> NDArray[np.float64]:
        """S (H, W)."""
        return summed_weight(self.scan.positions_px, self._lit, origin_px=self.origin_px, shape=self.shape)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(H, W): where there is light."""
        return np.asarray(self.light > CANVAS_FLOOR * self.light.max())

    @functools.cached_property
    def _solver(self) -> Any:
        problem = Problem(
            canvas=np.ones(self.shape, np.complex64),
            probe=self._probe,
            bad_pixels=np.asarray(self.scan.bad_pixels),
            held_out=self.held_out,
            loss="amplitude",
            counts_per_intensity=self.illumination.counts_per_intensity,
            amplitude_floor=DATA_STEP_FLOOR * self.illumination.mean_intensity * self.illumination.counts_per_intensity,
        )
        return self.engine.start_solver(problem, self.execution)

    def _load(self, canvas: NDArray[np.complex64]) -> None:
        fields = {OBJECT: canvas, PROBE: self._probe}
        self._solver.load_weights({name: np.stack([f.real, f.imag], axis=-1) for name, f in fields.items()})

    def _frames(self) -> Iterator[Frames]:
        """Those of this process, a few at a time."""
        scan, source = self.scan, self.scan.diffraction_amplitude
        size = max(1, PIECE_BYTES // (4 * scan.N**2))
        own = np.arange(len(scan))[self.processes.part.of(len(scan))]
        pieces = [own[start : start + size] for start in range(0, len(own), size)]
        corners = corners_on(scan.positions_px, scan.N, self.origin_px)
        reading = (functools.partial(lambda piece: (piece, source[piece]), piece) for piece in pieces)
        workers = 0 if isinstance(source, np.ndarray) else self.execution.num_workers
        with contextlib.closing(prefetch(reading, workers)) as read:
            for piece, amplitude in read:
                if self.processes.size == 1 and self.should_stop():
                    raise Cancelled("stopped before the object was predicted")
                yield Frames(
                    diffraction_amplitude=amplitude,
                    corners_px=corners[piece],
                    intensity=np.ones(len(piece), np.float32),
                    held_out=self.pattern[piece],
                )

    def correction(self, canvas: NDArray[np.complex64], epsilon: float) -> NDArray[np.complex64]:
        """U (H, W)."""
        if self.processes.size > 1 and agreed(self.processes, self.should_stop)():
            raise Cancelled("stopped before the object was predicted")
        self._load(canvas)
        summed = np.zeros((*self.shape, 2), np.float32)
        for frames in self._frames():
            summed -= self._solver.gradients(frames, object_only=True)[OBJECT]
        summed = self.processes.sum(summed)
        damped = (self.light + epsilon * self._lit.max()).astype(np.float32)
        return np.asarray((summed[..., 0] + 1j * summed[..., 1]) / damped, np.complex64)

    def cover(self, epsilon: float) -> NDArray[np.float32]:
        return np.asarray(self.light / (self.light + epsilon * self._lit.max()), np.float32)

    def measure(self, canvas: NDArray[np.complex64]) -> FrameFacts:
        """Of every frame, with a canvas."""
        self._load(canvas)
        own = [self._solver.measure(frames) for frames in self._frames()]
        return gathered_facts(self.processes, own)

    def predict(self, weights: Weights) -> Generator[Event, None, NDArray[np.complex64]]:
        """The canvas (H, W) that the network with these weights gives: an event after every op of the physics.

        Raises ConfigurationError where the table cannot be worked out on a whole scan.
        """
        table = build_table(self.model)
        empty = np.zeros((*self.shape, 2), np.float32)
        empty[..., 0] = 1
        values, steps = {INPUT: empty}, [layer for layer in table.layers if layer.sees_batch]
        if table.canvas not in (layer.name for layer in steps):
            remedy = "Let the table end in data_step, correct or warm_sweeps."
            owner = f"architecture {self.model.architecture!r}"
            raise ConfigurationError(
                owner, "canvas", expected="an op of the physics", received=table.canvas, remedy=remedy
            )
        for number, layer in enumerate(steps):
            inputs = [values[layer.inputs[0]]]
            for output in layer.inputs[1:]:
                source, part = table.image_part(output)
                own = {name: weights[name] for name in part.parameters}
                network = self.engine.build_image_network(part, None, own, self.execution)
                inputs.append(whole(network, part.block, part.reach_px, values[source]))
            values[layer.name] = self._run(layer, *inputs)
            done = (number + 1) * len(self.scan)
            yield Event(
                kind="batch",
                work="reconstruct",
                done=done,
                total=len(steps) * len(self.scan),
                unit="pattern",
                payload=SoFar(to_field(values[layer.name]), self),
            )
        return to_field(values[table.canvas])

    def predicted(self, weights: Weights) -> NDArray[np.complex64]:
        """`predict` to its end."""
        steps = self.predict(weights)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: NDArray[np.complex64] = end.value
                return result

    def _run(self, layer: Layer, x: NDArray[np.float32], *maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """An op of the physics on maps of the whole canvas (specs/physics.md, Data steps)."""
        settings = layer.settings
        match layer.op:
            case "data_step":
                change = self.correction(to_field(x), settings["epsilon"])
                cover = self.cover(settings["epsilon"])[..., None]
                return np.concatenate([to_maps(to_field(x) + change), to_maps(change), cover], axis=2)
            case "warm_sweeps":
                canvas, velocity = to_field(x), np.zeros(self.shape, np.complex64)
                for _ in range(settings["sweeps"]):
                    change = self.correction(canvas, settings["epsilon"])
                    velocity = np.asarray(settings["momentum"] * velocity + change, np.complex64)
                    canvas = np.asarray(canvas + change + settings["momentum"] * velocity, np.complex64)
                return to_maps(canvas)
            case "in_gauge":
                mean = gauge(x)
                view = to_maps(to_field(x) / mean)
                view[..., 0] -= 1
                noise = np.full_like(x[..., 4:], self._noise)
                return np.concatenate([view, to_maps(to_field(x[..., 2:4]) / mean), x[..., 4:], noise], axis=2)
            case "correct":
                return x[..., :2] + to_maps(gauge(x) * to_field(maps[0]))
            case other:
                remedy = "Use the ops of specs/model.md."
                expected = "an op that is known on a whole scan"
                raise ConfigurationError(f"layer {layer.name!r}", expected=expected, received=other, remedy=remedy)


@attrs.frozen(eq=False)
class SoFar:
    """The object as far as it is predicted, for whoever draws it."""

    field: NDArray[np.complex64]
    scan: WholeScan

    @property
    def origin_px(self) -> tuple[float, float]:
        return self.scan.origin_px

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        return np.where(self.scan.known, self.field, 0).astype(np.complex64), self.scan.known


def gauge(x: NDArray[np.float32]) -> np.complexfloating[Any, Any]:
    """m: the mean of the canvas where it is lit."""
    cover = x[..., 4].astype(np.float64)
    mean: np.complexfloating[Any, Any] = np.complex64((cover * to_field(x)).sum() / cover.sum())
    return mean


def to_field(maps: NDArray[np.float32]) -> NDArray[np.complex64]:
    return np.asarray(maps[..., 0] + 1j * maps[..., 1], np.complex64)


def to_maps(field: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    return np.stack([field.real, field.imag], axis=-1).astype(np.float32, copy=False)
