"""Spoiled scan files and published archives of every format, each read in a process with limits of time and memory.

    python benchmarks/fuzz_readers.py --inputs 5000 --seed 1

An input is a valid small file with bits flipped, cut off, spliced, with extreme numbers in its header or in the
structures of HDF5, or with a part replaced by something that cannot be there. It may be read as far as it is whole, or
refused by a DataError or ArchiveError. Everything else is unexpected and makes the exit code 1: another exception, a
crash, more than 10 s, more than 1 GiB, a pickle executed, a message that does not name the file.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from cases import print_table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the makers of files are the tests'

import ptycho_core.scans.frames
from ptycho_core.errors import ArchiveError, DataError, PtychoError
from ptycho_core.io import load_scan
from ptycho_core.published import import_published
from tests.core.scan_files import MAKERS, spoil
from tests.core.spoiled_archives import ARCHIVES, spoil_archive

FORMATS = [*MAKERS, *ARCHIVES]
SECONDS, MEMORY_BYTES = 10, 2**30
BATCH = 1000


def try_input(seed: int, number: int, formats: list[str]) -> dict[str, str]:
    """Make and read one input; what came of it."""
    rng = np.random.default_rng([seed, number])
    name = formats[number % len(formats)]
    ptycho_core.storage.source.IN_MEMORY_BYTES = 0 if rng.random() < 0.5 else 2**28
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trap = Path(folder) / "executed"
        if name in ARCHIVES:
            archive = ARCHIVES[name](Path(folder))
            way = spoil_archive(archive, rng, trap)
        else:
            file = MAKERS[name](Path(folder))
            way = spoil(file, rng, trap)
        report = {"format": name, "way": way}
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # ends the process, also within HDF5
        try:
            if name in ARCHIVES:
                import_published(archive)
            else:
                np.asarray(load_scan(file.path, **file.settings).diffraction_amplitude)
            report["outcome"], report["kind"] = "read", ""
        except (DataError, ArchiveError) as error:
            message, cause = str(error), error.__cause__
            while isinstance(cause, PtychoError):
                cause = cause.__cause__
            report["outcome"], report["kind"] = "refused", "a check" if cause is None else type(cause).__name__
            if folder not in message or not any(word in message for word in ("expected", "must be")):
                report |= {"outcome": "unexpected", "kind": "a message without file or expectation", "detail": message}
            elif isinstance(cause, MemoryError):
                report |= {"outcome": "unexpected", "kind": "memory", "detail": message}
        except MemoryError:
            report |= {"outcome": "unexpected", "kind": "memory", "detail": traceback.format_exc()}
        except Exception as error:  # noqa: BLE001 - what this looks for
            report |= {"outcome": "unexpected", "kind": type(error).__name__, "detail": traceback.format_exc()}
        signal.setitimer(signal.ITIMER_REAL, 0)
        if trap.exists():
            report |= {"outcome": "unexpected", "kind": "an executed pickle"}
    return report


def work(seed: int, start: int, stop: int, formats: list[str]) -> None:
    """A process of its own: a line before and after each input."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try_input(seed, start, formats)  # loads all that is loaded on first use
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(start, stop):
        print(json.dumps({"number": number}), flush=True)
        print(json.dumps({"number": number, **try_input(seed, number, formats)}), flush=True)


def run_batch(seed: int, start: int, stop: int, formats: list[str], end: float) -> list[dict[str, str]]:
    """The reports of a batch; a process that dies is replaced and its input reported."""
    reports: list[dict[str, str]] = []
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    while start < stop and time.perf_counter() < end:
        command = [sys.executable, __file__, "--seed", str(seed), "--work", str(start), str(stop)]
        command += ["--formats", *formats]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        reports += [line for line in lines if "outcome" in line]
        if done.returncode == 0:
            break
        begun = [line["number"] for line in lines]
        start = int(begun[-1]) if begun else start
        name = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        kind = f"more than {SECONDS} s" if name == "SIGALRM" else name
        detail = done.stderr[-2000:]
        form = formats[start % len(formats)]
        reports.append(
            {"number": str(start), "format": form, "way": "?", "outcome": "unexpected", "kind": kind, "detail": detail}
        )
        start += 1
    return reports


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--minutes", type=float, default=60, help="No batch begins later.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", type=int, default=10, help="Unexpected outcomes to print in full.")
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.seed, *arguments.work, arguments.formats)
        return 0
    started = time.perf_counter()
    end = started + 60 * arguments.minutes
    with ThreadPoolExecutor(arguments.processes) as pool:
        batches = [
            pool.submit(run_batch, arguments.seed, start, min(start + BATCH, arguments.inputs), arguments.formats, end)
            for start in range(0, arguments.inputs, BATCH)
        ]
        reports = [report for batch in batches for report in batch.result()]
    summarise(reports, arguments.show)
    unexpected = sum(report["outcome"] == "unexpected" for report in reports)
    seconds = time.perf_counter() - started
    print(f"\n{len(reports)} inputs, seed {arguments.seed}, {seconds:.0f} s: {unexpected} unexpected.")
    return 1 if unexpected or not reports else 0


def summarise(reports: list[dict[str, str]], show: int) -> None:
    outcomes = "read", "refused", "unexpected"
    for title in ("format", "way"):
        count = collections.Counter((report[title], report["outcome"]) for report in reports)
        names = sorted({name for name, _ in count})
        rows = [[name, sum(count[name, o] for o in outcomes), *(count[name, o] for o in outcomes)] for name in names]
        print_table([title, "inputs", *outcomes], rows)
        print()
    kinds = collections.Counter((report["outcome"], report["kind"]) for report in reports if report["kind"])
    print_table(["outcome", "found by", "inputs"], [[*kind, number] for kind, number in kinds.most_common()])
    for report in [report for report in reports if report["outcome"] == "unexpected"][:show]:
        print(f"\n-- input {report['number']} ({report['format']}, {report['way']}): {report['kind']}")
        print(report.get("detail", ""))


if __name__ == "__main__":
    sys.exit(main())
