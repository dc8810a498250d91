"""The loss is said once: what the table of terms holds is what is reported, weighed, monitored and specified."""

from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pytest
from ptycho_core_reference import losses as reference

from ptycho_core.engine.losses import TERMS
from ptycho_core.engine.objective import Objective, check_monitor, reported_terms
from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOSS_TERMS

SPEC = Path(__file__).parents[3] / "specs" / "physics.md"
ALL = TrainingConfig(nll_weight=0.7, mae_weight=0.5, realspace_weight=0.3, realspace_mae_weight=0.4)


def test_the_specification_has_the_table_of_terms() -> None:
    def shown(value: object) -> str:
        return "" if value is None else f"{value:g}"

    rows = [
        f"| `{term.name}` | `{term.formula}` | {term.compares} | "
        f"{'none' if term.setting is None else f'`{term.setting}`'} | {shown(term.first)} |".replace("|  |", "| |")
        for term in TERMS.values()
    ]
    section = SPEC.read_text(encoding="utf-8").split("\n## Losses\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    assert found == rows


def test_terms_can_be_monitored_and_every_weight_is_a_setting() -> None:
    assert typing.get_args(LOSS_TERMS) == ("total", *TERMS)
    assert {term.setting for term in TERMS.values()} - {None} <= set(fields_of(TrainingConfig))


def test_the_reference_has_a_function_for_every_term() -> None:
    assert list(reference.TERMS) == list(TERMS)


def test_the_total_is_the_weighted_sum() -> None:
    terms = {"nll": 2.0, "reduced_deviance": 1e9, "amplitude_mae": 3.0, "total_variation": 5.0, "realspace_mae": 7.0}
    objective = Objective.of(ALL)
    assert objective.terms == tuple(TERMS)
    assert objective.total(terms) == pytest.approx(0.7 * 2 + 0.5 * 3 + 0.3 * 5 + 0.4 * 7, rel=1e-15)
    assert objective.total(terms, 0.25) == pytest.approx(
        0.25 * (0.7 * 2 + 0.5 * 3) + 0.75 * 3 + 0.3 * 5 + 0.4 * 7, rel=1e-15
    )
    assert objective.total(terms, 0.0) == pytest.approx(3 + 0.3 * 5 + 0.4 * 7, rel=1e-15)


def test_the_total_is_of_the_kind_of_the_terms() -> None:
    """An engine gives tensors, and a tensor as the physics weight."""
    terms = {name: np.full(3, 2.0, np.float32) for name in TERMS}
    total = Objective.of(ALL).total(terms, np.float32(0.5))
    assert total.dtype == np.float32
    np.testing.assert_allclose(total, 2 * (0.5 * 1.2 + 0.5 + 0.7), rtol=1e-6)


def test_a_term_of_weight_0_is_reported_where_it_compares_counts_and_else_left_out() -> None:
    config = TrainingConfig(nll_weight=0.0, mae_weight=1.0)
    objective = Objective.of(config)
    assert objective.terms == ("nll", "reduced_deviance", "amplitude_mae")
    assert objective.weights() == {"nll": 0.0, "amplitude_mae": 1.0}
    assert objective.compares("counts") and not objective.compares("truth") and not objective.compares("object")
    assert reported_terms(config) == ("total", "nll", "reduced_deviance", "amplitude_mae")


def test_a_supervised_network_compares_with_the_truth_alone() -> None:
    objective = Objective.of(TrainingConfig(model=ModelConfig(model_type="supervised")))
    assert objective.terms == ("realspace_mae",)
    assert objective.total({"realspace_mae": 3.0}, 0.1) == 3.0
    assert objective.compares("truth") and not objective.compares("counts")


def test_a_term_that_is_not_reported_is_not_monitored() -> None:
    execution = ExecutionConfig(checkpoint_monitor_metric="total_variation")
    with pytest.raises(ConfigurationError) as caught:
        check_monitor(execution, TrainingConfig())
    assert str(caught.value) == (
        "ExecutionConfig: checkpoint_monitor_metric must be one of total, nll, reduced_deviance, amplitude_mae; "
        "got 'total_variation'. Choose one of them, or give it a weight."
    )
    check_monitor(execution, ALL)
