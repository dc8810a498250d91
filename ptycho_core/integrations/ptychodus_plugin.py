"""File readers for Ptychodus: scans as NPZ, reconstructions and models (docs/ptychodus.md, File readers).

    python -m ptycho_core.integrations.ptychodus_plugin

puts a module of two lines into `ptychodus/plugins/`, where Ptychodus finds it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ptychodus.plugins
from numpy.typing import NDArray
from ptychodus.api.diffraction import (
    DiffractionDataset,
    DiffractionDatasetLayoutNode,
    DiffractionFileReader,
    DiffractionMetadata,
    SimpleDiffractionArray,
    SimpleDiffractionDataset,
)
from ptychodus.api.geometry import ImageExtent, PixelGeometry
from ptychodus.api.object import Object, ObjectCenter, ObjectFileReader
from ptychodus.api.plugins import PluginRegistry
from ptychodus.api.probe import ProbeFileReader, ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import Product, ProductFileReader, ProductMetadata

from ptycho_core.formats.writers import unique_index
from ptycho_core.io import load_scan
from ptycho_core.io.metres import metres_of
from ptycho_core.models.model import load_model
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.scans.counts import counts_type, intensity_blocks
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.files import write_text

MODULE = "ptycho_core_files.py"
TEXT = '''\
"""File readers of ptycho-core."""
from ptycho_core.integrations.ptychodus_plugin import register_plugins as register_plugins
'''
SCAN, RECONSTRUCTION, MODEL = "PtychoCoreScan", "PtychoCoreReconstruction", "PtychoCoreModel"


class ScanDiffractionReader(DiffractionFileReader):
    """The patterns of an NPZ scan as counts, whatever the file holds, and its bad pixels."""

    def read(self, file_path: Path) -> DiffractionDataset:
        scan = load_scan(file_path)
        dtype = counts_type(scan)
        patterns = np.concatenate(list(intensity_blocks(scan, dtype)))
        known = scan.metadata
        detector = known.get("detector_pixel_m")
        metadata = DiffractionMetadata(
            num_patterns_per_array=[len(scan)],
            pattern_dtype=dtype,
            detector_extent=ImageExtent(width_px=scan.N, height_px=scan.N),
            detector_distance_m=known.get("detector_distance_m"),
            detector_pixel_geometry=None if detector is None else PixelGeometry(*detector),
            photon_energy_eV=known.get("photon_energy_eV"),
            file_path=file_path,
        )
        layout = DiffractionDatasetLayoutNode.create_root()
        layout.add_child("diff3d", type(patterns).__name__, f"{dtype}{patterns.shape}")
        frames = SimpleDiffractionArray(label=file_path.stem, indexes=unique_index(scan), patterns=patterns)
        return SimpleDiffractionDataset(metadata, layout, [frames], bad_pixels=scan.bad_pixels)


class ScanProductReader(ProductFileReader):
    """Positions, probe and object of an NPZ scan. Its metadata have to say energy, distance and detector pixel."""

    def read(self, file_path: Path) -> Product:
        scan = load_scan(file_path)
        metres = metres_of(file_path, scan)
        pixel = PixelGeometry(*metres.object_pixel_m)
        field = np.ones(metres.canvas, np.complex64) if scan.object_field is None else scan.object_field
        points = [
            ProbePosition(int(index), float(x), float(y))
            for index, (x, y) in zip(unique_index(scan), metres.positions_m, strict=True)
        ]
        return Product(
            metadata=ProductMetadata(
                name=_text(scan, "name") or file_path.stem,
                comments=_text(scan, "comments"),
                detector_distance_m=metres.distance_m,
                photon_energy_eV=metres.energy_eV,
                probe_photon_count=float(scan.statistics.frame_intensity.mean()) if scan.dose_known else 0.0,
                exposure_time_s=_number(scan, "exposure_time_s"),
                mass_attenuation_m2_per_kg=_number(scan, "mass_attenuation_m2_per_kg"),
                tomography_angle_deg=_number(scan, "tomography_angle_deg"),
            ),
            probe_positions=ProbePositionSequence(points),
            probes=ProbeSequence(array=scan.probe[None], opr_weights=None, pixel_geometry=pixel),
            object_=Object(field, pixel, ObjectCenter(x_m=0.0, y_m=0.0)),
            losses=[],
        )


class ReconstructionObjectReader(ObjectFileReader):
    """The object of `reconstruction.npz`, on a grid of its own: the file knows no lengths."""

    def read(self, file_path: Path) -> Object:
        return Object(load_reconstruction(file_path).object_field, pixel_geometry=None, center=None)


class ReconstructionProbeReader(ProbeFileReader):
    def read(self, file_path: Path) -> ProbeSequence:
        return _probes(load_reconstruction(file_path).probe)


class ModelProbeReader(ProbeFileReader):
    """The probe that a model was trained with, or learned."""

    def read(self, file_path: Path) -> ProbeSequence:
        return _probes(load_model(file_path).illumination.probe.astype(np.complex64))


def register_plugins(registry: PluginRegistry) -> None:
    """What Ptychodus calls of every module in its folder."""
    scans = {"simple_name": SCAN, "display_name": "ptycho-core Scans (*.npz)"}
    registry.diffraction_file_readers.register_plugin(ScanDiffractionReader(), **scans)
    registry.register_product_file_reader_with_adapters(ScanProductReader(), **scans)
    results = {"simple_name": RECONSTRUCTION, "display_name": "ptycho-core Reconstructions (*.npz)"}
    registry.object_file_readers.register_plugin(ReconstructionObjectReader(), **results)
    registry.probe_file_readers.register_plugin(ReconstructionProbeReader(), **results)
    models = {"simple_name": MODEL, "display_name": "ptycho-core Models (*.zip)"}
    registry.probe_file_readers.register_plugin(ModelProbeReader(), **models)


def install(folder: Path | None = None) -> Path:
    """Write the two-line module into `ptychodus/plugins/`, or into the folder given; returns its path."""
    path = (Path(next(iter(ptychodus.plugins.__path__))) if folder is None else folder) / MODULE
    write_text(path, TEXT)
    return path


def _probes(probe: NDArray[np.complex64]) -> ProbeSequence:
    return ProbeSequence(array=probe[None], opr_weights=None, pixel_geometry=None)


def _text(scan: Scan, key: str) -> str:
    value: Any = scan.metadata.get(key)
    return value if isinstance(value, str) else ""


def _number(scan: Scan, key: str) -> float:
    """0 is how Ptychodus says that it is not known."""
    value: Any = scan.metadata.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("usage: python -m ptycho_core.integrations.ptychodus_plugin (writes into ptychodus/plugins)")
    print(install())
