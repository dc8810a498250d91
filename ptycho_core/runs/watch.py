"""`ptycho watch`: a reconstruction in a folder while the scan is measured."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import DataError, PtychoError
from ptycho_core.events import Event, Listener, told_ending, told_file
from ptycho_core.live.messages import Arrived, Ended, Idle, Trouble
from ptycho_core.live.reconstruction import WORK, LiveReconstruction, check_model
from ptycho_core.live.setup import Setup
from ptycho_core.live.sources import Source
from ptycho_core.models.model import Model
from ptycho_core.reconstruction.prepare import prepare
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.report.plots import plot_reconstruction
from ptycho_core.report.record import write_record
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import after_result, draw, reported, rescued
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.storage.files import make_folder, write_text
from ptycho_core.storage.keeping import locked

STATE, SETUP, ENDED = "live", "setup.npz", "ended"
REPORT_SECONDS = 0.25
SWITCH_SECONDS = 5e-4
"""Between threads that wait for one another: those that receive, place, polish and draw."""
PATIENCE_SECONDS = 30.0
"""For a pass over a tile, and for the source, to end."""
MOST_TROUBLES = 100  # specs/live.md, Messages
SAID_SECONDS = 5.0  # specs/live.md, Sources: of silence, after which it is said


@attrs.define(eq=False)
class _Receiver:
    """A thread that takes what comes, whatever the reconstruction is busy with."""

    source: Source
    folder: Path
    make: Any
    live: LiveReconstruction | None = None
    ended: str | None = None
    error: BaseException | None = None
    troubles: list[str] = attrs.field(factory=list)
    stopping: threading.Event = attrs.field(factory=threading.Event)
    ours: set[bytes | None] = attrs.field(factory=set)
    """Who has sent the setup of this scan."""
    others: set[bytes | None] = attrs.field(factory=set)
    """Whose latest setup is of another one."""

    def run(self) -> None:
        if self.ended is not None:
            return
        try:
            silent = False
            items = self.source.items(self.stopping.is_set)
            for item in items:
                if isinstance(item, Idle):
                    if item.seconds > SAID_SECONDS and not silent and self.live is not None:
                        silent = True
                        self._say(f"nothing has come for {item.seconds:.0f} s")
                    continue
                silent = False
                if isinstance(item, Ended):
                    if self.source.origin in self.others - self.ours:
                        continue  # of a scan that was left out
                    if self.live is not None:
                        write_text(self.folder / ENDED, f"{item.reason}\n")  # before it is answered
                    self.ended = item.reason
                    return
                try:
                    self._take(item)
                except Exception as error:
                    if isinstance(items, Generator):
                        items.throw(error)
                    raise
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error

    def _say(self, message: str) -> None:
        """Keep a trouble to be told, but no flood of them."""
        if len(self.troubles) < MOST_TROUBLES:
            self.troubles.append(message)
        elif len(self.troubles) == MOST_TROUBLES:
            self.troubles.append("more is wrong with what comes than is said here")

    def _take(self, item: Setup | Arrived | Trouble) -> None:
        if isinstance(item, Trouble):
            self._say(item.message)
        elif isinstance(item, Setup):
            self._begin(item)
        elif self.source.origin in self.others:
            return
        elif self.live is None:
            self._say("frames came before the setup of their scan, and are left out")
        else:
            try:
                self.live.receive(item.amplitude, item.positions_px, item.numbers)
            except PtychoError as error:
                if isinstance(error, DataError) and error.source != self.live.setup.source:
                    raise  # a full disk
                self._say(str(error))

    def _begin(self, setup: Setup) -> None:
        origin = self.source.origin
        if self.live is None:
            self.live = self.make(setup)
            setup.save(self.folder / SETUP)
            self.ours.add(origin)
            return
        other = self.live.setup.disagreement(setup)
        if other is None:
            self.others.discard(origin)
            self.ours.add(origin)
            self._say("the source began again; what is known already is left out")
        else:
            self.others.add(origin)
            self._say(f"the source began another scan, {other}: its frames are left out")


@attrs.define(eq=False)
class _Polisher:
    """A thread that goes over tiles while no frames wait: placing goes on beside it."""

    receiver: _Receiver
    error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.receiver.stopping.is_set():
                live = self.receiver.live
                if live is None or live.behind or not live.polish():
                    time.sleep(0.02)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that places
            self.error = error


def watch_into(
    folder: Path,
    source: Source,
    model: Model | SolveConfig,
    *,
    config: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    overwrite: bool = False,
) -> tuple[Reconstruction, dict[str, Any]]:
    """Reconstruct what the source brings until it ends, and write what `ptycho reconstruct` writes into `folder`.

    Frames are kept in `live` there as they come; a folder that has them goes on from there. overwrite: start again.
    Raises what the source raises, DataError where it has ended before a frame could be placed.
    """
    config, execution, output = (
        config or InferenceConfig(),
        execution or ExecutionConfig(),
        output or Output(quiet=True),
    )
    state = folder / STATE
    check_model(model)

    # before a source is asked: it waits for an answer
    engine = prepare(model, config)() if isinstance(model, Model) else load_engine(model.backend)

    def make(setup: Setup) -> LiveReconstruction:
        return LiveReconstruction(model, setup, folder=state, config=config, execution=execution, engine=engine)

    with locked(folder), output.listening(folder) as tell:
        if overwrite and state.exists():
            shutil.rmtree(state)
        make_folder(state)
        receiver = _Receiver(source, state, make)
        if (state / SETUP).exists():
            receiver.live = live = make(Setup.load(state / SETUP))
            message = f"{state}: goes on with {len(live.spool)} frames that had come"
            tell(Event(kind="started", work=WORK, message=message))
        thread = threading.Thread(target=receiver.run, daemon=True, name="source")
        if (state / ENDED).exists():
            receiver.ended = "the source had ended"
        thread.start()
        polisher = _Polisher(receiver)
        other = threading.Thread(target=polisher.run, daemon=True, name="polishing")
        other.start()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            _follow(receiver, polisher, thread, tell)
        except KeyboardInterrupt as stop:
            told_ending(tell, WORK, stop)
            raise
        finally:
            sys.setswitchinterval(interval)
            receiver.stopping.set()
            for each in (thread, other):
                each.join(PATIENCE_SECONDS)
            if receiver.live is None:
                with contextlib.suppress(OSError):  # not empty
                    state.rmdir()
        assert receiver.live is not None
        live = receiver.live
        tell(Event(kind="started", work=WORK, message=f"{receiver.ended}: {live.report().done} frames are in"))
        result = live.finish(tell)
        live.close()
        summary = _write(folder, live, result, tell, output, model, config, execution, reading or ReadOptions())
        shutil.rmtree(state)
    return result, summary


def _follow(receiver: _Receiver, polisher: _Polisher, thread: threading.Thread, tell: Listener) -> None:
    """Place what comes, and tell how it stands, until the source has ended."""
    due, prepared, said = 0.0, False, 0
    while True:
        for error in (receiver.error, polisher.error):
            if error is not None:
                raise error
        for message in receiver.troubles[said:]:
            tell(Event(kind="warning", work=WORK, message=message))
            said += 1
        live = receiver.live
        if live is None:
            if receiver.ended is not None:
                remedy = "See that it writes where it is looked for."
                expected = "a setup and frames"
                raise DataError("source", expected=expected, received=f"nothing; {receiver.ended}", remedy=remedy)
            time.sleep(0.02)
            continue
        if not prepared:
            prepared = True
            message = f"{live.setup.source}: {live.setup.N} x {live.setup.N} pixels"
            tell(Event(kind="prepared", work=WORK, total=live.setup.expected, unit="frame", message=message))
        live.ended = receiver.ended is not None
        placed = live.place()
        if time.monotonic() > due:
            tell(live.report())
            due = time.monotonic() + REPORT_SECONDS
        if placed:
            continue
        if live.ended and not thread.is_alive():
            tell(live.report())
            return
        time.sleep(0.005)


def _write(
    folder: Path,
    live: LiveReconstruction,
    result: Reconstruction,
    tell: Listener,
    output: Output,
    model: Model | SolveConfig,
    config: InferenceConfig,
    execution: ExecutionConfig,
    reading: ReadOptions,
) -> dict[str, Any]:
    path = folder / "reconstruction.npz"
    rescued(result.save, path)
    told_file(tell, WORK, path)
    report = live.report()
    with after_result(path):
        figure = draw(tell, plot_reconstruction, result, folder / "reconstruction.png")
        summary = {**result.summary(), "scan": live.setup.source, "reconstruction": str(path), "figure": figure}
        summary["live"] = {
            "frames": report.received,
            "placed": report.done,
            "without_position": report.unplaced,
            "duplicates": report.duplicates,
            "conflicting_positions": live.spool.conflicts,
            "polished": report.polished,
        }
        table = {"inference": config} if isinstance(model, Model) else {"solving": model}
        write_record(
            folder,
            WORK,
            configs={**table, "execution": execution, "reading": reading},
            scans=[live.scan()],
            engine=result.engine,
            seconds=result.seconds,
            history=result.history,
            warnings=output.warnings,
            origin=output.origin,
        )
        summary["report"] = reported(tell, folder)
        write_text(folder / "reconstruction.json", json.dumps(summary, indent=2) + "\n")
    return summary
