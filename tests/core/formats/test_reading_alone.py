"""Reading disturbs nobody, trusts nothing, and shows what it has read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest

from ptycho_core import load_scan, save_scan
from ptycho_core.errors import ConfigurationError, DataError, visible
from ptycho_core.formats.convert import write_scan
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import warn_of_other_pixel, warn_of_other_probe
from ptycho_core.report.facts import archive_facts, inspect_file, scan_facts, scan_table
from ptycho_core.settings.files import read_config
from tests.command_line import run_here
from tests.core import scan_files
from tests.core.formats.test_situations import COUNT, PLAIN, N, counts, npz, places, probe, simulated

WRITER = """
import h5py, numpy as np, os, sys
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    data = file.create_dataset("data", (0, 32, 32), "u4", maxshape=(None, 32, 32), chunks=(1, 32, 32))
    file["pos"], file["probe"] = np.load(sys.argv[2]), np.load(sys.argv[3])
    if sys.argv[4] == "swmr":
        file.swmr_mode = True
    for frames in (20, 30):
        data.resize(frames, 0)
        data[:frames] = np.load(sys.argv[5])[:frames]
        data.flush(); file.flush()
        print("written", flush=True)
        sys.stdin.readline()
    if sys.argv[4] == "crash":
        os._exit(1)
"""


@pytest.mark.parametrize("mode", ["swmr", "crash"])
def test_a_file_that_is_being_written_is_read_or_the_way_to_mend_it_named(tmp_path: Path, mode: str) -> None:
    for name, values in (("pos", places()[:20]), ("probe", probe()), ("counts", counts())):
        np.save(tmp_path / f"{name}.npy", values)
    arguments = [tmp_path / "live.h5", tmp_path / "pos.npy", tmp_path / "probe.npy", mode, tmp_path / "counts.npy"]
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    named = {"dataset": "data", "positions": "pos", "probe": "probe", **PLAIN}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        if mode == "swmr":
            scan = load_scan(tmp_path / "live.h5", **named)
            np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts()[:20], dtype=np.float32))
        for _ in range(2):
            writer.stdin.write("\n")
            writer.stdin.flush()
        assert writer.wait(timeout=60) == (1 if mode == "crash" else 0)  # nothing of ours has stopped it
    if mode == "crash":
        with pytest.raises(DataError) as caught:
            load_scan(tmp_path / "live.h5", **named)
        assert f"h5clear -s {tmp_path / 'live.h5'}" in str(caught.value.remedy)
        assert "again" not in str(caught.value.remedy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a pipe or a device"):
        archive_facts(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="a pipe or a device"):
        read_config(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", b"# L\xe4ufe\n", ("UTF-8 text", "another encoding (at line 1)", "Save it as UTF-8")),
        ("a.toml", b'[reading]\nprobe = "C:\\data"\n', ("at line 2", "in place of \\, or in single quotes")),
        ("a.json", b'{"training": {}}', ("It looks like JSON",)),
        ("a.yaml", b"model: &m\n  N: 64\ntraining: *m\n", ("an alias", "Write the values out")),
        ("a.toml", b"#" * (2**20 + 1), ("at most 1 MiB", "1048577 bytes")),
    ],
)
def test_a_configuration_is_refused_with_what_is_wrong_in_it(
    tmp_path: Path, name: str, content: bytes, words: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_config(tmp_path / name)
    assert all(part in str(caught.value) for part in words), str(caught.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[training]\r\nnepochs = 1\r\n")
    assert read_config(tmp_path / "a.toml") == {"training": {"nepochs": 1}}


def test_control_characters_are_shown(tmp_path: Path) -> None:
    assert visible("a\x1b[2Jb\nc") == "a\\x1b[2Jb\nc"
    assert len(visible("x" * 10**6)) < 5000
    assert "\\x1b" in str(DataError("scan", received="\x1b[31m"))
    assert str(DataError("scan", expected="x", remedy="It holds: \x1b[31m.")).endswith("It holds: \\x1b[31m.")
    scan = scan_files.make_scan(metadata={"name": "red \x1b[31m\nsource  /etc", "na\x07me": 1})
    lines = scan_table(scan_facts(scan)).splitlines()
    assert any(line.startswith("metadata.name ") and line.endswith(" red \\x1b[31m source /etc") for line in lines)
    assert not any("\x1b" in line or "\x07" in line for line in lines)
    path = tmp_path / "red\x1b[31m.npz"
    save_scan(path, scan)
    done = run_here("inspect", path)
    assert done.code == 0 and "red\\x1b[31m.npz" in done.out and "\x1b" not in done.out + done.err
    held = run_here("inspect", path, "--bad-pixels", "a\x1bb")
    assert held.code == 2 and "a\\x1bb" in held.err and "\x1b" not in held.err


@pytest.mark.parametrize("encoding", ["gbk", "cp932", "cp437", "latin-1", "ascii"])
def test_output_fits_any_encoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    from ptycho_core.cli import main

    path = npz(tmp_path, diff3d=np.fft.ifftshift(counts(), axes=(1, 2)))
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["ptycho", "inspect", str(path)])
    main()
    streams["stdout"].flush()
    assert b"findings:" in streams["stdout"].buffer.getvalue()  # type: ignore[attr-defined]


# -- pairs of Ptychodus --------------------------------------------------------------------------------------------


def pair(folder: Path, change: Any) -> Path:
    write_scan(folder / "pair", scan_files.make_scan(), format="ptychodus")
    for name in ("diffraction.h5", "product.h5"):
        with h5py.File(folder / "pair" / name, "r+") as file:
            change(file)
    return folder / "pair"


def put(file: h5py.File, name: str, values: Any) -> None:
    if name in file:
        del file[name]
        file[name] = values


def test_the_folder_of_a_pair_is_inspected(tmp_path: Path) -> None:
    assert inspect_file(pair(tmp_path, lambda file: None))["patterns"] == scan_files.COUNT


def test_several_positions_of_one_pattern_are_averaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = load_scan(pair(tmp_path, lambda file: None))

    def change(file: h5py.File) -> None:
        if "probe_position_indexes" in file:
            for name, step in (("probe_position_x_m", 1e-9), ("probe_position_y_m", -2e-9)):
                values = file[name][()]
                put(file, name, np.concatenate([values - step, values + step]))
            put(file, "probe_position_indexes", np.tile(np.arange(scan_files.COUNT), 2))

    scan = load_scan(pair(tmp_path, change))
    np.testing.assert_allclose(scan.positions_px, plain.positions_px, atol=1e-6)
    assert "12 positions of 6 patterns: those of one pattern are averaged" in caplog.text


def test_patterns_of_a_negative_index_are_left_out(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        put(file, "indexes", np.array([0, -1, 2, -1, 4, 5]))

    np.testing.assert_array_equal(load_scan(pair(tmp_path, change)).scan_index, [0, 2, 4, 5])


# -- another probe than the model's --------------------------------------------------------------------------------


def test_a_scan_of_another_probe_is_warned_of(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    scan = simulated()
    light = Illumination.of(scan, nphotons=1e5)
    warn_of_other_probe(scan, [light])
    assert caplog.text == ""
    save_scan(tmp_path / "scan.npz", scan)
    np.save(tmp_path / "moved.npy", np.roll(probe(), 12, axis=0))
    np.save(tmp_path / "two.npy", np.stack([probe(), 0.1 * probe()]))
    warn_of_other_probe(load_scan(tmp_path / "scan.npz", probe="moved.npy"), [light])
    warn_of_other_probe(load_scan(tmp_path / "scan.npz", probe="two.npy"), [light])
    assert "differs from that of the training scan" in caplog.text and "modes: 2 here, 1 in" in caplog.text
    assert len(scan) == COUNT and N == scan.N


def test_a_scan_of_another_pixel_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    lengths = {"wavelength_m": 1e-10, "detector_distance_m": 1.0, "detector_pixel_m": (75e-6, 75e-6)}
    scan = attrs.evolve(simulated(), metadata=lengths)
    x, y = (1e-10 / (N * 75e-6),) * 2
    for trained in (None, (x, y), (1.01 * x, 0.99 * y)):
        warn_of_other_pixel(scan, [trained])
    warn_of_other_pixel(simulated(), [(x, y)])
    warn_of_other_pixel(scan, [(x, 1.5 * y), (x, y)])
    assert caplog.text == ""
    warn_of_other_pixel(scan, [(x, 1.5 * y)])
    assert "object pixels of 41.67 x 41.67 nm here, 41.67 x 62.5 nm in the training scan" in caplog.text
