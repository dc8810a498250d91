"""Ptychodus itself, driven headless, and the command line beside it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core import embedding, load_scan, save_scan, simulate
from ptycho_core.engine.registry import is_installed
from ptycho_core.quality.area import scanned_area
from ptycho_core.quality.evaluation import evaluate, evaluate_fields
from ptycho_core.quality.truth import load_truth
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.scans.scan import Scan
from tests.command_line import ptycho
from tests.shared_data import SHARED, absent

LENGTHS = {"photon_energy_eV": 8000.0, "detector_distance_m": 1.5, "detector_pixel_m": [75e-6, 75e-6]}
LIBRARY = "ptycho-core"


@attrs.frozen
class Case:
    """A scan as Ptychodus's pair of files, the file of its truth or reference, and how it is trained.

    settings: by field, for both ways. least: a correlation that shows that something was learnt.
    """

    pair: Path
    scan: Scan
    truth: Path
    settings: dict[str, Any]
    least: float

    def correlation(self, field: NDArray[Any]) -> float:
        """Of an object on the grid of the truth, as `ptycho evaluate` has it: aligned, inside the scanned area."""
        truth = load_truth(self.truth).object_field
        inside = scanned_area(self.scan.positions_px, self.scan.N, truth.shape, (0.0, 0.0))
        return evaluate_fields(field, truth, inside).correlation


@pytest.fixture(scope="session", params=["torch", "tensorflow"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(scope="session")
def core() -> Iterator[Any]:
    """One model core of Ptychodus, with our algorithms and file readers."""
    from ptychodus.model import ModelCore

    from ptycho_core.integrations.ptychodus import register
    from ptycho_core.integrations.ptychodus_plugin import register_plugins

    with ModelCore() as core:
        library = register(core)
        handlers = list(library.get_logger().handlers)
        assert register(core) is library  # a second time adds nothing
        assert library.get_logger().handlers == handlers
        register_plugins(core.plugin_registry)
        yield core


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("simulated")
    scan = simulate(N=32, positions=120, object="lines", photons=1e6, seed=0)
    settings = {"architecture": "cnn", "n_filters_scale": 1, "pad_object": False, "nepochs": 3}
    return _case(folder, scan, settings, least=0.12)  # untrained: 0.07


@pytest.fixture(scope="session")
def star(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The first 200 patterns, in counts; the lengths are not known and made up, so that there are metres."""
    file = SHARED / "siemens_star" / "siemens_star_64.npz"
    if not file.exists():
        absent(file)
    scan = load_scan(file, measurement="amplitude").subset(slice(200))
    counts = np.rint(np.square(np.asarray(scan.diffraction_amplitude)))
    scan = attrs.evolve(scan, diffraction_amplitude=np.sqrt(counts), dose_known=True)
    settings = {"architecture": "canvas", "nepochs": 1, "n_groups": 16}
    return _case(tmp_path_factory.mktemp("star"), scan, settings, least=0.9)


def _case(folder: Path, scan: Scan, settings: dict[str, Any], least: float) -> Case:
    save_scan(folder / "pair", attrs.evolve(scan, metadata=LENGTHS), format="ptychodus")
    save_scan(folder / "truth.npz", scan)
    common = {"batch_size": 4, "nphotons": 1e6, "seed": 0}
    return Case(folder / "pair", scan, folder / "truth.npz", {**common, **settings}, least)


@pytest.fixture(scope="session")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case, str], float]:
    """The correlation that `ptycho train` and `reconstruct` reach, as `ptycho evaluate` has it."""

    def run(case: Case, backend: str) -> float:
        out, scan = tmp_path_factory.mktemp(f"command-line-{backend}"), case.pair / "diffraction.h5"
        flags: list[object] = ["--backend", backend]
        for name, value in case.settings.items():
            flag = name.replace("_", "-")
            flags += [f"--{flag if value is not False else f'no-{flag}'}", *([] if value is False else [value])]
        ptycho("train", scan, "--out", out, *flags)
        ptycho("reconstruct", scan, "--model", out, "--out", out, "--backend", backend)
        return evaluate(load_reconstruction(out), load_truth(case.truth)).metrics.correlation

    return run


ONE = next((name for name in ("torch", "tensorflow") if is_installed(name)), "")
"""Where a test is of the process that embeds us, which knows no engine; PyTorch starts soonest."""


@pytest.fixture
def without_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is done in this process, where a framework is imported once: what it is done with is the same."""
    for name in ("train", "reconstruct", "solve"):
        monkeypatch.setattr(embedding, name, functools.partial(getattr(embedding, name), child=False))


@pytest.fixture
def settings(core: Any) -> Iterator[Callable[..., None]]:
    """`settings(nepochs=3)`: of a training, and the backend of both; as they were when the test ends."""
    groups = core.processing_core.algorithm_parameter._reconstructor_map[f"{LIBRARY}_pinn"]._settings
    known = [(name, each) for section in groups.parameters.values() for name, each in section.items()]
    before = [(each, each.get_value()) for _, each in known]

    def change(**values: Any) -> None:
        for field, value in values.items():
            matching = [each for name, each in known if name == field]
            for each in matching if field == "backend" else matching[:1]:
                each.set_value(value)
            assert matching, field

    yield change
    for each, value in before:
        each.set_value(value)


@attrs.frozen
class Ptychodus:
    """A case opened in Ptychodus, and what a user does with it there."""

    core: Any
    product: Any
    folder: Path

    @property
    def monitor(self) -> Any:
        return self.core.processing_core.processing_api.task_monitor

    def train(self, algorithm: str, *, block: bool = True) -> Path:
        data, out = self.folder / "training-data", self.folder / "out"
        data.mkdir()
        self.product.export_training_data(data / "train_data.npz", algorithm=algorithm)
        self.product.train_reconstructor_local(data, out, algorithm=algorithm, block=block)
        return out

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[tuple[int, int]]]:
        """(progress, goal), each time that Ptychodus is told."""
        told: list[tuple[int, int]] = []
        monitor, tell = self.monitor, self.monitor.update_progress

        def update(progress: int, goal: int) -> None:
            told.append((progress, goal))
            tell(progress, goal)

        monitor.update_progress = update
        try:
            yield told
        finally:
            del monitor.update_progress

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it took too long"
            time.sleep(0.02)


@pytest.fixture
def opened(core: Any, tmp_path: Path) -> Callable[[Case], Ptychodus]:
    def open_case(case: Case) -> Ptychodus:
        api = core.workflow_api
        data = api.load_assembled_diffraction_data(case.pair / "diffraction.h5")
        product = api.load_product(case.pair / "product.h5", file_type="HDF5", diffraction=data)
        return Ptychodus(core, product, tmp_path)

    return open_case
