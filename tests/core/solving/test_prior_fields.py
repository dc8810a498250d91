"""Every field of PriorConfig does what it says: changing it changes what it promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine
from ptycho_core_reference.images import ReferenceImageNetwork

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.events import Event
from ptycho_core.formats.convert import save_scan
from ptycho_core.models.prior import LearnedPrior, load_prior, load_teaching
from ptycho_core.runs import train_prior
from ptycho_core.runs.console import Output
from ptycho_core.runs.train_prior import train_prior_into
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving.lessons import load_lesson
from ptycho_core.solving.teaching import Teaching

field = pytest.mark.field
SHORT: dict[str, Any] = {"epochs": 2, "steps": 1, "batch_size": 1, "crop_px": 16, "widths": "2,3", "sweeps": 2}


NAMES: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def reference() -> Iterator[None]:
    """The reference engine under every name."""

    def load_engine(backend: str) -> ReferenceEngine:
        NAMES.append(backend)
        return ReferenceEngine()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_prior, "load_engine", load_engine)
        yield


@pytest.fixture
def asked() -> list[str]:
    """The names of engines that are asked for."""
    NAMES.clear()
    return NAMES


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for seed in (1, 2):
        save_scan(folder / f"scan-{seed}.npz", simulate(N=16, positions=20, step_px=4, photons=1e4, seed=seed))
    return folder


def learned(scans: Path, out: Path, **changes: Any) -> LearnedPrior:
    config = PriorConfig(scans_dir=scans, output_dir=out, **{**SHORT, **changes})
    done = train_prior_into(out, config)
    assert done.stop is None
    return load_prior(out)


@pytest.fixture(scope="module")
def usual(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with nothing changed."""
    folder = tmp_path_factory.mktemp("usual")
    learned(scans, folder)
    return folder


def same(one: LearnedPrior, other: LearnedPrior) -> bool:
    return all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


@field("prior.scans_dir", "prior.output_dir", "prior.backend")
def test_the_scans_of_a_folder_are_learned_from_into_another_by_an_engine(
    scans: Path, tmp_path: Path, asked: list[str]
) -> None:
    learned(scans, tmp_path / "out", backend="torch")
    assert asked == ["torch"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"prior.h5.zip", "teaching.h5.zip", "config.toml", "lessons"}
    lessons = sorted(path.name for path in (tmp_path / "out" / "lessons").glob("*.npz"))
    assert lessons == [f"scan-{seed}.npz.{number}.0.npz" for seed in (1, 2) for number in (1, 2)]


@field("prior.from_scans")
def test_from_scans_learns_without_a_truth(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    scan = simulate(N=16, positions=20, step_px=4, photons=1e4)
    save_scan(folder / "scan.npz", attrs.evolve(scan, object_field=None))
    with pytest.raises(DataError, match=r"objectGuess: expected ground truth; received none\. .*--from-scans"):
        learned(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prior = learned(folder, tmp_path / "out", from_scans=True)
    assert (prior.lessons, len(prior.history)) == (4, 2)  # one round
    with pytest.raises(ConfigurationError, match="rounds"):
        PriorConfig(from_scans=True, rounds=3)


@field("prior.rounds", "prior.epochs", "prior.steps", "prior.batch_size")
def test_rounds_epochs_steps_and_crops_are_counted(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    step = ReferenceImageNetwork.train_step

    def counted(self: Any, images: Any, rate: float) -> float:
        sizes.append(len(images))
        return step(self, images, rate)

    monkeypatch.setattr(ReferenceImageNetwork, "train_step", counted)
    prior = learned(scans, tmp_path / "out", rounds=3, epochs=2, steps=4, batch_size=3)
    assert sizes == [3] * 24
    assert [row["epoch"] for row in prior.history] == [1, 2, 3, 4, 5, 6]
    assert prior.lessons == 6


@field("prior.sweeps", "prior.crop_px", "prior.learning_rate", "prior.seed", "prior.widths")
@pytest.mark.parametrize(
    "change", [{"sweeps": 3}, {"crop_px": 20}, {"learning_rate": 0.1}, {"seed": 1}, {"widths": "2,4"}]
)
def test_a_setting_changes_what_is_learned(scans: Path, usual: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    before, changed = load_prior(usual), learned(scans, tmp_path, **change)
    lessons = [load_lesson(next((folder / "lessons").glob("*1.npz.1.0.npz"))) for folder in (usual, tmp_path)]
    assert np.array_equal(lessons[0].canvas, lessons[1].canvas) is not ("sweeps" in change or "seed" in change)
    if "widths" in change:
        assert (before.channels, changed.channels) == ((2, 3), (2, 4))
    else:
        assert not same(before, changed)


# -- a run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["a lesson", "epoch 1", "epoch 3"])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    scans: Path, usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    config = PriorConfig(scans_dir=scans, output_dir=tmp_path / "part", **SHORT)
    with monkeypatch.context() as patch:
        if after == "a lesson":
            made = train_prior.with_truth
            calls: list[int] = []

            def interrupted(*arguments: Any) -> Any:
                calls.append(1)
                if len(calls) == 2:
                    raise KeyboardInterrupt
                return made(*arguments)

            patch.setattr(train_prior, "with_truth", interrupted)
        else:
            saved = Teaching.checkpoint

            def stop(run: Teaching) -> Any:
                if len(run.history) == int(after[-1]) + 1:
                    raise KeyboardInterrupt
                return saved(run)

            patch.setattr(Teaching, "checkpoint", stop)
        done = train_prior_into(tmp_path / "part", config)
    assert isinstance(done.stop, KeyboardInterrupt)
    assert (done.summary is None) is (after == "a lesson")
    if after != "a lesson":
        assert len(load_teaching(tmp_path / "part").prior.history) == int(after[-1])
    done = train_prior_into(tmp_path / "part", config, resume=True)
    assert done.stop is None and done.summary is not None and done.summary["epochs"] == 4
    assert same(load_prior(tmp_path / "part"), load_prior(usual))


def test_what_an_earlier_run_left_is_removed(scans: Path, tmp_path: Path) -> None:
    learned(scans, tmp_path / "out")
    stray = tmp_path / "out" / "lessons" / "gone.npz.1.0.npz"
    stray.write_bytes(b"")
    learned(scans, tmp_path / "out")
    assert not stray.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "gone", r"scans_dir must be a folder of scans; got no such folder"),
        (lambda folder: folder, r"scans_dir must be a folder of scans; got no file in"),
    ],
)
def test_a_folder_without_scans_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        learned(make(tmp_path), tmp_path / "out")


def test_scans_of_several_sizes_are_learned_from_together(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for N in (16, 32):
        save_scan(folder / f"{N}.npz", simulate(N=N, positions=20, step_px=4, photons=1e4))
    assert learned(folder, tmp_path / "out", rounds=1).lessons == 2


def test_it_tells_how_it_gets_on(scans: Path, tmp_path: Path) -> None:
    class Told(Output):
        def listening(self, folder: Any = None) -> Any:
            from contextlib import nullcontext

            return nullcontext(events.append)

    events: list[Event] = []
    config = PriorConfig(scans_dir=scans, output_dir=tmp_path / "out", **SHORT)
    train_prior_into(tmp_path / "out", config, output=Told())
    kinds = [event.kind for event in events if event.kind in ("prepared", "epoch", "finished")]
    assert kinds == ["prepared", "epoch", "epoch", "prepared", "epoch", "epoch", "finished"]
    assert [event.done for event in events if event.unit == "scan"] == [1, 2, 1, 2]
