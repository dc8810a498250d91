"""Where the best model of a run is."""

from __future__ import annotations

from pathlib import Path

BEST = "best.ckpt"
"""A model of ptycho-core, `wts.h5.zip`, under the ending that Ptychodus asks for."""


def find_best_checkpoint(run_dir: Path) -> Path | None:
    """None where no epoch has ended."""
    file = Path(run_dir) / BEST
    return file if file.exists() else None
