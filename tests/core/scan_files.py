"""Small valid scan files of every format, and ways to spoil them; for benchmarks/fuzz_readers.py, too.

All of them hold the same scan, so that what is read can be compared.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import importlib.util
import io
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from ptycho_core.formats.convert import save_scan
from ptycho_core.scans.geometry import object_pixel_m, photon_wavelength_m
from ptycho_core.scans.scan import Scan

N, COUNT = 16, 6
ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8000.0, 2.0, 75e-6
PIXEL_M = object_pixel_m(photon_wavelength_m(ENERGY_EV), DISTANCE_M, N, DETECTOR_PIXEL_M)
LENGTHS = {
    "photon_energy_eV": ENERGY_EV,
    "detector_distance_m": DISTANCE_M,
    "detector_pixel_m": [DETECTOR_PIXEL_M, DETECTOR_PIXEL_M],
}


@functools.cache
def counts() -> NDArray[np.uint16]:
    """(M, N, N), no two patterns alike, brightest in the centre."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:N, :N] - N // 2
    return rng.poisson(3 + 400 * np.exp(-(x**2 + y**2) / 8), (COUNT, N, N)).astype(np.uint16)


@functools.cache
def positions() -> NDArray[np.float64]:
    """(M, 2), [x, y] in pixels."""
    return np.random.default_rng(8).uniform(N, 3 * N, (COUNT, 2))


@functools.cache
def probe() -> NDArray[np.complex64]:
    y, x = np.mgrid[:N, :N] - N // 2
    return np.asarray(np.exp(-(x**2 + (y - 1) ** 2) / 12 + 0.2j * x), np.complex64)


def make_scan(**changes: Any) -> Scan:
    fields: dict[str, Any] = {
        "diffraction_amplitude": np.sqrt(counts(), dtype=np.float32),
        "positions_px": positions(),
        "probe": probe(),
        "object_field": np.exp(0.1j * np.arange(60.0 * 70)).reshape(60, 70),
        "dose_known": True,
        "metadata": dict(LENGTHS),
    }
    return Scan(**{**fields, **changes})


@attrs.frozen
class ScanFile:
    """path: to be loaded with `settings`. victim: the file that is spoiled, unless stated the same."""

    path: Path
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    victim: Path = attrs.field()

    @victim.default
    def _same(self) -> Path:
        return self.path


def npz(folder: Path) -> ScanFile:
    save_scan(folder / "scan.npz", make_scan())
    return ScanFile(folder / "scan.npz")


def npz_compressed(folder: Path) -> ScanFile:
    x, y = positions().T
    np.savez_compressed(folder / "scan.npz", diff3d=counts(), xcoords=x, ycoords=y, probeGuess=probe())
    return ScanFile(folder / "scan.npz")


def packed(folder: Path, suffix: str = ".bz2") -> ScanFile:
    plain = npz_compressed(folder).path
    target = folder / f"scan.npz{suffix}"
    target.write_bytes((bz2 if suffix == ".bz2" else gzip).compress(plain.read_bytes()))
    plain.unlink()
    return ScanFile(target)


def ptychodus(folder: Path) -> ScanFile:
    save_scan(folder / "diffraction.h5", make_scan())
    return ScanFile(folder / "diffraction.h5")


def ptychodus_product(folder: Path) -> ScanFile:
    save_scan(folder / "product.h5", make_scan())
    return ScanFile(folder / "product.h5")


def cxi(folder: Path) -> ScanFile:
    save_scan(folder / "scan.cxi", make_scan())
    return ScanFile(folder / "scan.cxi")


def probe_file(folder: Path) -> str:
    np.save(folder / "probe.npy", probe())
    return str(folder / "probe.npy")


def ptyd(folder: Path, *, linked: bool = False, weights: bool = True) -> ScanFile:
    """As PtyPy writes it: chunks packed by gzip, None as one 0 that is marked; positions (y, x) in metres."""
    path = folder / "scan.ptyd"
    places = (positions() * PIXEL_M)[:, ::-1]
    with h5py.File(path, "w") as file:
        meta = {"energy": ENERGY_EV / 1e3, "distance": DISTANCE_M, "psize": [DETECTOR_PIXEL_M] * 2, "label": "star"}
        for key, value in meta.items():
            file[f"meta/{key}"] = value
        file["meta/experimentID"] = np.zeros(1)
        file["meta/experimentID"].attrs["type"] = "None"
        for number, part in enumerate((slice(0, 4), slice(4, COUNT))):
            target: Any = (
                h5py.File(f"{path}.part{number:03d}", "w") if linked else file.create_group(f"chunks/{number}")
            )
            for key, array in {"data": counts()[part].astype(np.int32), "positions": places[part]}.items():
                target.create_dataset(key, data=array, compression="gzip")
            target.create_dataset("indices", data=np.arange(COUNT)[part])
            if weights:
                mask = np.ones((len(places[part]), N, N), bool)
                mask[:, 0, 0] = False
                target.create_dataset("weights", data=mask, compression="gzip")
            else:
                target.create_group("weights")
            if linked:
                target.close()
                file[f"chunks/{number}"] = h5py.ExternalLink(f"/elsewhere/scan.ptyd.part{number:03d}", "/")
    return ScanFile(path, {"probe": probe_file(folder)})


def ptyd_linked(folder: Path) -> ScanFile:
    file = ptyd(folder, linked=True)
    return attrs.evolve(file, victim=folder / "scan.ptyd.part000")


def shelves(folder: Path) -> ScanFile:
    x, y = positions().T * PIXEL_M
    with h5py.File(folder / "data_roi0_dp.hdf5", "w") as file:
        file.create_dataset("dp", data=counts(), chunks=(1, N, N), compression="gzip", shuffle=True)
    with h5py.File(folder / "data_roi0_para.hdf5", "w") as file:
        file["ppX"], file["ppY"] = x[None], y[None]
        file["lambda"], file["dx"] = photon_wavelength_m(ENERGY_EV), PIXEL_M
    return ScanFile(folder / "data_roi0_dp.hdf5", {"probe": probe_file(folder)})


def shelves_parameters(folder: Path) -> ScanFile:
    return attrs.evolve(shelves(folder), victim=folder / "data_roi0_para.hdf5")


def nsls2(folder: Path) -> ScanFile:
    with h5py.File(folder / "scan_12.h5", "w") as file:
        file["diffamp"] = np.fft.ifftshift(np.sqrt(counts(), dtype=np.float32), axes=(1, 2))
        file["points"] = positions().T * PIXEL_M * 1e6
        file["lambda_nm"], file["z_m"] = photon_wavelength_m(ENERGY_EV) * 1e9, DISTANCE_M
        file["ccd_pixel_um"], file["angle"] = DETECTOR_PIXEL_M * 1e6, 30.0
    return ScanFile(folder / "scan_12.h5", {"probe": probe_file(folder)})


def ptylab(folder: Path) -> ScanFile:
    with h5py.File(folder / "lab.hdf5", "w") as file:
        file["ptychogram"], file["encoder"] = counts(), positions()[:, ::-1] * PIXEL_M
        file["zo"], file["dxd"] = [DISTANCE_M], [DETECTOR_PIXEL_M]
        file["wavelength"], file["entrancePupilDiameter"] = [photon_wavelength_m(ENERGY_EV)], [3e-3]
    return ScanFile(folder / "lab.hdf5", {"probe": probe_file(folder)})


MAPPED = {"position_order": "xy", "position_unit": "px"}


def mapped_hdf5(folder: Path) -> ScanFile:
    with h5py.File(folder / "raw.h5", "w", libver="latest") as file:
        file["entry/data"], file["entry/positions"], file["probe"] = counts(), positions(), probe()
    names = {"dataset": "entry/data", "positions": "entry/positions", "probe": "probe"}
    return ScanFile(folder / "raw.h5", {**MAPPED, **names})


def mapped_chunks(folder: Path) -> ScanFile:
    """Each data set with another index of its chunks, as recent versions of HDF5 write them."""
    names = {"dataset": "entry/data", "positions": "entry/positions", "probe": "probe"}
    kinds = ((None, N, N), (COUNT, 2), (None, None))
    with h5py.File(folder / "raw.h5", "w", libver="latest") as file:
        for name, array, largest in zip(names.values(), (counts(), positions(), probe()), kinds, strict=True):
            chunk = (1, *array.shape[1:])
            file.create_dataset(name, data=array, chunks=chunk, maxshape=largest, compression="gzip", fletcher32=True)
    return ScanFile(folder / "raw.h5", {**MAPPED, **names})


def mapped_virtual(folder: Path) -> ScanFile:
    """Patterns that lie in two other files."""
    file = mapped_hdf5(folder)
    layout = h5py.VirtualLayout(counts().shape, "u2")
    for number, part in enumerate((slice(0, 4), slice(4, COUNT))):
        with h5py.File(folder / f"part{number}.h5", "w") as other:
            other["data"] = counts()[part]
        layout[part] = h5py.VirtualSource(f"part{number}.h5", "data", counts()[part].shape)
    with h5py.File(file.path, "r+") as content:
        del content["entry/data"]
        content.create_virtual_dataset("entry/data", layout)
    return file


def mapped_npy(folder: Path) -> ScanFile:
    np.save(folder / "raw.npy", counts())
    np.save(folder / "positions.npy", positions())
    names = {"reader": "mapped", "positions": str(folder / "positions.npy"), "probe": probe_file(folder)}
    return ScanFile(folder / "raw.npy", {**MAPPED, **names})


def mapped_npz(folder: Path) -> ScanFile:
    np.savez(folder / "raw.npz", data=counts()[None], scan=positions()[None], probe=probe()[None, None])
    return ScanFile(folder / "raw.npz", {**MAPPED, "dataset": "data", "positions": "scan", "probe": "probe"})


def table(folder: Path) -> ScanFile:
    file = mapped_npy(folder)
    lines = [f"{x!r}, {y!r}" for x, y in positions().tolist()]
    (folder / "positions.csv").write_text("\n".join(["x, y", *lines]))
    names = {"positions": str(folder / "positions.csv")}
    return ScanFile(file.path, {**file.settings, **names}, folder / "positions.csv")


def eiger(folder: Path) -> ScanFile:
    """A master with its mask and two linked files of patterns."""
    with h5py.File(folder / "scan_master.h5", "w") as file:
        group = file.create_group("entry/data")
        for number, part in enumerate((slice(0, 4), slice(4, COUNT)), 1):
            with h5py.File(folder / f"scan_data_{number:06d}.h5", "w") as data:
                data.create_dataset("entry/data/data", data=counts()[part], chunks=(1, N, N), compression="gzip")
            group[f"data_{number:06d}"] = h5py.ExternalLink(f"scan_data_{number:06d}.h5", "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        detector["detectorSpecific/pixel_mask"] = np.zeros((N, N), np.uint32)
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL_M
        detector["detector_distance"] = DISTANCE_M
        file["entry/instrument/beam/incident_wavelength"] = photon_wavelength_m(ENERGY_EV) * 1e10
    np.save(folder / "positions.npy", positions())
    return ScanFile(
        folder / "scan_master.h5",
        {**MAPPED, "positions": str(folder / "positions.npy"), "probe": probe_file(folder)},
    )


def eiger_data(folder: Path) -> ScanFile:
    return attrs.evolve(eiger(folder), victim=folder / "scan_data_000002.h5")


def mapped_cube(folder: Path) -> ScanFile:
    """Patterns of a raster, as 4D-STEM has them."""
    with h5py.File(folder / "stem.h5", "w") as file:
        file.create_dataset("datacube/data", data=counts().reshape(2, 3, N, N), chunks=(1, 2, N, N))
    np.save(folder / "positions.npy", positions())
    return ScanFile(
        folder / "stem.h5", {**MAPPED, "positions": str(folder / "positions.npy"), "probe": probe_file(folder)}
    )


def mapped_matlab(folder: Path) -> ScanFile:
    arrays = {"dp": np.moveaxis(counts(), 0, -1), "places": positions(), "probe": probe()}
    scipy.io.savemat(folder / "scan.mat", arrays, do_compression=True)
    return ScanFile(folder / "scan.mat", {**MAPPED, "dataset": "dp", "positions": "places", "probe": "probe"})


def mapped_tiff(folder: Path) -> ScanFile:
    import tifffile

    tifffile.imwrite(folder / "scan.tif", counts(), photometric="minisblack", compression="zlib")
    np.save(folder / "positions.npy", positions())
    return ScanFile(
        folder / "scan.tif", {**MAPPED, "positions": str(folder / "positions.npy"), "probe": probe_file(folder)}
    )


def probe_array(folder: Path) -> ScanFile:
    file = mapped_npy(folder)
    return attrs.evolve(file, victim=folder / "probe.npy")


MAKERS: dict[str, Callable[[Path], ScanFile]] = {
    maker.__name__: maker
    for maker in (
        npz,
        npz_compressed,
        packed,
        ptychodus,
        ptychodus_product,
        cxi,
        ptyd,
        ptyd_linked,
        shelves,
        shelves_parameters,
        nsls2,
        ptylab,
        mapped_hdf5,
        mapped_chunks,
        mapped_virtual,
        mapped_npy,
        mapped_npz,
        table,
        probe_array,
        eiger,
        eiger_data,
        mapped_cube,
        mapped_matlab,
        *((mapped_tiff,) if importlib.util.find_spec("tifffile") else ()),
    )
}


# -- how files are spoiled -----------------------------------------------------------------------------------------

EXTREMES = (0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**12)


class Trap:
    """Unpickled, it makes the folder `place`, which shows that a pickle was executed."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.place), 0o777, True)


def spoil(file: ScanFile, rng: np.random.Generator, trap: Path, *, arrays: bool = True) -> str:
    """Change the victim in one of many ways; returns which. arrays: zip files hold arrays."""
    data = file.victim.read_bytes()
    ways: list[Callable[[], None]] = [
        lambda: _flip(file.victim, data, rng),
        lambda: _flip(file.victim, data, rng),
        lambda: file.victim.write_bytes(data[: int(rng.integers(len(data)))]) and None,
        lambda: _splice(file.victim, data, rng),
        lambda: _header(file.victim, data, rng),
        lambda: _header(file.victim, data, rng),
    ]
    names = ["flip", "flip", "truncate", "splice", "header", "header"]
    if data[:4] == b"\x89HDF":
        ways += [lambda: _metadata(file.victim, data, rng)] * 6
        names += ["metadata"] * 6
    structure = {b"\x89HDF": _hdf5, b"PK\x03\x04": _npz, b"\x93NUM": _npy}.get(data[:4])
    if structure is not None and (arrays or structure is not _npz):
        ways += [lambda: structure(file.victim, rng, trap)] * 6
        names += ["structure"] * 6
    way = int(rng.integers(len(ways)))
    ways[way]()
    return names[way]


def _flip(path: Path, data: bytes, rng: np.random.Generator) -> None:
    changed = bytearray(data)
    start = 0 if rng.random() < 0.5 else min(len(data) - 1, 4096)
    for place in rng.integers(start if rng.random() < 0.3 else 0, len(data), int(rng.integers(1, 30))):
        changed[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(changed)


def _splice(path: Path, data: bytes, rng: np.random.Generator) -> None:
    a, b, to = (int(place) for place in rng.integers(0, len(data), 3))
    a, b = min(a, b), max(a, b)
    kind = int(rng.integers(3))
    if kind == 0:
        changed = data[:to] + data[a:b] + data[to + b - a :]
    elif kind == 1:
        changed = data[:a] + data[min(b, a + 64) :]
    else:
        changed = data[:to] + data[a : min(b, a + 64)] + data[to:]
    path.write_bytes(changed)


def _header(path: Path, data: bytes, rng: np.random.Generator) -> None:
    """Sizes, offsets and versions near the beginning, or anywhere in a small file, become extreme."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        form, size = (("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8))[int(rng.integers(4))]
        value = EXTREMES[int(rng.integers(len(EXTREMES)))] % 2 ** (8 * size)
        end = min(len(data), 2048 if rng.random() < 0.7 else len(data))
        place = int(rng.integers(0, max(1, end - size)))
        changed[place : place + size] = struct.pack(form, value)
    path.write_bytes(changed)


MARKS = re.compile(
    rb"GCOL|TREE|SNOD|HEAP|OHDR|OCHK|FRHP|FHDB|FHIB|FSHD|FSSE|BTHD|BTLF|BTIN|FADB|FAHD|EAHD|EAIB|EASB|EADB"
)
"""Signatures of the structures of an HDF5 file, which are few bytes among its numbers."""


def _metadata(path: Path, data: bytes, rng: np.random.Generator) -> None:
    """Lengths, counts and addresses in and about the structures of an HDF5 file become others, or each other's."""
    changed = bytearray(data)
    marks = [match.start() for match in MARKS.finditer(data)] or [0]
    for _ in range(int(rng.integers(1, 4))):
        mark = marks[int(rng.integers(len(marks)))]
        place = mark + int(rng.integers(4 if rng.random() < 0.8 else -400, 400))
        if not 0 <= place < len(data) - 8:
            continue
        form, size = (("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8))[int(rng.integers(4))]
        place -= (place - mark) % size  # numbers lie at multiples of their size
        old = int.from_bytes(data[place : place + size], "little")
        other = marks[int(rng.integers(len(marks)))]  # an address that leads somewhere
        choices = (
            old + 1,
            old - 1,
            old * 2,
            other,
            mark,
            EXTREMES[int(rng.integers(len(EXTREMES)))],
            1 << int(rng.integers(64)),
        )
        value = choices[int(rng.integers(len(choices)))] % 2 ** (8 * size)
        changed[place : place + size] = struct.pack(form, value)
    path.write_bytes(changed)


def odd_array(old: NDArray[Any], rng: np.random.Generator, trap: Path) -> NDArray[Any]:
    """An array that does not belong in the place of `old`."""
    objects = np.empty(1, object)
    objects[0] = Trap(trap)
    real = old if old.dtype.kind in "biufc" else np.ones(3)
    choices: list[Callable[[], Any]] = [
        lambda: objects,
        lambda: np.zeros(0, real.dtype),
        lambda: np.zeros((0, *real.shape[1:]), real.dtype),
        lambda: np.full(real.shape, np.nan),
        lambda: np.full(real.shape, -1.0),
        lambda: np.full(real.shape, np.inf),
        lambda: np.full(real.shape, 1e300),
        lambda: np.zeros(real.shape, real.dtype),
        lambda: real[..., :-1] if real.ndim else real,
        lambda: real[:-1] if real.ndim else real,
        lambda: np.concatenate([real, real]) if real.ndim else real,
        lambda: real[None],
        lambda: real.reshape(-1),
        lambda: np.float64(3.0),
        lambda: np.array("text"),
        lambda: np.array([b"a", b"bc"]),
        lambda: np.zeros(real.shape, [("a", "f4"), ("b", "i2")]),
        lambda: real.astype(complex) * 1j,
        lambda: np.zeros(real.shape, "M8[s]"),
        lambda: real.astype(real.dtype.newbyteorder(">")) if real.dtype.kind in "iufc" else real,
        lambda: np.asfortranarray(real),
        lambda: np.full(real.shape, np.iinfo(np.uint64).max, np.uint64),
        lambda: np.full(real.shape, np.iinfo(np.int64).min, np.int64),
        lambda: real.astype(np.float16),
        lambda: np.ones((2, 2, 2, 2, 2)),
    ]
    return np.asarray(choices[int(rng.integers(len(choices)))]())


def _npz(path: Path, rng: np.random.Generator, trap: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[int(rng.integers(len(members)))]
    old = np.lib.format.read_array(io.BytesIO(members[name]))
    kind = int(rng.integers(5))
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[name] = bytes(2**29 // 64) if rng.random() < 0.2 else b""
    elif kind == 2:
        members[name] = _odd_npy(members[name], rng)
    else:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, odd_array(old, rng, trap), allow_pickle=True)
        members[name] = stream.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
        if rng.random() < 0.1:
            archive.writestr(name, members.get(name, b"twice"))


def _odd_npy(data: bytes, rng: np.random.Generator) -> bytes:
    """The text of an NPY header changed, its length kept right."""
    text = data[10 : 10 + int.from_bytes(data[8:10], "little")].decode("latin1")
    shape = text[text.index("(") : text.index(")") + 1]
    edits = [
        (shape, "(99999999999, 16, 16)"),
        (shape, "(-1, 16, 16)"),
        (shape, "()"),
        (shape, "(True, 2)"),
        (shape, "(1e3,)"),
        (shape, f"({'1,' * 60})"),
        ("'descr': '", "'descr': '|O8',#"),
        ("'descr': '", "'descr': '<f99"),
        ("'descr'", "'other'"),
        ("False", "True"),
        ("False", "None"),
        ("{", "__import__('os').mkdir('x') or {"),
        ("{", "{" * 200),
    ]
    old, new = edits[int(rng.integers(len(edits)))]
    text = text.rstrip().replace(old, new, 1) + "\n"
    return data[:8] + struct.pack("<H", len(text)) + text.encode("latin1") + data[10 + len(shape) :]


def _npy(path: Path, rng: np.random.Generator, trap: Path) -> None:
    if rng.random() < 0.5:
        path.write_bytes(_odd_npy(path.read_bytes(), rng))
    else:
        np.save(path, odd_array(np.load(path), rng, trap), allow_pickle=True)


def _hdf5(path: Path, rng: np.random.Generator, trap: Path) -> None:
    """One data set, group or attribute replaced by something that cannot be there."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = names[int(rng.integers(len(names)))]
        data = file[name]
        old, attributes = np.asarray(data[()]), dict(data.attrs)
        kind = int(rng.integers(18))
        if kind == 17 and (attributes or file.attrs):
            owner = data if attributes else file
            key = list(owner.attrs)[int(rng.integers(len(owner.attrs)))]
            odd = (np.nan, -1.0, "text", np.zeros(0), [1.0, 2.0], h5py.Empty("f8"), data.ref, b"\xff\xfe", 0.0)
            owner.attrs[key] = odd[int(rng.integers(len(odd)))]
            return
        del file[name]
        shape = old.shape or (4,)
        if kind == 0:
            file[name] = h5py.SoftLink(f"/{name}")
        elif kind == 1:
            file[name] = h5py.SoftLink("/nowhere/at/all")
        elif kind == 2:
            target = ("missing.h5", "../x.h5", "/etc/passwd", str(path), path.name)[int(rng.integers(5))]
            file[name] = h5py.ExternalLink(target, f"/{name}")
        elif kind == 3:
            huge = (2**40, *shape[1:])
            file.create_dataset(name, huge, old.dtype, chunks=(1, *shape[1:]))
        elif kind == 4:
            file.create_dataset(name, (2**14, 2**8, 2**8), "f4", chunks=(2**13, 2**7, 2**7))
        elif kind == 5:
            layout = h5py.VirtualLayout(shape, old.dtype)
            layout[...] = h5py.VirtualSource(".", name, shape)
            file.create_virtual_dataset(name, layout)
        elif kind == 6:
            file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        elif kind == 7:
            file.create_dataset(name, (3,), h5py.ref_dtype)
        elif kind == 8:
            file.create_dataset(name, (1,), h5py.regionref_dtype)
        elif kind == 9:
            file.create_dataset(name, (3,), h5py.vlen_dtype(np.float64))
        elif kind == 10:
            file.create_dataset(name, data=h5py.Empty("f4"))
        elif kind == 11:
            file.create_group(name)["again"] = file["/"]
        elif kind == 12:
            file.create_dataset(name, data=np.array(["a", "b"], h5py.string_dtype()))
        elif kind == 13:
            layout = h5py.VirtualLayout((2, *shape), "f4")
            layout[0] = h5py.VirtualSource("../outside.h5", "x", shape)
            file.create_virtual_dataset(name, layout)
        elif kind == 14:
            pass
        else:
            odd_values = odd_array(old, rng, trap)
            if odd_values.dtype.kind in "OUM":
                file.create_dataset(name, data="text")
            else:
                file.create_dataset(name, data=odd_values)
            file[name].attrs.update(attributes)
