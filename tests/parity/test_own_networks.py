"""A network of one framework trains, is archived and predicts; what cannot be one is refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import ModelConfig, TrainingConfig, load_model, reconstruct, simulate, train
from ptycho_core.errors import BackendError, ConfigurationError, PtychoError
from ptycho_core.networks.registry import build_table
from ptycho_core.scans.scan import Scan
from tests.contract.backends import engine_or_skip

OWN = {"torch": "tests.own_networks:torch_network", "tensorflow": "tests.own_networks:keras_network"}
OTHER = {"torch": "tensorflow", "tensorflow": "torch"}


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(N=16, positions=20, object="lines", photons=1e5, seed=0)


def config(place: str, backend: str) -> TrainingConfig:
    model = ModelConfig(N=16, architecture=place, pad_object=False)
    return TrainingConfig(model=model, backend=backend, nepochs=3, n_groups=20, batch_size=4, learning_rate=0.01)


@pytest.mark.parametrize("backend", OWN)
def test_it_is_trained_archived_and_predicts_and_the_other_engine_refuses_it(
    backend: str, scan: Scan, tmp_path: Path
) -> None:
    engine_or_skip(backend)
    trained = train(scan, config(OWN[backend], backend))
    losses = [row["total"] for row in trained.history]
    assert losses[-1] < losses[0]
    first = build_table(trained.config.model)
    own = {name for name in trained.weights if name.startswith("network/")}
    assert own == set(first.parameters) and len(own) == 4
    loaded = load_model(trained.save(tmp_path))
    assert loaded.config.model.architecture == OWN[backend]
    results = [reconstruct(scan, model).object_field for model in (trained, loaded)]
    np.testing.assert_array_equal(results[0], results[1])
    engine_or_skip(OTHER[backend])
    with pytest.raises(BackendError, match=rf"must be {backend}"):
        reconstruct(scan, loaded, backend=OTHER[backend])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("tests.own_networks:with_batch_norm", "also 1.running_mean"),
        ("tests.own_networks:nothing", "a torch.nn.Module or a keras.Model"),
        ("tests.own_networks:broken", "RuntimeError: no such layer"),
        ("tests.own_networks:failing", r"ValueError: not today \(own_networks\.py, line"),
        ("tests.own_networks:Absent", "AttributeError"),
        ("no_such_module:network", "No module named 'no_such_module'"),
        ("tests.own_networks:one_map", r"\(4, 2, 16, 16\)"),
    ],
)
def test_what_is_no_such_network_is_refused_in_one_line(place: str, words: str, scan: Scan) -> None:
    engine_or_skip("torch")
    with pytest.raises(ConfigurationError, match=words) as caught:
        train(scan, config(place, "torch"))
    assert place in str(caught.value) and "\n" not in str(caught.value)


def test_an_archive_of_a_module_that_is_missing_names_it(scan: Scan, tmp_path: Path, monkeypatch: Any) -> None:
    engine_or_skip("torch")
    path = train(scan, config(OWN["torch"], "torch")).save(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tests.own_networks", None)
    with pytest.raises(PtychoError, match=r"tests\.own_networks:torch_network"):
        load_model(path)
