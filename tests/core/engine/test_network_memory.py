"""What cannot fit into memory is refused before work starts, with what would fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.checks import check_network_memory
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import TableBuilder
from ptycho_core.physics.canvas import ObjectCanvas
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage import memory as memory_module
from ptycho_core.storage.memory import memory
from ptycho_core.training.fit import fit
from tests.networks import cnn

MODEL = cnn(N=32, n_filters_scale=1)


def have(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for place in ("ptycho_core.engine.checks.memory", "ptycho_core.storage.memory.memory"):
        monkeypatch.setattr(place, lambda: count)


def test_the_numbers_of_a_table_are_those_of_its_layers() -> None:
    table = TableBuilder(1)
    wide = table.conv("wide", "input", 8, "relu")
    small = table.max_pool("small", wide)
    amplitude, phase = (table.conv(name, table.upsample(f"{name}/up", small), 1, "relu") for name in ("a", "p"))
    made = table.finish(amplitude=amplitude, phase=phase)
    assert made.numbers(16) == (8 * 256 + 8 * 64 + 2 * (8 * 256 + 256), 8 * 256 + 8 * 64)


@pytest.mark.parametrize(
    ("precision", "train", "largest"), [("32-true", True, 16), ("64-true", True, 8), ("32-true", False, 128)]
)
def test_a_batch_that_cannot_fit_is_refused_with_one_that_can(
    monkeypatch: pytest.MonkeyPatch, precision: Any, train: bool, largest: int
) -> None:
    table, execution = build_table(MODEL), ExecutionConfig(precision=precision)
    each = table.numbers(32)[0 if train else 1] * (8 if precision == "64-true" else 4)
    have(monkeypatch, (largest + 1) * each)
    check_network_memory(table, MODEL, largest, execution, ("cpu",), train=train)
    name = "batch_size" if train else "inference_batch_size"
    with pytest.raises(ConfigurationError, match=rf"{name} must be a batch that fits.*Set it to {largest} or less"):
        check_network_memory(table, MODEL, 4 * largest, execution, ("cpu",), train=train)
    check_network_memory(table, MODEL, 4 * largest, execution, ("cpu", "cuda"), train=train)  # whose memory is another
    here = ExecutionConfig(accelerator="cpu", precision=precision)
    with pytest.raises(ConfigurationError):
        check_network_memory(table, MODEL, 4 * largest, here, ("cpu", "cuda"), train=train)
    have(monkeypatch, each // 2)
    with pytest.raises(ConfigurationError, match="Crop the patterns, or lower n_filters_scale"):
        check_network_memory(table, MODEL, 1, execution, ("cpu",), train=train)


@pytest.mark.usefixtures("fake_engine")
def test_a_training_is_refused_before_its_first_batch(numbered_scan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 2**20)
    with pytest.raises(ConfigurationError, match="batch_size must be a batch that fits into memory"):
        fit(numbered_scan(), TrainingConfig(model=MODEL, batch_size=512, nepochs=1))


def test_a_canvas_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = np.array([[8.0, 8.0], [1000.0, 600.0]])
    ObjectCanvas(positions, np.ones((16, 16)))
    have(monkeypatch, 20 * 1009 * 609)
    with pytest.raises(DataError, match=r"1009 x 609 object pixels, which take 0\.1 GiB.*--frames"):
        ObjectCanvas(positions, np.ones((16, 16)))


def test_memory_is_the_least_of_machine_container_and_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = memory()
    limits = tmp_path / "memory.max"
    monkeypatch.setattr(memory_module, "GROUPS", (tmp_path / "absent", limits))
    for text, expected in (("max\n", whole), (f"{2**20}\n", 2**20)):
        limits.write_text(text)
        assert memory() == min(expected, whole)
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4096, -1))
    assert memory() == 4096
