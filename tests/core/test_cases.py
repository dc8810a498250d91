"""Situations from public bug reports, as scripts make them: each command gives the outcome that was asked for.

The scripts are beside the real data, in `cases`, each with a section in the README there.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest

from tests.command_line import Outcome, run_here
from tests.shared_data import SHARED, absent

CASES = SHARED.parent / "cases"
NAMED = "--position-order xy --position-unit px"
A = f"--positions pos.txt {NAMED} --probe probe.npy"
"""As the README of the cases calls it."""
P = f"--positions pos {NAMED} --probe probe.npy"
XY = f"--dataset diff --positions xcoords,ycoords {NAMED} --probe probe.npy"
METRES = (
    "--dataset diff --probe probe.npy --position-order xy --position-unit m --distance-m 1 --detector-pixel-m 75e-6"
)
LENGTHS = "--energy-eV 8000 --distance-m 1 --detector-pixel-m 75e-6"
TINY = "--architecture tiny --n-filters-scale 1 --nepochs 1 --quiet"


@attrs.frozen
class Row:
    """One command in the folder of a case: its exit code, and what it prints, in one line; ! marks what it does not."""

    case: str
    command: str
    code: int
    told: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.case}: {self.command}"


def row(case: str, command: str, code: int, *told: str) -> Row:
    return Row(case, command, code, told)


FINE, REFUSED = 0, 2
GOOD = "findings: none"

ROWS = [
    # Eiger: a master, three linked files, dead pixels at 2³² − 1
    row("01", "inspect scan7_master.h5", REFUSED, "expected positions", "--positions, --scan-step"),
    row("01", f"inspect scan7_master.h5 {A}", FINE, "patterns 100 of", "bad pixels 129", "wavelength 124 pm", GOOD),
    row("01", f"inspect scan7_master.h5 {A}", FINE, "reader nexus", "detector pixel 75 µm", "distance 2 m"),
    row("01", f"inspect scan7_master.h5 {A} --dataset entry/data/data_000001", REFUSED, "34 patterns; received 100"),
    row("01", f"inspect scan7_master.h5 {A} --dataset entry/data", FINE, "patterns 100 of", "--mask saturated"),
    # patterns as counts in floats, as logarithms, with the beam in the corner
    row("03", "inspect float_counts.npz", FINE, "all whole numbers", "--measurement intensity"),
    row("03", "inspect log_counts.npz", FINE, "read as amplitude, because the type is float32"),
    row("03", "inspect corner.npz", FINE, "100 % of the intensity in the corners", "--dc corner"),
    row("03", f"train corner.npz --out run {TINY.replace('--quiet', '')}", FINE, "WARNING", "--dc corner"),
    row("03", "inspect corner.npz --dc corner", FINE, GOOD),
    # dark subtracted, NaN, empty and hot frames
    row("04", "inspect nan_gap_masked.npz", FINE, "bad pixels 128", GOOD),
    row("04", "inspect nan_frames.npz", REFUSED, "2 of 100 patterns: 7,50", "--drop-frames nan"),
    row("04", "inspect nan_frames.npz --drop-frames nan", FINE, "patterns 98 of"),
    row("04", "inspect nan_frames.npz --drop-frames 7,50", FINE, "patterns 98 of"),
    row("04", "inspect negative.npz", REFUSED, "a minimum of -2.4", "--clip-negative"),
    row("04", "inspect negative.npz --measurement intensity --clip-negative", FINE, "photons per pattern", GOOD),
    row("04", "inspect minus_one.npz", REFUSED, "a minimum of -1", "--mask negative"),
    row("04", "inspect minus_one.npz --mask negative", FINE, "bad pixels 4", GOOD),
    row("04", "inspect empty.npz", FINE, "15 of 100 patterns: 20-34", "smallest 0", "--drop-frames empty"),
    row("04", f"train empty.npz --out run {TINY.replace('--quiet', '')}", FINE, "WARNING", "15 of 100 patterns: 20-34"),
    row("04", "inspect empty.npz --drop-frames empty", FINE, "15 of 100 patterns are left out", GOOD),
    row("04", "inspect hot_frame.npz", FINE, "1 of 100 patterns: 33", "--drop-frames outliers"),
    row("04", "inspect hot_frame.npz --good-pixels good.npy", FINE, "bad pixels 128"),
    row("04", "inspect hot_frame.npz --bad-pixels good.npy", FINE, "3968 of 4096 pixels bad", "--good-pixels"),
    # 4D-STEM
    row("05", f"inspect stem.h5 --dataset 4DSTEM/datacube/data {A}", FINE, "patterns 54 of 64 x 64", GOOD),
    row("05", "inspect stem.h5", REFUSED, "4DSTEM/datacube/data (6, 9, 64, 64) uint16"),
    row("05", "inspect stem.h5 --dataset 4DSTEM/datacube/data", REFUSED, "expected scan_step", "--scan-step STEP"),
    row("05", "inspect stem.npz", REFUSED, "expected scan_step", "--scan-step STEP"),
    *(
        row("05", f"inspect {name} --probe probe.npy --scan-step 5 --position-unit px", FINE, "patterns 54 of", GOOD)
        for name in ("stem.npz", "stem.npy")
    ),
    row("05", f"inspect stem.npy --positions pos_grid.npy {NAMED} --probe probe_nnm.npy", FINE, "3 modes"),
    row(
        "05",
        "inspect stem.h5 --dataset 4DSTEM/datacube/data --scan-step 1e-9 --position-unit m --scan-rotation 10 "
        "--voltage-kV 300 --distance-m 0.5 --detector-pixel-m 55e-6 --probe probe.npy",
        FINE,
        "energy 300000 eV (electrons)",
        "wavelength 1.969 pm",
    ),
    row(
        "05",
        "inspect stem.h5 --dataset 4DSTEM/datacube/wide --scan-step 5 --position-unit px --probe probe.npy",
        REFUSED,
        "48 x 40",
        "--crop 40, --pad 48",
    ),
    row("05", f"inspect v5.mat --dataset dp --probe probe_v5.mat --positions ppX,ppY {NAMED}", FINE, GOOD),
    row("05", f"inspect v5.mat --dataset dp --probe probe_v5.mat --positions v5.mat:ppX,ppY {NAMED}", FINE, GOOD),
    # no probe, fewer positions than frames, positions that are no numbers, a dark
    row("07", "inspect noprobe.cxi", FINE, "probe unknown", "1.518 µm x 1.518 µm", "energy 8000 eV"),
    row("07", "convert noprobe.cxi whole.cxi", FINE, "whole.cxi"),
    row("07", "split noprobe.cxi one.cxi two.cxi", FINE, "one.cxi: 80 patterns"),
    row("07", "convert noprobe.cxi pair", REFUSED, "expected a probe", "ptycho solve SCAN --probe auto"),
    row("07", "train noprobe.cxi --out run", REFUSED, "expected probe", "--probe"),
    row("07", "inspect fewer.cxi", REFUSED, "each of 100 patterns; received 97", "--drop-frames unplaced"),
    row("07", "inspect fewer.cxi --drop-frames unplaced", FINE, "patterns 97 of", "97-99 (3)"),
    row("07", "inspect nanpos.cxi", REFUSED, "2 of 100 patterns: 3,99", "--drop-frames unplaced"),
    row("07", "inspect nanpos.cxi --drop-frames unplaced", FINE, "patterns 98 of"),
    row("07", "inspect dark.cxi", FINE, "WARNING", "data_dark is not subtracted (--dark"),
    row("07", "inspect dark.cxi --dark /entry_1/instrument_1/detector_1/data_dark", FINE, "mean 9.999e+04 photons"),
    # an aborted scan: chunks that were never written
    *(
        row(
            "08",
            f"inspect {name}.h5 --dataset entry/data/data {P}",
            REFUSED,
            "40 of 100 patterns: 60-99",
            "--drop-frames unwritten",
        )
        for name in ("aborted", "aborted_max")
    ),
    *(
        row("08", f"inspect {name}.h5 --dataset entry/data/data {P} --drop-frames unwritten", FINE, "patterns 60", GOOD)
        for name in ("aborted", "aborted_max")
    ),
    # a stray position, wrong units
    row("10", "inspect stray.npz", REFUSED, "step 4 px", "1 of 100 patterns: 37", "--drop-frames stray"),
    row("10", f"train stray.npz --out run {TINY}", REFUSED, "1 of 100 patterns: 37", "--drop-frames stray"),
    row("10", "solve stray.npz --out run", REFUSED, "1 of 100 patterns: 37", "--drop-frames stray"),
    row("10", "inspect stray9.npz", REFUSED, "1 of 100 patterns: 37"),
    row("10", "inspect stray.npz --drop-frames stray", FINE, "patterns 99 of", GOOD),
    row("10", "inspect offset.npz", FINE, "x 10000035.00 … 10000082.00 px", GOOD),
    row("10", "inspect parked.npz", FINE, "59899 of 60000 at the position of another", "--positions"),
    *(
        row("10", f"{command} p.npz {METRES} --positions um.txt --energy-eV 8000", REFUSED, "--position-scale 1e-06")
        for command in ("inspect", f"train --out run {TINY}")
    ),
    *(
        row("10", f"{command} p.npz {METRES} --positions m.txt --energy-eV 8", REFUSED, "in keV", "--energy-eV 8000")
        for command in ("inspect", f"train --out run {TINY}")
    ),
    row("10", f"inspect p.npz {METRES} --positions um.txt --position-scale 1e-6 --energy-eV 8000", FINE, GOOD),
    row("10", "train offset.npz --out two --gridsize 2 --architecture cnn --show-config", FINE, "gridsize = 2"),
    # a missing part of a virtual data set, links to a folder above, PtyLab
    row(
        "12", f"inspect gone.nxs --dataset entry/vds {P}", REFUSED, "part2.h5 is not there", "50 of 100 patterns: 50-99"
    ),
    row("12", f"inspect gone.nxs --dataset entry/vds {P} --drop-frames unwritten", FINE, "patterns 50 of", GOOD),
    *(
        row(
            "12",
            f"inspect processed/scan-1.nxs --dataset entry/{name} {P}",
            REFUSED,
            "../raw/det-1.h5",
            "--follow-links",
        )
        for name in ("data", "vds")
    ),
    *(
        row("12", f"inspect processed/scan-1.nxs --dataset entry/{name} {P} --follow-links raw", FINE, GOOD)
        for name in ("data", "vds")
    ),
    row("12", "inspect lab.hdf5", FINE, "reader ptylab", "(322.7 µm x 322.7 µm)", "probe unknown"),
    # shapes and types
    row("13", "inspect nonsq.npz", REFUSED, "64 x 48 pixels", "--crop 48, --pad 64"),
    row("13", "inspect nonsq.npz --crop 48", REFUSED, "probe: expected 48 x 48 or 64 x 48", "--resample-probe"),
    row("13", "inspect nonsq.npz --crop 48 --resample-probe", FINE, "of 48 x 48 pixels", GOOD),
    row("13", "inspect nonsq.npz --pad 64", FINE, "of 64 x 64 pixels", GOOD),
    row("13", "inspect odd.npz", FINE, "of 65 x 65 pixels"),
    row("13", f"train odd.npz --out run {TINY.replace('tiny', 'canvas')}", REFUSED, "to 64 or pad them to 66"),
    row("13", f"train odd.npz --out run {TINY.replace('tiny', 'cnn')}", REFUSED, "to 64 or pad them to 72"),
    row("13", "inspect n100.npz", REFUSED, "--dataset diff3d, --positions xcoords,ycoords", "--probe probeGuess"),
    row("13", f"inspect n100.npz --dataset diff3d --positions xcoords,ycoords {NAMED} --probe probeGuess", FINE, GOOD),
    row("13", "inspect f16.npz", FINE, GOOD),
    row("13", "inspect f16_counts.npz", REFUSED, "float16, which ends at 65504"),
    row("13", "inspect dup.npz", REFUSED, "all 100 at the same place"),
    row("13", f"train dup.npz --out run {TINY}", REFUSED, "all 100 at the same place"),
    row("13", "inspect nooverlap.npz", FINE, "the patterns do not overlap"),
    row("13", f"train nooverlap.npz --out run {TINY.replace('tiny', 'canvas')}", REFUSED, "--architecture cnn"),
    row("13", "inspect cplx.npz", REFUSED, "expected real numbers", "complex128"),
    row("13", "inspect be.npz", FINE, "mean 9.999e+04 photons", GOOD),
    row("13", "inspect u64.npz", FINE, "mean 9.999e+16 photons", GOOD),
    row("13", "inspect obj.npz", REFUSED, "no objects"),
    row("13", "inspect one.npz", FINE, "received one pattern"),
    # a large packed file; .ptyd
    row("15", "inspect nan.ptyd --probe probe.npy", REFUSED, "1 of 100 patterns: 5", "--drop-frames unplaced"),
    row("15", "inspect nan.ptyd --probe probe.npy --drop-frames unplaced", FINE, "patterns 99 of", GOOD),
    row("15", "inspect dup.ptyd --probe probe.npy", FINE, "patterns 100 of", GOOD),
    row("15", "inspect packed.npz", FINE, "patterns 64000 of", "1000.0 MiB as amplitudes", GOOD),
    # units that cannot be right, a turned scan, a probe elsewhere
    *(
        row("16", f"{command} eV.cxi", REFUSED, "eV instead of joules", "--energy-eV 8000")
        for command in ("inspect", f"train --out run {TINY}")
    ),
    row("16", "inspect keV.cxi", REFUSED, "keV instead of joules", "--energy-eV 8000"),
    row("16", "inspect eV.cxi --energy-eV 8000", FINE, GOOD),
    row("16", "inspect um.cxi", REFUSED, "If they are in µm", "--position-scale 1e-06"),
    row("16", "inspect um.cxi --position-scale 1e-6", FINE, GOOD),
    row("16", "inspect turned.npz --rotate-positions 25 --check-orientation", FINE, "best: as stored"),
    row("16", "inspect probe_corner.npz", FINE, "--probe-origin corner", "!--no-pad-object"),
    row("16", "inspect probe_corner.npz --probe-origin corner", FINE, GOOD),
    row("16", "inspect probe_far.npz", FINE, "--probe-plane far"),
    row("16", "inspect probe_far.npz --probe-plane far", FINE, GOOD),
    row("16", "inspect probe_real.npz", FINE, "received a real one"),
    # a probe from another program
    *(
        row("19", f"inspect p.npz --dataset diff --positions pos.txt {NAMED} --probe {probe}", code, *told)
        for probe, code, told in (
            ("recon.ptyr:content/probe/SMFG00/data", FINE, ("2 modes (91.7 %, 8.26 %)", GOOD)),
            ("recon_ml.mat:probes --transpose-probe", FINE, ("1 mode", GOOD)),
            ("small.h5:probe", REFUSED, ("received 32 x 32", "--resample-probe, --probe-pixel-m")),
            ("small.h5:probe --resample-probe", FINE, (GOOD,)),
            ("four.h5:probe", FINE, ("2 modes (96.2 %, 3.85 %)",)),
            ("reim.h5:probe", FINE, ("a real one with two modes", "--probe-parts real-imaginary")),
            ("reim.h5:probe --probe-parts real-imaginary", FINE, ("1 mode", GOOD)),
            ("reim.h5:re,im --probe-parts real-imaginary", FINE, ("1 mode", GOOD)),
            ("zero.h5:probe", REFUSED, ("zero.h5: probe: expected a probe of finite values, not all zero",)),
            ("nan.h5:probe", REFUSED, ("nan.h5: probe: expected a probe of finite values",)),
        )
    ),
    row(
        "19",
        f"inspect tflip.npz --dataset diff --positions pos.txt {NAMED} --probe four.h5:probe --check-orientation",
        FINE,
        "Read it with: --transpose --flip-columns",
    ),
    # NSLS-II; a model on a scan unlike its own
    row("20", "inspect scan_1234.h5 --probe probe.npy", FINE, "reader nsls2", "(1.518 µm x 1.518 µm)", "155 pm", GOOD),
    row("20", "train dim.npz --out model " + TINY, FINE),
    row("20", "reconstruct n72.npz --model model --out 1", REFUSED, "64 x 64 patterns", "received 72 x 72"),
    row("20", "reconstruct other_probe.npz --model model --out 2", FINE, "its probe differs from that of the training"),
    row(
        "20",
        "reconstruct two_modes.npz --model model --out 3",
        FINE,
        "number of probe modes: 2 here, 1 in the training",
    ),
    row("20", "inspect 3", FINE, "kind reconstruction"),
    row("20b", f"train really_other.npz --out model {TINY}", FINE),
    row(
        "20b",
        "reconstruct ../20/dim.npz --model model --out 1",
        FINE,
        "its probe differs",
        "times that of the training",
    ),
    # Ptychodus pairs
    row("21", "inspect plain", FINE, "patterns 100 of", "energy 8000 eV", GOOD),
    row("21", "inspect masked", FINE, "bad pixels 64", GOOD),
    row("21", "inspect good_mask", FINE, "4032 of 4096 pixels bad", "--good-pixels"),
    row("21", "inspect repeat", FINE, "100 positions of 50 patterns: those of one pattern are averaged", "patterns 50"),
    row("21", "inspect shifted", FINE, "1 of 100 positions have no partner", "patterns 99 of"),
    row("21", "inspect disjoint", REFUSED, "none of them"),
    row("21", "inspect nocentre", FINE, "x 36.50 … 83.50 px", GOOD),
    row("21", "inspect fill", FINE, "20 patterns of negative index are left out", "patterns 100 of"),
    # configuration files as people write them
    *(
        row("22", f"train --config {name} --show-config", code, told)
        for name, code, told in (
            ("exp.yaml", FINE, "learning_rate = 0.001 # file exp.yaml"),
            ("yes.yaml", FINE, "pad_object = true # file yes.yaml"),
            ("bom.toml", FINE, "nepochs = 1 # file bom.toml"),
            ("empty.yaml", FINE, "nepochs = 20 # default"),
            ("null.yaml", FINE, "nepochs = 20 # default"),
            ("tab.yaml", REFUSED, "at line 2, column 1). Indent with spaces"),
            ("double.yaml", REFUSED, "the key 'nepochs', which occurs twice (at line 3, column 3)"),
            ("double_table.yaml", REFUSED, "the key 'training', which occurs twice (at line 5, column 1)"),
            ("latin.toml", REFUSED, "Save it as UTF-8."),
            ("str.toml", REFUSED, "nepochs must be a whole number; got '1'"),
            ("float.toml", REFUSED, "nepochs must be a whole number; got 1.0"),
            ("typo.toml", REFUSED, "Did you mean 'nepochs'?"),
            ("flat.yaml", REFUSED, "nepochs: not in a table"),
            ("path.toml", REFUSED, "Write a path with / in place of"),
            ("anchor.yaml", REFUSED, "anchors and aliases are not read"),
            ("list.yaml", REFUSED, "expected tables; received list"),
            ("config.json", REFUSED, "It looks like JSON"),
        )
    ),
    # a beam beside the middle, a bright one
    row(
        "23",
        f"inspect offset.npz {XY} --crop 64",
        FINE,
        "column 26.01",
        "--centre auto, --centre-row 38, --centre-column 42",
    ),
    row("23", f"inspect offset.npz {XY} --crop 64 --centre auto", FINE, "row 31.98, column 32.01", GOOD),
    row("23", f"inspect offset.npz {XY} --crop 64 --centre-row 38 --centre-column 42", FINE, GOOD),
    row("23", f"inspect offset.npz {XY} --crop 64 --centre-row 5 --centre-column 5", FINE, "outside the detector"),
    row("23", f"convert x.npz pair/ {LENGTHS}", FINE, "pair/product.h5"),
    row("23", "inspect pair", FINE, "patterns 100 of", GOOD),
    row("23", "inspect extra.npz", FINE, GOOD),
    row("23", "convert x.npz extra.npz", REFUSED, "which would be lost", "--overwrite"),
]


def script(name: str) -> Path:
    path = CASES / f"{name}.py"
    if not path.exists():
        absent(path)
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder in which a script has put its files."""
    folders: dict[str, Path] = {}
    above = tmp_path_factory.mktemp("cases")

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = above / name
            path = script(name)
            with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                patch.setattr(sys, "argv", [str(path), str(folders[name])])
                patch.syspath_prepend(str(path.parent))
                patch.setattr(sys, "dont_write_bytecode", True)
                patch.setattr(np, "savez_compressed", _packed_fast)
                sys.modules.pop("common", None)  # it looks at the arguments when it is imported
                runpy.run_path(str(path), run_name="__main__")
                sys.modules.pop("common", None)
            if name == "04":
                bad = np.zeros((64, 64), bool)
                bad[10:12] = True
                np.save(folders[name] / "good.npy", ~bad)
        return folders[name]

    return make


def _packed_fast(path: str, **arrays: Any) -> None:
    """As numpy does it, with less pains."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, fake_engine: Any, tiny_architecture: None) -> Callable[..., Outcome]:
    """A command in a folder. No framework and no pictures: nothing here is about them."""
    for module in ("train", "reconstruct"):
        monkeypatch.setattr(f"ptycho_core.runs.{module}.draw", lambda *arguments, **keywords: None)

    def command(folder: Path, line: str) -> Outcome:
        monkeypatch.chdir(folder)
        return run_here(*line.split())

    return command


def _in_one_line(done: Outcome) -> str:
    return " ".join(f"{done.out} {done.err}".split())


# -- what one command alone does not show --------------------------------------------------------------------------


def test_a_packed_file_that_cannot_be_unpacked_says_how_much_room_it_needs(
    made: Callable[[str], Path], run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made("15")
    usage = attrs.make_class("usage", ["total", "used", "free"])(2**40, 0, 100 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = run(folder, "inspect packed.npz")
    assert done.code == REFUSED and "expected 0.488 GiB to unpack" in done.err
    assert "received 0.0977 GiB" in done.err


def test_bright_counts_stay_exact_through_a_conversion(
    made: Callable[[str], Path], run: Callable[..., Outcome]
) -> None:
    folder = made("23")
    assert run(folder, f"convert bright.npz bright.cxi {LENGTHS}").code == FINE
    with h5py.File(folder / "bright.cxi") as file:
        written = file["entry_1/data_1/data"][:]
    np.testing.assert_array_equal(written, np.load(folder / "bright.npz")["diff3d"])


def test_a_result_has_the_lengths_of_its_scan_and_is_not_replaced_unasked(
    made: Callable[[str], Path], run: Callable[..., Outcome]
) -> None:
    folder = made("07")
    assert run(folder, f"train dark.cxi --out model {TINY}").code == FINE
    digest = (folder / "model" / "wts.h5.zip").read_bytes()
    assert run(folder, "reconstruct dark.cxi --model model --out result").code == FINE
    facts = json.loads((folder / "result" / "reconstruction.json").read_text())
    assert facts["lengths"]["object_pixel_m"] == pytest.approx([3.2288e-8, 3.2288e-8], rel=1e-4)
    assert facts["lengths"]["photon_energy_eV"] == pytest.approx(8000)
    for again in (
        f"train fewer.cxi --drop-frames unplaced --out model {TINY}",
        "reconstruct dark.cxi --model model --out result",
    ):
        done = run(folder, again)
        assert done.code == REFUSED and "--overwrite" in done.err
    assert (folder / "model" / "wts.h5.zip").read_bytes() == digest


@pytest.mark.skipif(os.name == "nt", reason="a process is ended as it is on POSIX")
@pytest.mark.parametrize("mode", ["swmr", "plain"])
def test_a_file_that_is_being_written_is_read_to_its_last_whole_frame_or_told_to_be_waited_for(
    mode: str, made: Callable[[str], Path], run: Callable[..., Outcome], tmp_path: Path
) -> None:
    np.save(tmp_path / "probe.npy", np.load(made("08") / "probe.npy"))
    writer = subprocess.Popen(
        [sys.executable, "-B", str(script("08_live")), str(tmp_path), mode], stderr=subprocess.DEVNULL
    )
    inspect = f"inspect live_{mode}.h5 --dataset data {P}"
    try:
        file, end = tmp_path / f"live_{mode}.h5", time.monotonic() + 60
        while not (file.exists() and file.stat().st_size > 40 * 64 * 64 * 4) and time.monotonic() < end:
            time.sleep(0.05)
        done = run(tmp_path, inspect)
        if mode == "swmr":
            assert done.code == REFUSED and "received 100" in done.err and "--drop-frames unplaced" in done.err
            read = run(tmp_path, f"{inspect} --drop-frames unplaced")
            assert read.code == FINE and "patterns        4" in read.out and GOOD in read.out
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    if mode == "plain":
        for said in (done, run(tmp_path, inspect)):
            assert said.code == REFUSED and f"h5clear -s live_{mode}.h5" in said.err
            assert (
                "Wait until the program that writes it has closed it" in said.err and "write it again" not in said.err
            )


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_situation_has_the_outcome_that_was_asked_for(
    row: Row, made: Callable[[str], Path], run: Callable[..., Outcome]
) -> None:
    done = run(made(row.case), row.command)
    said = _in_one_line(done)
    assert done.code == row.code, said
    for part in row.told:
        assert (part.removeprefix("!") in said) != part.startswith("!"), f"{part!r}: {said}"
    assert "Traceback" not in said
