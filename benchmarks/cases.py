"""Where the data of the quality benchmarks are, what is compared, and the table that every benchmark prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core import Reconstruction, Scan, evaluate

SHARED_DATA = Path(os.environ.get("PTYCHO_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
STAR = SHARED_DATA / "siemens_star" / "siemens_star_64.npz"
XPP_PROBE = SHARED_DATA / "lcls_xpp_run1084" / "Run1084_recon3_postPC.npz"

WINDOW = slice(50, 190)
"""Rows and columns of the real star's object that are compared with its reference."""


def window(result: Reconstruction, rows: slice = WINDOW) -> NDArray[np.complex64]:
    """Rows and columns of the object grid, whatever the canvas."""
    x, y = (int(origin) for origin in result.origin_px)
    return result.object_field[rows.start - y : rows.stop - y, WINDOW.start - x : WINDOW.stop - x]


def figures_of(result: Reconstruction, scan: Scan) -> dict[str, float]:
    """Against the scan's own object."""
    assert scan.object_field is not None
    metrics = evaluate(result, scan.object_field).metrics
    return {
        "correlation": metrics.correlation_before_alignment,
        "SSIM amplitude": metrics.amplitude.ssim,
        "SSIM phase": metrics.phase.ssim,
    }


def require(path: Path) -> Path:
    """The file, or an end of the benchmark that says what is missing."""
    if not path.is_file():
        sys.exit(
            f"{path} does not exist: set PTYCHO_SHARED_DATA to the folder that holds {path.parent.name}/{path.name}"
        )
    return path


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns aligned, numbers to four digits, as Markdown."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    print("\n".join([lines[0], rule, *lines[1:]]), flush=True)
