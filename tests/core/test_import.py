"""The core imports no deep-learning framework, its public names resolve, and what it passes around can be pickled."""

from __future__ import annotations

import ast
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import ptycho_core
import ptycho_core.legacy
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax"}


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def modules_loaded_by(code: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that ran `code`."""
    report = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_no_framework_and_no_numpy() -> None:
    assert not modules_loaded_by("import ptycho_core") & (FRAMEWORKS | {"numpy", "scipy", "matplotlib"})


def test_importing_the_command_line_loads_neither_framework_nor_matplotlib() -> None:
    assert not modules_loaded_by("import ptycho_core.cli") & (FRAMEWORKS | {"matplotlib"})


def test_importing_every_submodule_loads_no_framework() -> None:
    walk = (
        "import importlib, pkgutil, ptycho_core\n"
        "for module in pkgutil.walk_packages(ptycho_core.__path__, 'ptycho_core.'):\n"
        "    if not module.name.startswith('ptycho_core.integrations.'):  # these need their applications\n"
        "        importlib.import_module(module.name)\n"
        "import sys; assert 'ptycho_core.formats.npz' in sys.modules and 'ptycho_core.training.fit' in sys.modules"
    )
    assert not modules_loaded_by(walk) & FRAMEWORKS


@pytest.mark.parametrize("name", ptycho_core.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(ptycho_core, name) is not None
    assert name in dir(ptycho_core)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No ptycho_core attribute reconstrukt"):
        ptycho_core.reconstrukt  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(N=128, group_size=9),
        TrainingConfig(model=ModelConfig(probe_mask=True), n_subsample=7),
        InferenceConfig(n_groups=3),
        ExecutionConfig(precision="64-true"),
    ],
    ids=lambda config: type(config).__name__,
)
@pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
def test_configurations_survive_copying(config: Any, copied: Any) -> None:
    twin = copied(config)
    assert twin == config
    assert twin is not config


def test_a_scan_survives_pickling(numbered_scan: Any) -> None:
    scan = numbered_scan(count=3, metadata={"beamline": "velociprobe"})
    twin = pickled(scan)
    for field in attrs.fields(type(scan)):
        if field.name != "statistics":
            np.testing.assert_array_equal(getattr(twin, field.name), getattr(scan, field.name), err_msg=field.name)
    np.testing.assert_array_equal(twin.statistics.frame_intensity, scan.statistics.frame_intensity)


@pytest.mark.parametrize("package", [ptycho_core, ptycho_core.legacy], ids=lambda package: package.__name__)
def test_type_checkers_are_told_every_public_name(package: Any) -> None:
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text())
    told = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == set(package.__all__)
    assert told == set(dir(package))
