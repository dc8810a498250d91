"""Measures `ptycho watch` as a beamline would use it: how far behind it is, what goes wrong, what a kill leaves.

    python benchmarks/live.py lag --rate 500 --rate 5000 --browser
    python benchmarks/live.py memory --times 10 --times 25 --times 50
    python benchmarks/live.py faults
    python benchmarks/live.py kill --kills 20
    python benchmarks/live.py pages --pages 50
    python benchmarks/live.py report

lag: a replay at each rate into a watch with a canvas model; its lag by its own events, and with --browser the time from
a frame's coming to its place on the page of a headless Chromium. memory: the same 2,000 positions are measured so many
times, 5,000 frames a second, and what the watch and its page keep is looked at; its end is not waited for. faults:
10,000 frames shuffled, 5 % twice, 2 % late by 10 s, 1 % never. kill: a watch is killed again and again while a replay
sends. pages: so many pages of one work at once. report: of an object of 2,000 x 2,000 pixels, in a process that has
drawn nothing before.
The result of every watch is compared with an offline reconstruction of the same frames. Exit code 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from ptycho_core_reference import ReferenceEngine

from ptycho_core import load_model, load_scan, reconstruct, save_scan, simulate, solve, train
from ptycho_core.live.messages import frames_message, positions_message, setup_message
from ptycho_core.live.replay import Sender
from ptycho_core.live.setup import Setup
from ptycho_core.live.sources import StreamSource
from ptycho_core.quality.metrics import complex_correlation
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.runs import watch
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.solving import loop as solving

N, AGAIN, LOOKS = 64, 2000, 5
PTYCHO = [sys.executable, "-m", "ptycho_core"]
READY_SECONDS = 120
SHOWN = re.compile(r"image of (\d+)")


def prepared(folder: Path, frames: int, backend: str) -> tuple[Path, Path]:
    """A scan of so many frames, and a canvas model, which here need not be a good one."""
    scan, model = folder / f"scan_{frames}.npz", folder / "model"
    if not scan.exists():
        save_scan(scan, simulate(N=N, positions=frames, step_px=8, object="dead-leaves", photons=1e5, scan="raster"))
    if not model.exists():
        small = simulate(N=N, positions=300, step_px=8, object="dead-leaves", photons=1e5, seed=1)
        config = TrainingConfig(model=ModelConfig(N=N), nepochs=1, n_groups=16, batch_size=8, backend=backend)
        train(small, config).save(model)
    return scan, model


@contextmanager
def watching(address: str, model: Path, out: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], list[Any]]]:
    """A watch as a child, and its events as they come."""
    command = [*PTYCHO, "watch", address, "--model", str(model), "--out", str(out), "--events", *more]
    events: list[dict[str, Any]] = []
    log = (out.parent / f"{out.name}.log").open("a")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as child:
        threading.Thread(target=lambda: events.extend(map(json.loads, child.stdout or ())), daemon=True).start()
        try:
            yield child, events
        finally:
            if child.poll() is None:
                child.kill()


def replaying(scan: Path, address: str, rate: float, *more: str) -> subprocess.Popen[bytes]:
    command = [*PTYCHO, "replay", str(scan), "--to", address, "--rate", str(rate), "--quiet", *more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def until(found: Any, seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return value


def same_as_offline(out: Path, scan: Path, model: Path, backend: str) -> tuple[float, float]:
    """Correlation with an offline reconstruction of the frames of the result, and the largest difference."""
    result = load_reconstruction(out)
    offline = reconstruct(load_scan(scan).subset(result.frames), load_model(model), backend=backend)
    known = offline.overlap_count > 0
    difference = float(np.abs(result.object_field - offline.object_field).max())
    return complex_correlation(result.object_field, offline.object_field, known), difference


PAINTED = """
window.painted = []
new PerformanceObserver(list => {
    for (const each of list.getEntries()) {
        if (each.element?.tagName === 'IMG') window.painted.push(each.renderTime || each.loadTime)
    }
}).observe({type: 'largest-contentful-paint', buffered: true})
"""
DRAWN = """() => {
    const page = window.Bokeh?.documents[0]
    return page?.get_model_by_name('amplitude') && page.is_idle ? [window.painted[0] ?? NaN, performance.now()] : null
}"""
"""Milliseconds from navigation to the first picture, which comes with the page, and to figures that zoom."""


class Browser:
    """A headless Chromium that looks at a page: when, and how many frames its image shows.

    `first`: seconds from navigation until another page of it shows a picture, and until that is a figure.
    """

    def __init__(self, url: str, stop: threading.Event) -> None:
        self.url, self.stop, self.seen = url, stop, []
        self.first: list[list[float]] = []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        from playwright.sync_api import sync_playwright

        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        shown = """() => {
            const page = window.Bokeh?.documents[0]
            const image = page?.get_model_by_name('amplitude')
            const text = page?.get_model_by_name('status')?.text ?? ''
            return image ? Number(text.match(/image of (\\d+)/)?.[1] ?? 0) : 0
        }"""
        with sync_playwright() as running:
            opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = opened.new_page()
            page.goto(self.url)
            self.ready.set()
            while not self.stop.is_set():
                number = page.evaluate(shown)
                if number and (not self.seen or number != self.seen[-1][1]):
                    self.seen.append((time.time(), number))
                if len(self.first) < LOOKS and len(self.seen) >= 3 * (len(self.first) + 1):  # another one looks in
                    context = opened.new_context()
                    other = context.new_page()
                    other.add_init_script(PAINTED)
                    other.goto(self.url, wait_until="commit")
                    while (drawn := other.evaluate(DRAWN)) is None and not self.stop.is_set():
                        time.sleep(0.03)
                    if drawn is not None:
                        self.first.append([each / 1000 for each in drawn])
                    context.close()
                time.sleep(0.03)
            opened.close()


def sampled(child: subprocess.Popen[str], memory: list[float], stop: threading.Event) -> None:
    """MiB of a process by time, twice a second."""
    while not stop.is_set():
        memory.append(of_process(child.pid)[1])
        stop.wait(0.5)


def lag(folder: Path, rate: float, seconds: float, backend: str, browser: bool) -> bool:
    frames = int(rate * seconds)
    scan, model = prepared(folder, frames, backend)
    out, port, page = folder / f"lag_{rate:g}", random.randint(20_000, 60_000), random.randint(20_000, 60_000)
    address = f"tcp://127.0.0.1:{port}"
    with watching(address, model, out, "--backend", backend, f"--serve={page}") as (child, events):
        until(lambda: "listening" in (folder / f"{out.name}.log").read_text(), READY_SECONDS, "watch")
        stop = threading.Event()
        looks = Browser(f"http://127.0.0.1:{page}/", stop) if browser else None
        if looks is not None:
            until(looks.ready.is_set, READY_SECONDS, "the browser")
        sender, memory = replaying(scan, address, rate), []
        threading.Thread(target=lambda: sampled(child, memory, stop), daemon=True).start()
        until(lambda: any("has ended" in event.get("message", "") for event in events), 600, "the end of the source")
        stop.set()
        if looks is not None:
            looks.thread.join()
        until(lambda: child.poll() is not None, 600, "the end")
        sender.wait()
    live = [event for event in events if event["kind"] == "batch" and event["work"] == "watch"]
    lags = [event["lag_s"] for event in live if event["received"] > 0]
    result = events[-1]["result"]["live"]
    span, step = live[-1]["time"] - live[0]["time"], len(memory) // 10 + 1
    print(
        f"{rate:g} frames/s for {seconds:g} s: lag median {statistics.median(lags):.2f} s, at most {max(lags):.2f} s; "
        f"placed {result['placed']} of {frames} in {span:.1f} s, {result['polished']} tiles polished; "
        f"MiB of its own every {step / 2:g} s: {[round(each) for each in memory[::step]]}"
    )
    if looks is not None and looks.seen:
        times, received = [event["time"] for event in live], [event["received"] for event in live]
        delays = [when - np.interp(number, received, times) for when, number in looks.seen]
        print(
            f"  page: from a frame's coming to its place median {statistics.median(delays):.2f} s, at most "
            f"{max(delays):.2f} s, {len(delays)} images; of other pages the first picture and the figures after (s): "
            f"{[[round(each, 2) for each in pair] for pair in looks.first]}"
        )
    return held(out, scan, model, backend)


def again_and_again(scan: Path, address: str, rate: float, times: int) -> None:
    """The process that sends a scan so many times, each time under new numbers; no end."""
    measured, sender, begun = load_scan(scan), Sender(address), time.monotonic()
    amplitude, count = np.asarray(measured.diffraction_amplitude), len(measured)
    sender.send(setup_message(Setup.of(measured, expected=count * times), session="again"))
    for start in range(0, count * times, 16):
        while (left := begun + start / rate - time.monotonic()) > 0:
            sender.hear(left)
        numbers = np.arange(start, min(start + 16, count * times))
        sender.send(positions_message(numbers, measured.positions_px[numbers % count]))
        sender.send(frames_message(numbers, amplitude[numbers % count], "amplitude"))
    sender.settle()
    sender.close()


def memory(folder: Path, rate: float, times: int, backend: str) -> bool:
    """Of a watch whose object stays the same while the frames become more and more."""
    scan, model = prepared(folder, AGAIN, backend)
    out, frames, kept = folder / f"memory_{times}", AGAIN * times, []
    address = f"tcp://127.0.0.1:{random.randint(20_000, 60_000)}"
    with watching(address, model, out, "--backend", backend, "--serve=0") as (child, events):
        until(lambda: "listening" in (folder / f"{out.name}.log").read_text(), READY_SECONDS, "watch")
        whose = multiprocessing.get_context("spawn")
        sender = whose.Process(target=again_and_again, args=(scan, address, rate, times))
        sender.start()
        placed, lags, pages, passes, begun = 0, [], [], [], time.monotonic()
        while placed < frames:
            if child.poll() is not None or time.monotonic() - begun > 600:
                raise SystemExit(f"a watch that has placed {placed} of {frames} frames after 600 s, or has ended")
            live = [event for event in events if event["kind"] == "batch" and event["work"] == "watch"]
            placed, lags = (live[-1]["done"] if live else 0), [event["lag_s"] for event in live]
            kept.append((placed, of_process(child.pid)[1]))
            passes.append((live[-1]["polished"] if live else 0, kept[-1][1]))
            pages.append(sum(of_process(pid)[1] for pid in children(child.pid)))
            time.sleep(0.25)
        span = live[-1]["time"] - next(event["time"] for event in live if event["done"])
        for _ in range(8):  # with nothing more to do
            time.sleep(0.25)
            kept.append((placed, of_process(child.pid)[1]))
        sender.join()
    at = {part: next(each for done, each in kept if done >= part * frames) for part in (0.1, 0.25, 0.5, 0.75, 1.0)}
    print(
        f"{frames} frames of {AGAIN} positions at {rate:g} a second: all placed in {span:.1f} s, lag at most "
        f"{max(lags):.1f} s; MiB of its own after a part of the frames "
        f"{ ({part: round(each) for part, each in at.items()}) }, at most {max(each for _, each in kept):.0f}, "
        f"{kept[-1][1]:.0f} at rest; of the page {max(pages):.0f}; by tiles that were polished: "
        f"{ ({number: round(size) for number, size in passes}) }"
    )
    shutil.rmtree(out)
    return True


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]


def held(out: Path, scan: Path, model: Path, backend: str) -> bool:
    correlation, difference = same_as_offline(out, scan, model, backend)
    print(f"  against offline: correlation {correlation:.6f}, largest difference {difference:.2g}")
    return correlation >= 0.999


def faults(folder: Path, frames: int, rate: float, backend: str) -> bool:
    scan, model = prepared(folder, frames, backend)
    out, address = folder / "faults", f"tcp://127.0.0.1:{random.randint(20_000, 60_000)}"
    wrong = ("--shuffle", "--duplicate", "0.05", "--late", "0.02", "--late-s", "10", "--lose", "0.01")
    with watching(address, model, out, "--backend", backend) as (child, events):
        until(lambda: "listening" in (folder / f"{out.name}.log").read_text(), READY_SECONDS, "watch")
        sender = replaying(scan, address, rate, *wrong)
        until(lambda: child.poll() is not None, 900, "the end")
        sender.wait()
    result = events[-1]["result"]["live"]
    print(f"{frames} frames shuffled, 5 % twice, 2 % late, 1 % never: {json.dumps(result)}")
    once = result["placed"] == result["frames"] == len(set(load_reconstruction(out).frames.tolist()))
    return held(out, scan, model, backend) and once


SOLVING = {"refine": "none", "modes": "1", "prior": "none", "batches": 4, "sweeps": 3, "split_half": False}
"""On the core's float64 reference, whose process is there in a second or two."""


def on_the_reference() -> SolveConfig:
    solving.load_engine = watch.load_engine = lambda backend: ReferenceEngine()
    return SolveConfig(**SOLVING)


def watched(address: str, out: Path) -> None:
    """The process that is killed."""
    try:
        watch.watch_into(out, StreamSource(address), on_the_reference())
    except BaseException:
        traceback.print_exc()
        raise


def kill(folder: Path, kills: int) -> bool:
    scan = simulate(N=16, positions=1000, step_px=3, object="lines", photons=1e5, seed=3)
    save_scan(folder / "small.npz", scan)
    out, address = folder / "kill", f"tcp://127.0.0.1:{random.randint(20_000, 60_000)}"
    rng, counts, index = random.Random(0), [], out / "live" / "frames.idx"
    sender = replaying(folder / "small.npz", address, 1000 / (8 * kills), "--shuffle", "--duplicate", "0.05")
    for number in range(kills + 1):
        child = multiprocessing.get_context("spawn").Process(target=watched, args=(address, out))
        child.start()
        if number < kills:
            before = index.stat().st_size if index.exists() else 0
            until(lambda before=before: index.exists() and index.stat().st_size > before, READY_SECONDS, "a frame")
            time.sleep(rng.uniform(0, 1.5))
            child.kill()
            counts.append(index.stat().st_size // 8)
        child.join()
    sender.wait()
    result = load_reconstruction(out)
    offline = solve(scan, on_the_reference())
    same = np.array_equal(result.object_field, offline.object_field)
    print(f"killed {kills} times, with so many of 1,000 frames: {counts}")
    print(f"  then {result.patterns} frames; the object of an offline solve, to the last bit: {same}")
    return same and result.patterns == 1000


def of_process(pid: int) -> tuple[float, float]:
    """Processor seconds of a process, and MiB of its own: files that it maps are the system's to forget."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    rows = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "RssAnon" in line)
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(rows.split()[1]) / 1024


def pages(count: int) -> bool:
    """So many pages of a work that changes four times a second, fetched as a browser's script does; then all leave."""
    from bokeh.client import pull_session

    from ptycho_core.live.reconstruction import LiveReport
    from ptycho_core.report.pages.served import LivePage

    class SoFar:
        origin_px = (0.0, 0.0)

        def known_field(self) -> tuple[Any, Any]:
            rng = np.random.default_rng()
            return np.exp(1j * rng.random((500, 500))).astype(np.complex64), np.ones((500, 500), bool)

    page, sessions, steps = LivePage(port=0), [], 4 * count
    pid = page._process.pid or 0
    for number in range(steps):
        page(LiveReport(done=number, total=steps, rate=100.0, payload=SoFar()))
        if number < count:
            sessions.append(pull_session(url=page.url))
        for each in sessions[number % 10 :: 10]:  # every browser reads now and then
            each.force_roundtrip()
        if number == count:
            (before, _), begun = of_process(pid), time.monotonic()
        time.sleep(0.25)
    (after, full), spent = of_process(pid), time.monotonic() - begun
    for session in sessions:
        session.pull()
    shown = [int(SHOWN.search(session.document.get_model_by_name("status").text)[1]) for session in sessions]
    for session in sessions:
        session.close()
    time.sleep(30)  # after which they are forgotten
    (gone, left), begun = of_process(pid), time.monotonic()
    late = pull_session(url=page.url).document.get_model_by_name("status").text
    took = time.monotonic() - begun
    print(
        f"{count} pages: of step {steps - 1} they show {min(shown)} to {max(shown)}; the page's process takes "
        f"{(after - before) / spent:.2f} processors, {full:.0f} MiB; all left: {gone - after:.1f} s, {left:.0f} MiB; "
        f"another is answered within {took:.2f} s"
    )
    page.close()
    return min(shown) > steps - 20 and "image of" in late


REPORT = """
import resource, time
begun = time.perf_counter()
from pathlib import Path
from ptycho_core.report.pages import write_report
imported = time.perf_counter()
file = write_report(Path("."), Path("report.html"))
spent, size = time.perf_counter(), file.stat().st_size / 1e6
usage = resource.getrusage(resource.RUSAGE_SELF)
print(f"report: {spent - imported:.2f} s after {imported - begun:.2f} s of imports, "
      f"{usage.ru_utime + usage.ru_stime:.2f} s of processor time in all; {size:.2f} MB")
"""


def report(folder: Path) -> bool:
    """An object of noise, which no compression makes small, with all that a solve leaves."""
    rng, side, count = np.random.default_rng(0), 2000, 10_000
    scan = simulate(N=N, positions=300, step_px=8, object="dead-leaves", photons=1e5)
    small = solve(scan, on_the_reference())
    large = np.kron(rng.standard_normal((2, side // 4, side // 4)), np.ones((4, 4))) + rng.standard_normal((side, side))
    places = rng.uniform(small.origin_px, np.add(small.origin_px, side), (count, 2))
    frames = dict.fromkeys(("frame_R", "frame_deviance", "intensities"), rng.uniform(0.9, 1.1, count))
    result = attrs.evolve(
        small,
        object_field=((1 + 0.1 * large[0]) * np.exp(0.3j * large[1])).astype(np.complex64),
        overlap_count=np.full((side, side), 9, np.int32),
        predicted_error=np.abs(0.02 + 0.004 * large[0]).astype(np.float32),
        known=np.ones((side, side), bool),
        object_without_prior=None,
        positions_px=places,
        given_positions_px=places + rng.normal(0, 0.3, places.shape),
        patterns=count,
        frames=np.arange(count),
        **frames,
    )
    result.save(folder)
    for _ in range(3):
        subprocess.run([sys.executable, "-c", REPORT], cwd=folder, check=True)
    return (folder / "report.html").stat().st_size < 5_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=("lag", "memory", "faults", "kill", "pages", "report"), nargs="+")
    parser.add_argument("--rate", type=float, action="append", default=[])
    parser.add_argument("--seconds", type=float, default=20.0, help="of a replay")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--times", type=int, action="append", default=[], help="that a position is measured")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--browser", action="store_true")
    asked = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    held = True
    with tempfile.TemporaryDirectory(prefix="ptycho-live-") as place:
        folder = Path(place)
        if "lag" in asked.part:
            for rate in asked.rate or [500.0, 5000.0]:
                held &= lag(folder, rate, asked.seconds * min(1, 1000 / rate), asked.backend, asked.browser)
        if "memory" in asked.part:
            for times in asked.times or [10, 25, 50]:
                held &= memory(folder, max(asked.rate or [5000.0]), times, asked.backend)
        if "faults" in asked.part:
            held &= faults(folder, asked.frames, 500.0, asked.backend)
        if "kill" in asked.part:
            held &= kill(folder, asked.kills)
        if "pages" in asked.part:
            held &= pages(asked.pages)
        if "report" in asked.part:
            held &= report(folder)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
