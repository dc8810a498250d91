"""What can be refused without a scan is refused before one is read, and without the import of a framework."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from ptycho_core.errors import BackendError, ConfigurationError, MissingExtraError
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import fit
from ptycho_core.training.prepare import check_logger, prepare
from tests.networks import cnn


def config(**changes: Any) -> TrainingConfig:
    model = {name: changes.pop(name) for name in ("N", "architecture") if name in changes}
    return TrainingConfig(model=cnn(**{"N": 32, "n_filters_scale": 1, **model}), nepochs=2, **changes)


def test_a_misspelt_backend_is_refused_before_the_scan_is_looked_at() -> None:
    with pytest.raises(BackendError, match=r"Unknown backend 'tensorlfow'\. Registered backends"):
        fit(None, config(backend="tensorlfow"))  # that there is no scan is a later error


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(
    ("changes", "execution", "message"),
    [
        ({"architecture": "cnnn"}, {}, "ModelConfig: architecture must be one of cnn, published_torch"),
        ({"N": 33}, {}, "ModelConfig: N must be a size from 32 to 512"),
        ({}, {"checkpoint_monitor_metric": "realspace_mae"}, "checkpoint_monitor_metric must be one of total, nll"),
    ],
)
def test_architecture_size_and_monitor_are_refused_without_a_scan(
    changes: dict[str, Any], execution: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepare(config(**changes), execution=ExecutionConfig(**execution))


@pytest.mark.usefixtures("fake_engine")
def test_a_contradiction_that_was_set_later_is_refused_without_a_scan() -> None:
    asked = config()
    asked.model.gridsize = 3
    with pytest.raises(ConfigurationError, match="neighbor_count must be >= gridsize² - 1 = 8"):
        prepare(asked)


@pytest.mark.usefixtures("fake_engine")
def test_a_size_that_is_not_known_yet_is_not_looked_at() -> None:
    prepare(config(N=33), sized=False)
    with pytest.raises(ConfigurationError, match="architecture must be one of cnn"):
        prepare(config(N=33, architecture="cnnn"), sized=False)


def test_a_run_that_cannot_go_on_is_refused_without_a_scan(
    fake_engine: Any, numbered_scan: Callable[..., Scan]
) -> None:
    run = fit(numbered_scan(), config())
    next(iter(run))
    checkpoint = run.checkpoint()
    with pytest.raises(ConfigurationError, match="TrainingConfig: seed must be 0, as the run began; got 1"):
        prepare(config(seed=1), resume=checkpoint)
    fake_engine.backends.clear()
    resumed = attrs.evolve(checkpoint, engine=attrs.evolve(checkpoint.engine, name="torch"))
    prepare(config(), resume=resumed).load_engine()
    assert fake_engine.backends == ["torch"]  # auto: the one that began


def test_later_changes_do_not_reach_what_is_prepared(fake_engine: Any) -> None:
    asked, execution = config(), ExecutionConfig()
    prepared = prepare(asked, execution=execution)
    asked.nepochs, asked.model.gridsize, execution.precision = 9, 2, "64-true"
    assert (prepared.config.nepochs, prepared.config.model.gridsize) == (2, 1)
    assert prepared.execution.precision == "32-true"
    assert fake_engine.backends == []  # nothing is loaded before the start


@pytest.mark.usefixtures("fake_engine")
def test_both_files_are_there_before_one_is_read(tmp_path: Any) -> None:
    (tmp_path / "train.npz").write_bytes(b"no scan: it would be refused as such")
    asked = config(train_data_file=tmp_path / "train.npz", test_data_file=tmp_path / "nowhere.npz")
    with pytest.raises(ConfigurationError, match=r"test_data_file must be an existing file; got .*nowhere\.npz"):
        fit(None, asked)


def test_a_logger_that_is_not_installed_is_found_missing_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("csv", "none"):
        check_logger(name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ptycho-core\[tensorboard\]'"):
        check_logger("tensorboard")


CODE = """
import sys
from ptycho_core.errors import BackendError
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.prepare import prepare
for backend in ("torch", "tensorflow", "auto", "tensorlfow"):
    try:
        prepare(TrainingConfig(backend=backend))
    except BackendError as error:
        print(error)
print("imported:", *sorted({"numpy", "h5py", "scipy", "torch", "tensorflow"} & set(sys.modules)))
"""


def test_preparing_imports_no_framework_and_no_reader() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    *errors, imported = done.stdout.splitlines()
    assert "Unknown backend 'tensorlfow'" in errors[-1]
    assert imported == "imported:"
