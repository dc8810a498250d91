"""Losses and optimisers of a program: registered by name, weighed, refused with what there is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import numpy as np
import pytest
from ptycho_core_reference import ReferenceNetwork

from ptycho_core.cli.importing import next_command, takes_imports
from ptycho_core.engine.losses import LOSSES, loss_function, register_loss
from ptycho_core.engine.objective import Objective, reported_terms
from ptycho_core.engine.optimizers import OPTIMIZERS, register_optimizer
from ptycho_core.errors import BackendError, ConfigurationError
from ptycho_core.settings.training import TrainingConfig
from tests.contract.cases import named_case
from tests.core.archives import tiny_model
from tests.networks import cnn


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (LOSSES, OPTIMIZERS):
        monkeypatch.setattr(registry, "_registered", {})


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(model=cnn(N=32, n_filters_scale=1), **changes)


def test_a_registered_loss_is_reported_weighed_and_scheduled() -> None:
    register_loss("Own")(lambda of: of.mean_counts)
    register_loss("flat", compares="object")(lambda of: 1.0)
    training = config(nll_weight=0.0, loss_weights="own=0.5, FLAT=2")
    assert reported_terms(training)[-2:] == ("Own", "flat")
    terms = dict.fromkeys(reported_terms(training), 0.0) | {"Own": 3.0, "flat": 5.0}
    objective = Objective.of(training)
    assert objective.total(terms) == 0.5 * 3 + 2 * 5
    assert objective.total(terms, 0.0) == 2 * 5, "counts have no part in it at physics weight 0"
    assert reported_terms(config(loss_weights="own=0"))[-1] == "Own", "reported alone"


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("own", "NAME=WEIGHT"),
        ("own=-1", "NAME=WEIGHT"),
        ("own=1,OWN=2", "NAME=WEIGHT"),
        ("own=nan", "NAME=WEIGHT"),
        ("onw=1", "Did you mean 'own'"),
        ("nll=1", "Set nll_weight"),
        ("reduced_deviance=1", "reported in any case"),
    ],
)
def test_weights_that_name_no_loss_of_a_program_are_refused(weights: str, words: str) -> None:
    register_loss("own")(lambda of: 0.0)
    with pytest.raises(ConfigurationError, match=words):
        Objective.of(config(loss_weights=weights))


def test_names_that_are_taken_and_supervised_training_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="meaning of its own"):
        register_loss("nll")(lambda of: 0.0)
    with pytest.raises(ConfigurationError, match="registered already"):
        register_optimizer("adam")(lambda at: (at.array, {}))
    with pytest.raises(ConfigurationError, match="loss_weights"):
        TrainingConfig(model=cnn(N=32, model_type="supervised"), loss_weights="own=1")
    with pytest.raises(ConfigurationError, match="Did you mean 'adam'"):
        OPTIMIZERS.load("adamv")


def test_the_same_definition_run_again_replaces_itself_and_another_needs_to_say_so() -> None:
    def define(value: float) -> None:
        @register_loss("own")
        def own(of: Any) -> float:
            return value

    define(1.0)
    define(2.0)
    assert loss_function("own", "torch", {})(None) == 2.0
    with pytest.raises(ConfigurationError, match="replace=True"):
        register_loss("own")(lambda of: 3.0)
    register_loss("own", replace=True, engines={"torch": lambda of: 4.0})(lambda of: 3.0)
    assert (loss_function("own", "torch", {})(None), loss_function("own", "tensorflow", {})(None)) == (4.0, 3.0)


def test_the_reference_trains_with_a_gradient_of_its_own_and_is_refused_without() -> None:
    case = named_case("short")
    register_loss("own", engines={"reference": lambda of: (float(of.predicted.sum()), np.ones_like(of.predicted))})(
        lambda of: of.xp.sum(of.predicted)
    )
    register_loss("other")(lambda of: of.xp.sum(of.predicted))
    found = {}
    for name in ("own", "other"):
        training = attrs.evolve(case.training, loss_weights=f"{name}=1")
        network = ReferenceNetwork(case.model, training, case.weights)
        found[name] = network.evaluate([case.batch])[name]
        if name == "own":
            assert network.gradients(case.batch)
        else:
            with pytest.raises(BackendError, match="its value alone"):
                network.gradients(case.batch)
    assert found["own"] == pytest.approx(found["other"])


OWN = """
from ptycho_core import register_architecture, register_loss

@register_loss("from_file")
def from_file(of):
    return of.mean_counts
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "my_own_losses.py"
    path.write_text(OWN)
    yield path
    sys.modules.pop("my_own_losses", None)


@pytest.mark.parametrize("named", ["my_own_losses", "my_own_losses.py"])
def test_a_command_imports_what_it_is_told(named: str, module: Path, ptycho: Any) -> None:
    asked = ("train", "nowhere.npz", "--loss-weights", "from_file=1", "--show-config")
    done = ptycho(*asked, "--import", named)
    assert LOSSES.find("FROM_FILE") == "from_file", done.err


def test_the_command_to_go_on_with_imports_the_same(module: Path) -> None:
    command = takes_imports(click.Command("train"))
    with command.make_context("train", ["--import", module.name]):
        assert next_command("ptycho", "reconstruct", "a b.npz").endswith("'a b.npz' --import my_own_losses.py")
    assert next_command("ptycho", "evaluate") == "ptycho evaluate"


@pytest.mark.parametrize(
    ("named", "words"),
    [("nowhere.py", "no such file"), ("nowhere_at_all", "No module named"), ("bad.py", "1/0 is bad")],
)
def test_what_cannot_be_imported_is_refused(named: str, words: str, module: Path, ptycho: Any) -> None:
    Path("bad.py").write_text("raise ValueError('1/0 is bad')")
    done = ptycho("inspect", "scan.npz", "--import", named)
    assert done.code == 2 and words in done.err and named in done.err and "Traceback" not in done.err


def test_an_archive_of_a_network_that_nobody_registered_names_its_module(
    tmp_path: Path, tiny_architecture: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptycho_core import load_model
    from ptycho_core.errors import PtychoError
    from ptycho_core.networks.registry import ARCHITECTURES

    path = tiny_model().save(tmp_path)
    load_model(path)
    monkeypatch.setattr(ARCHITECTURES, "_registered", {})
    with pytest.raises(PtychoError, match=r"tests\.core\.archives.*--import tests\.core\.archives"):
        load_model(path)
