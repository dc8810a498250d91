"""Which files to train on, in a folder as Ptychodus has it."""

from __future__ import annotations

from pathlib import Path

from ptycho_core import embedding
from ptycho_core.errors import DataError

TRAIN_FILE, TEST_FILE = "train_data.npz", "test_data.npz"


def training_files(input_path: Path) -> tuple[Path, Path | None]:
    """(training, test) that a path names: a file, or a folder as Ptychodus has it, or with a single NPZ file."""
    if not input_path.is_dir():
        return input_path, None
    train_file, test_file = input_path / TRAIN_FILE, input_path / TEST_FILE
    if train_file.exists():
        return train_file, test_file if test_file.exists() else None
    found = sorted(input_path.glob(f"*{embedding.TRAINING_DATA_FILE_EXTENSION}"))
    if len(found) != 1:
        received = ", ".join(path.name for path in found) or "no .npz file"
        remedy = "Export training data into it, or name a file."
        raise DataError(
            str(input_path), expected=f"{TRAIN_FILE}, or a single .npz file", received=received, remedy=remedy
        )
    return found[0], None
