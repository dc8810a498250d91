"""An object that is there while its scan is measured (specs/live.md, Placing)."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.groups import draw_groups
from ptycho_core.batches.prefetch import Share, gathered
from ptycho_core.engine.protocol import Engine
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.events import Event, EventKind, Listener, told
from ptycho_core.layouts import BHWC_TO_PATCHES
from ptycho_core.live.mosaic import Mosaic
from ptycho_core.live.setup import Setup
from ptycho_core.live.spool import FRAMES, Grown, Spool
from ptycho_core.models.canvas import WholeScan
from ptycho_core.models.model import Model
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import Table
from ptycho_core.physics.canvas import ObjectCanvas
from ptycho_core.physics.constants import DATA_STEP_FLOOR
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import probe_mask, reassembly_weight
from ptycho_core.reconstruction.predict import reconstruction_steps
from ptycho_core.reconstruction.prepare import prepare
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.frames import Frames, in_memory
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.loop import solving_steps
from ptycho_core.storage.stored import StoredFrames

WORK = "watch"
FIRST_FRAMES = 32  # specs/live.md, Placing: whose mean intensity scales the probe
PLACED_AT_ONCE = 128  # specs/live.md, Polishing
TILE = 2  # specs/live.md, Polishing: patches, the side of a tile
MOST_POLISHED = 400  # specs/live.md, Polishing: frames that a pass over a tile takes
NEW_SHARE = 0.2  # specs/live.md, Polishing: of a tile's frames, which are new
STEPS, MOMENTUM, EPSILON = 6, 0.7, 0.01  # specs/live.md, Polishing: data steps of a solver on a tile
SLOW_SECONDS = 0.3  # specs/live.md, Polishing: from the coming of a frame to its place
STEP_EPSILON = 0.1  # specs/live.md, Placing: of the first data step


@attrs.frozen(kw_only=True, repr=False)
class LiveReport(Event):
    """How a live reconstruction stands. `done` frames are placed, of `total`, where that is known.

    received: frames that have come. waiting: that have a position and are not placed yet. unplaced: without a position.
    lag_s: since the oldest of those that wait came; 0 where none does. rate: frames placed a second, of late. polished:
    passes over tiles. payload: the reconstruction, an `ObjectSoFar`.
    """

    kind: EventKind = "batch"
    work: str = WORK
    unit: str = "frame"
    received: int = 0
    waiting: int = 0
    unplaced: int = 0
    duplicates: int = 0
    lag_s: float = 0.0
    rate: float = 0.0
    polished: int = 0
    message: str = attrs.field(init=False)
    terms: dict[str, float] = attrs.field(init=False)

    @message.default
    def _message(self) -> str:
        parts = [f"{self.rate:.0f} frames/s", f"lag {self.lag_s:.1f} s"]
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        parts += [f"{self.unplaced} without a position"] if self.unplaced else []
        return ", ".join(parts)

    @terms.default
    def _terms(self) -> dict[str, float]:
        return {"rate": self.rate, "lag_s": self.lag_s, "waiting": float(self.waiting)}


class LiveReconstruction:
    """Frames in, in any order and at any time; the object so far out; at the end, what an offline run gives.

        live = LiveReconstruction(model, Setup.of(earlier_scan))
        live.add(patterns, positions_px)            # float32 amplitudes (k, N, N) and (k, 2) [x, y]
        field, known = live.known_field()
        result = live.finish()

    model: a network of one frame or of a canvas, or how to solve, `SolveConfig`. folder: where frames are kept, so that
    the work goes on where it was left; unset, a temporary one. engine: what does the work; unset, as the model says.
    Every frame is placed once, as soon as it and its position are there. One thread places; any may receive and polish.
    Raises ConfigurationError for a network of groups, DataError for a setup that does not fit.
    """

    def __init__(
        self,
        model: Model | SolveConfig,
        setup: Setup,
        *,
        folder: Path | None = None,
        config: InferenceConfig | None = None,
        execution: ExecutionConfig | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.model, self.setup = model, setup
        self.config, self.execution = config or InferenceConfig(), execution or ExecutionConfig()
        self._temporary = tempfile.TemporaryDirectory(prefix="ptycho-live-") if folder is None else None
        place = Path(self._temporary.name) if self._temporary is not None else folder
        assert place is not None
        self._table: Table | None = None
        if isinstance(model, Model):
            self._table = build_table(model.config.model)
            self._engine = prepare(model, self.config)() if engine is None else engine
            check_model(model)
            if model.config.model.N != setup.N:
                remedy = "Use a model of this size, or crop and bin the patterns."
                received = f"{setup.N} x {setup.N}"
                expected = (
                    f"patterns of {model.config.model.N} x {model.config.model.N} pixels, as the model was trained"
                )
                raise DataError(setup.source, "N", expected=expected, received=received, remedy=remedy)
        else:
            self._engine = load_engine(model.backend) if engine is None else engine
        self.spool = Spool(place, setup.N)
        self._lock = threading.RLock()
        self._waiting: deque[tuple[NDArray[np.int64], float]] = deque()  # that came together, and when
        self._many_waiting = 0
        self._wait(self.spool.paired(), 0.0)
        self._placed, self._places = Grown("<i8"), Grown("<f8", 2)
        self._mosaic: Mosaic | None = None
        self._illumination: Illumination | None = None
        self._predict: Callable[[Scan], NDArray[np.complex64]] | None = None
        self._tiles: dict[tuple[int, int], NDArray[np.complex64]] = {}
        self._new: dict[tuple[int, int], int] = {}
        self._have: dict[tuple[int, int], int] = {}
        self._rates: deque[tuple[float, int]] = deque(maxlen=200)
        self.polished = 0
        self.latencies: deque[float] = deque(maxlen=1000)
        """Seconds from the coming of each frame to its place, of the latest ones."""

    # -- in ------------------------------------------------------------------------------------------------------------

    def add(
        self,
        patterns: NDArray[np.floating] | None,
        positions_px: NDArray[np.floating] | None,
        *,
        frames: NDArray[np.integer] | None = None,
    ) -> int:
        """Take patterns (k, N, N), amplitudes, and their positions (k, 2), and place what can be; how many were placed.

        frames: (k,) their numbers in the scan; unset, those that follow. Either may be None where the other comes
        later, under the same numbers. What came before is left out. Raises DataError for arrays that do not fit.
        """
        self.receive(patterns, positions_px, frames)
        placed = 0
        while count := self.place():
            placed += count
        return placed

    def receive(
        self,
        patterns: NDArray[np.floating] | None,
        positions_px: NDArray[np.floating] | None,
        frames: NDArray[np.integer] | None = None,
    ) -> None:
        """`add` without placing; from any thread."""
        first = patterns if patterns is not None else positions_px
        if first is None:
            return
        with self._lock:
            begin = self.spool.next_number
            numbers = np.arange(begin, begin + len(first)) if frames is None else np.asarray(frames, np.int64)
            amplitude, places = self._checked(patterns, positions_px, numbers)
            now = time.monotonic()
            if amplitude is not None:
                new = self.spool.add_frames(numbers, amplitude)
                self._wait(new[self.spool.has_positions(new)], now)
            if places is not None:
                new = self.spool.add_positions(numbers, places)
                self._wait(new[self.spool.has_frames(new)], now)

    def _wait(self, numbers: NDArray[np.int64], came: float) -> None:
        if len(numbers):
            self._waiting.append((numbers, came))
            self._many_waiting += len(numbers)

    def _taken(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """At most so many of those that wait, and when they came."""
        numbers, came = [np.empty(0, np.int64)], [np.empty(0)]
        while self._waiting and most:
            together, when = self._waiting.popleft()
            numbers.append(together[:most])
            came.append(np.full(len(numbers[-1]), when))
            if len(together) > most:
                self._waiting.appendleft((together[most:], when))
            most -= len(numbers[-1])
        found = np.concatenate(numbers)
        self._many_waiting -= len(found)
        return found, np.concatenate(came)

    def _checked(
        self, patterns: Any, positions_px: Any, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float64] | None]:
        N, count, source = self.setup.N, len(numbers), self.setup.source

        def refuse(key: str, expected: str, received: object) -> DataError:
            remedy = "Send it as the setup says."
            return DataError(source, key, expected=expected, received=received, remedy=remedy)

        if numbers.ndim != 1 or (count and numbers.min() < 0):
            raise refuse("frames", "numbers (k,) from 0 on", f"shape {numbers.shape}")
        amplitude = places = None
        if patterns is not None:
            amplitude = np.asarray(patterns)
            if amplitude.shape != (count, N, N) or amplitude.dtype.kind != "f":
                raise refuse("patterns", f"({count}, {N}, {N}) real amplitudes", f"{amplitude.dtype} {amplitude.shape}")
            amplitude = amplitude.astype(np.float32, copy=False)
            if self.setup.bad_pixels.any():
                amplitude = np.where(self.setup.bad_pixels, np.float32(0), amplitude)
            if not (amplitude.min(initial=0) >= 0 and amplitude.max(initial=0) < np.inf):
                raise refuse("patterns", "finite amplitudes >= 0", "NaN, infinity or negative values")
        if positions_px is not None:
            places = np.asarray(positions_px, np.float64)
            if places.shape != (count, 2) or not np.isfinite(places).all():
                raise refuse("positions_px", f"({count}, 2) finite numbers", f"shape {places.shape}")
        return amplitude, places

    # -- placing -------------------------------------------------------------------------------------------------------

    def place(self, most: int = PLACED_AT_ONCE) -> int:
        """Place at most so many of the frames that wait; how many that were."""
        with self._lock:
            if self._illumination is None and self._many_waiting < self._first_frames:
                return 0
            numbers, came = self._taken(most)
            if not len(numbers):
                return 0
            positions = self.spool.positions_of(numbers)
            amplitude = self.spool.amplitude_of(numbers)
        if self._mosaic is None:
            self._begin(amplitude, positions)
        assert self._mosaic is not None and self._predict is not None
        lit = amplitude.any(axis=(1, 2))
        if lit.any():
            scan = self.setup.scan(amplitude[lit], positions[lit], numbers[lit])
            self._mosaic.add(self._predict(scan), positions[lit])
        now = time.monotonic()
        self.latencies.extend((now - came[came > 0]).tolist())
        with self._lock:
            self._rates.append((now, len(numbers)))
            self._placed.extend(numbers)
            self._places.extend(positions)
            for tile in map(self._tile_of, positions.tolist()):
                self._new[tile] = self._new.get(tile, 0) + 1
                self._have[tile] = self._have.get(tile, 0) + 1
        return len(numbers)

    @property
    def _first_frames(self) -> int:
        """How many frames must wait before the first is placed: the scale of the probe is measured on them."""
        return 1 if self.ended else min(FIRST_FRAMES, self.setup.expected or FIRST_FRAMES)

    ended = False
    """Whether no frame will come any more: set by whoever knows."""

    def _begin(self, amplitude: NDArray[np.float32], positions: NDArray[np.float64]) -> None:
        scan = self.setup.scan(amplitude, positions, np.arange(len(amplitude)))
        model = self.model.config.model if isinstance(self.model, Model) else ModelConfig(N=self.setup.N)
        if isinstance(self.model, Model):
            training = self.model.config
            self._illumination = Illumination.of(
                scan,
                nphotons=training.nphotons,
                gauge=training.probe_gauge,
                masked=model.probe_mask,
                probe_scale=model.probe_scale,
            )
            if self._table is not None and not self._table.canvas:
                lit = self.model.illumination.intensity
                weight = reassembly_weight(lit, model, self.config.weighting, self.config.middle_trim)
                self._mosaic, self._predict = Mosaic(weight), self._network()
                return
        else:
            self._illumination = Illumination.of(scan, nphotons=self.model.nphotons)
        mask = probe_mask(self.setup.N) if isinstance(self.model, Model) and model.probe_mask else 1.0
        step = _first_step(self._illumination, np.asarray(self._illumination.probe * mask), self.setup.bad_pixels)
        lit = np.square(np.abs(self._illumination.probe * mask), dtype=np.float64).sum(axis=0)
        self._mosaic, self._predict = Mosaic(lit, lit=True), step

    def _network(self) -> Callable[[Scan], NDArray[np.complex64]]:
        """A network of one frame, at work on some."""
        assert isinstance(self.model, Model)
        model, illumination = self.model, self.model.illumination
        network = self._engine.build(model.config.model, None, model.network_weights, self.execution)
        size = self.execution.inference_batch_size

        def predict(scan: Scan) -> NDArray[np.complex64]:
            groups = draw_groups(
                scan.positions_px, np.random.default_rng(0), gridsize=1, n_groups=None, neighbor_count=0
            ).in_scan_order()
            share = Share(groups=groups, scan=scan, illumination=illumination, canvas_padding_px=0)
            batches = gathered([share], size, workers=0)
            return np.concatenate([rearrange(network.predict(batch), BHWC_TO_PATCHES) for batch in batches])

        return predict

    # -- polishing -----------------------------------------------------------------------------------------------------

    def _tile_of(self, position: tuple[float, float] | list[float]) -> tuple[int, int]:
        side = TILE * self.setup.N
        return int(position[0] // side), int(position[1] // side)

    @property
    def behind(self) -> bool:
        """Whether polishing would keep frames waiting: many wait, or the last one has waited long."""
        last = self.latencies[-1] if self.latencies else 0.0
        return self._many_waiting >= PLACED_AT_ONCE or (last > SLOW_SECONDS and not self.ended)

    def polish(self) -> bool:
        """One pass over the tile with the most new frames; False where none has enough."""
        least, side = 1 if self.ended else 4, TILE * self.setup.N
        with self._lock:
            worth = {tile: new for tile, new in self._new.items() if new >= max(least, NEW_SHARE * self._have[tile])}
            if not worth or self._mosaic is None:
                return False
            tile = max(worth, key=lambda each: worth[each])
            self._new[tile] = 0
            places, placed = self._places.rows, self._placed.rows
        low, high = np.array(tile, float) * side, (np.array(tile, float) + 1) * side
        beyond = np.maximum(np.maximum(low - places, places - high), 0).max(axis=1)  # pixels, to the tile
        near = np.flatnonzero(beyond <= self.setup.N)
        chosen = np.sort(near[np.argsort(beyond[near], kind="stable")[:MOST_POLISHED]])
        numbers = placed[chosen]
        with self._lock:
            amplitude = self.spool.amplitude_of(numbers)
        if not amplitude.any():
            return False
        field, origin, known = self._passed(self.setup.scan(amplitude, places[chosen], numbers))
        left, top = (round(edge - begun) for edge, begun in zip(low.tolist(), origin, strict=True))
        inside = np.full((side, side), np.nan, np.complex64)
        rows = slice(max(0, top), min(field.shape[0], top + side))
        columns = slice(max(0, left), min(field.shape[1], left + side))
        there = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        inside[there] = np.where(known[rows, columns], field[rows, columns], np.nan)
        self._tiles[tile] = inside
        self.polished += 1
        return True

    def _passed(self, scan: Scan) -> tuple[NDArray[np.complex64], tuple[float, float], NDArray[np.bool_]]:
        """The object of some frames: what the canvas network makes of them, or a few data steps of a solver."""
        assert self._illumination is not None and self._mosaic is not None
        model = self.model.config.model if isinstance(self.model, Model) else ModelConfig(N=self.setup.N)
        whole = WholeScan.of(self._engine, self.execution, model, scan, self._illumination)
        if isinstance(self.model, Model) and self._table is not None and self._table.canvas:
            return whole.predicted(self.model.weights), whole.origin_px, whole.known
        canvas, velocity = np.ones(whole.shape, np.complex64), np.zeros(whole.shape, np.complex64)
        for _ in range(STEPS):
            change = whole.correction(canvas, EPSILON)
            velocity = np.asarray(MOMENTUM * velocity + change, np.complex64)
            canvas = np.asarray(canvas + change + MOMENTUM * velocity, np.complex64)
        return canvas, whole.origin_px, whole.known

    # -- out -----------------------------------------------------------------------------------------------------------

    @property
    def origin_px(self) -> tuple[float, float]:
        """The coordinate (x, y) of pixel [0, 0] of the object so far."""
        return (0.0, 0.0) if self._mosaic is None else self._mosaic.origin_px

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """(H, W): the object so far, and where it is known; the newest tiles as they were first placed."""
        return self.snapshot().known_field()

    def snapshot(self) -> Snapshot:
        """The object so far, which stays as it is, to be worked out elsewhere; taken in the thread that places."""
        with self._lock:
            mosaic, known = self._mosaic, self._illumination
            lit = mosaic is not None and mosaic.lit and known is not None
            return Snapshot(
                canvas=None if mosaic is None else mosaic.snapshot(),
                tiles=dict(self._tiles),
                side=TILE * self.setup.N,
                counts=2 * known.counts_per_intensity if lit and known is not None else None,
                positions_px=self.positions_px,
                pattern=self.last_pattern(),
            )

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """(placed, 2), in the order in which frames were placed."""
        return self._places.rows

    def last_pattern(self) -> NDArray[np.float32] | None:
        """(N, N): the amplitude of the frame that was placed last."""
        with self._lock:
            return None if not len(self._placed) else self.spool.amplitude_of(self._placed.rows[-1:])[0]

    def report(self) -> LiveReport:
        now = time.monotonic()
        with self._lock:
            waiting, received = self._many_waiting, len(self.spool)
            came = next((came for _, came in self._waiting if came), now)
            unplaced = received - len(self._placed) - waiting
            duplicates = self.spool.duplicates
        recent = [(when, count) for when, count in self._rates if now - when < 2.0]
        return LiveReport(
            done=len(self._placed),
            total=self.setup.expected,
            received=received,
            waiting=waiting,
            unplaced=unplaced,
            duplicates=duplicates,
            lag_s=now - came if waiting else 0.0,
            rate=sum(count for _, count in recent) / 2.0,
            polished=self.polished,
            payload=self,
        )

    def scan(self) -> Scan:
        """The scan of all frames that have a position, in the order of their numbers. Raises DataError for none."""
        with self._lock:
            numbers = self.spool.paired()
            if not len(numbers):
                remedy = "Let frames and their positions come."
                expected = "a frame with a position"
                raise DataError(self.setup.source, "frames", expected=expected, received="none", remedy=remedy)
            rows = self.spool.rows_of(numbers)
            shape = (len(self.spool), self.setup.N, self.setup.N)
            source = StoredFrames(self.spool.folder / FRAMES, 0, shape, "<f4")
            frames = in_memory(Frames(source, index=rows, name=self.setup.source))
            return self.setup.scan(frames, self.spool.positions_of(numbers), numbers)

    def finish(self, tell: Listener = lambda event: None) -> Reconstruction:
        """The reconstruction of all frames, as an offline run of these settings gives it. Raises what that raises."""
        scan = self.scan()
        if isinstance(self.model, Model):
            steps = reconstruction_steps(scan, self.model, config=self.config, execution=self.execution)
        else:
            steps = solving_steps(scan, self.model, execution=self.execution)
        return told(steps, tell)

    def close(self) -> None:
        """Leave the folder; a temporary one is removed."""
        self.spool.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def check_model(model: Model | SolveConfig) -> None:
    """Raises ConfigurationError for a network of groups: its patterns are neighbours, which have not all come."""
    if isinstance(model, Model) and model.config.model.gridsize > 1 and not build_table(model.config.model).canvas:
        raise ConfigurationError(
            "LiveReconstruction",
            "model",
            expected="a network of one frame or of a canvas: groups are not there before the scan is",
            received=f"gridsize = {model.config.model.gridsize}",
            remedy="Train with gridsize 1, or a canvas network.",
        )


@attrs.frozen(eq=False, kw_only=True)
class Snapshot:
    """An object as it was; an `ObjectSoFar`. tiles: those that were polished, by column and row, in px `side`.

    counts: of the light on a pixel, in the unit of the canvas' weights; None where these are no light.
    """

    canvas: ObjectCanvas | None
    tiles: dict[tuple[int, int], NDArray[np.complex64]]
    side: int
    counts: float | None
    positions_px: NDArray[np.float64]
    pattern: NDArray[np.float32] | None

    @property
    def origin_px(self) -> tuple[float, float]:
        return (0.0, 0.0) if self.canvas is None else self.canvas.origin_px

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        if self.canvas is None:
            return np.zeros((1, 1), np.complex64), np.zeros((1, 1), bool)
        field, known = self.canvas.known_field()
        (x, y), side = self.canvas.origin_px, self.side
        for (column, row), tile in self.tiles.items():
            left, top = round(column * side - x), round(row * side - y)
            rows = slice(max(0, top), min(field.shape[0], top + side))
            columns = slice(max(0, left), min(field.shape[1], left + side))
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            part = tile[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            better = known[rows, columns] & np.isfinite(part)
            field[rows, columns][better] = part[better]
        return field, known

    def photon_limit(self) -> NDArray[np.float32] | None:
        """(H, W): RMS error of the object that photons alone leave, by the light on a pixel; None where not known."""
        if self.canvas is None or self.counts is None:
            return None
        with np.errstate(divide="ignore"):
            limit = 1 / np.sqrt(np.maximum(self.counts * self.canvas.summed_weight(), 0))
        return np.asarray(limit, np.float32)

    def places(self) -> NDArray[np.float64]:
        return self.positions_px

    def last_pattern(self) -> NDArray[np.float32] | None:
        return self.pattern


def _first_step(
    illumination: Illumination, probe: NDArray[np.complex64], bad: NDArray[np.bool_]
) -> Callable[[Scan], NDArray[np.complex64]]:
    """A data step from a clear object, frame by frame (specs/physics.md, Data steps).

    The exit wave of a clear object is the probe wherever a frame lies, so its far field is worked out once.
    """
    modes = probe.astype(np.complex64)
    far = np.fft.fftshift(np.fft.fft2(modes, norm="ortho"), axes=(-2, -1))
    intensity = np.square(np.abs(far), dtype=np.float64).sum(axis=0)
    weight = np.where(bad, 0, 1 / np.sqrt(intensity + DATA_STEP_FLOOR * illumination.mean_intensity)).astype(np.float32)
    good = np.where(bad, np.float32(0), np.float32(1))
    lit = np.square(np.abs(modes)).sum(axis=0)
    damped = (lit + STEP_EPSILON * lit.max()).astype(np.float32)
    spectrum = np.fft.ifftshift(far, axes=(-2, -1)).astype(np.complex64)

    def predict(scan: Scan) -> NDArray[np.complex64]:
        import scipy.fft

        ratio = np.asarray(scan.diffraction_amplitude) * weight - good
        ratio = np.fft.ifftshift(ratio, axes=(-2, -1))
        change = np.zeros(ratio.shape, np.complex64)
        for mode, wave in zip(modes, spectrum, strict=True):
            change += np.conj(mode) * scipy.fft.ifft2(wave * ratio, norm="ortho", overwrite_x=True)
        return np.asarray(1 + change / damped, np.complex64)

    return predict
