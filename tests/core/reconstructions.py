"""A reconstruction with everything that one can hold, made without an engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.quality.frc import read_curve
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.lengths import Lengths

ENGINE = EngineInfo("fake", "no framework", "1.0", ("cpu",), ("32-true",))
LENGTHS = Lengths(
    photon_energy_eV=8000.0,
    wavelength_m=1.5498e-10,
    detector_distance_m=2.0,
    detector_pixel_m=(75e-6, 75e-6),
    object_pixel_m=(40e-9, 40e-9),
)


def make_reconstruction(
    *, N: int = 16, frames: int = 40, modes: int = 2, seed: int = 0, **changes: Any
) -> Reconstruction:
    """Every field is filled, and no two of them agree by chance."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform((30.3, 50.1), (80.7, 90.2), (frames, 2))
    origin = np.floor(positions.min(axis=0)) - N // 2
    width, height = (np.floor(positions.max(axis=0)) - np.floor(positions.min(axis=0)) + N + 1).astype(int)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, height, width)), (0, 2, 2))
    field = (1 + 0.3 * smooth[0] / smooth[0].std() * 0.3) * np.exp(0.5j * smooth[1] / smooth[1].std())
    rows, columns = np.indices((N, N)) - N / 2
    probe = np.exp(-(rows**2 + columns**2) / 20) * np.stack([columns**order + 0.1j for order in range(modes)])
    known = np.ones((height, width), bool)
    known[:4] = known[:, -5:] = False
    error = np.where(known, 0.01 + 0.1 * rng.random((height, width)), np.nan)
    deviance = 1 + 0.1 * rng.random(frames)
    deviance[3] = 30.0
    frequency = np.arange(1, 17) / 32
    fields: dict[str, Any] = {
        "object_field": field.astype(np.complex64),
        "origin_px": (float(origin[0]), float(origin[1])),
        "overlap_count": rng.integers(1, 9, (height, width)).astype(np.int32),
        "probe": probe.astype(np.complex64),
        "positions_px": positions,
        "patterns": frames,
        "seconds": {"total": 2.0, "solve": 1.9},
        "engine": ENGINE,
        "known": known,
        "object_without_prior": (field * 1.01).astype(np.complex64),
        "given_positions_px": positions + rng.normal(0, 0.3, (frames, 2)),
        "frames": rng.permutation(frames),
        "intensities": rng.uniform(0.9, 1.1, frames),
        "R": 0.0038,
        "H": 0.0045,
        "deviance": 1.05,
        "deviance_error": 0.003,
        "frame_R": 0.0038 * (1 + 0.1 * rng.random(frames)),
        "frame_deviance": deviance,
        "predicted_error": error.astype(np.float32),
        "error_factor": 3.3,
        "error_factor_from": "split halves",
        "frc": read_curve(frequency, np.cos(np.pi * frequency) ** 2),
        "measured_amplitude": rng.poisson(3.0, (N, N)).astype(np.float32) ** 0.5,
        "modelled_amplitude": np.full((N, N), 1.7, np.float32),
        "pattern_frame": 5,
        "worst_frames": np.array([3, 8]),
        "worst_measured": rng.poisson(2.0, (2, N, N)).astype(np.float32) ** 0.5,
        "worst_modelled": np.full((2, N, N), 1.3, np.float32),
        "method": "solver",
        "source": "star.npz",
        "lengths": LENGTHS,
        "dose_known": True,
        "settings": {"sweeps": 20, "loss": "poisson"},
        "choices": {"refine": [{"candidate": "probe", "deviance": 1.2, "kept": True}]},
        "history": ({"sweep": 1, "R": 0.1, "H": 0.11}, {"sweep": 2, "R": 0.0038, "H": 0.0045}),
    }
    return Reconstruction(**{**fields, **changes})
