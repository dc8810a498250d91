"""Learning rate and physics weight over the epochs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.schedules import learning_rate, physics_weight


def rates(**changes: Any) -> list[float]:
    asked = TrainingConfig(learning_rate=0.01, **changes)
    return [learning_rate(asked, epoch) for epoch in range(1, asked.nepochs + 1)]


def test_the_default_schedule_is_constant() -> None:
    assert rates(scheduler="Default", nepochs=3) == [0.01, 0.01, 0.01]


def test_the_exponential_schedule_multiplies_every_epoch() -> None:
    assert rates(scheduler="Exponential", lr_decay=0.5, nepochs=4) == [0.01, 0.005, 0.0025, 0.00125]


def test_the_cosine_schedule_goes_from_the_highest_to_the_last_rate() -> None:
    halfway = (1 + 0.1) / 2
    quarter = 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2
    expected = [0.01, 0.01 * quarter, 0.01 * halfway, 0.01 * (1.1 - quarter), 0.001]
    assert rates(scheduler="WarmupCosine", lr_min_ratio=0.1, nepochs=5) == pytest.approx(expected, rel=1e-12)


def test_after_its_schedule_a_rate_stays_what_it_was_at_the_end() -> None:
    values = rates(scheduler="WarmupCosine", lr_min_ratio=0.1, nepochs=5, schedule_epochs=3)
    assert values == pytest.approx([0.01, 0.0055, 0.001, 0.001, 0.001])
    assert values[:3] == rates(scheduler="WarmupCosine", lr_min_ratio=0.1, nepochs=3)
    staged = TrainingConfig(stage_1_epochs=1, stage_2_epochs=1, stage_3_epochs=1, schedule_epochs=3, nepochs=5)
    assert [physics_weight(staged, epoch) for epoch in range(1, 6)] == pytest.approx([0, 0.5, 1, 1, 1])


def test_a_warm_up_rises_linearly_to_the_highest_rate() -> None:
    values = rates(scheduler="WarmupCosine", lr_warmup_epochs=3, lr_min_ratio=0.0, nepochs=6)
    assert values == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.005, 0.0], abs=1e-12)


@pytest.mark.parametrize("nepochs", [1, 2])
def test_a_single_epoch_has_the_highest_rate(nepochs: int) -> None:
    assert rates(nepochs=nepochs, lr_warmup_epochs=nepochs - 1)[-1] == 0.01


@settings(max_examples=40)
@given(
    nepochs=st.integers(1, 60),
    warmup=st.integers(0, 59),
    final=st.floats(0, 1),
    scheduler=st.sampled_from(["Default", "Exponential", "WarmupCosine"]),
)
def test_no_rate_is_above_the_highest_or_below_zero(nepochs: int, warmup: int, final: float, scheduler: Any) -> None:
    knobs: dict[str, Any] = {"Default": {}, "Exponential": {"lr_decay": 0.9}}.get(
        scheduler, {"lr_warmup_epochs": min(warmup, nepochs - 1), "lr_min_ratio": final}
    )
    values = rates(nepochs=nepochs, scheduler=scheduler, **knobs)
    assert max(values) == pytest.approx(0.01, rel=1e-12)
    assert all(0 <= rate <= 0.01 * (1 + 1e-12) for rate in values)


STAGES = {"nepochs": 9, "stage_1_epochs": 2, "stage_2_epochs": 4, "stage_3_epochs": 3}


def test_the_rate_of_the_stages_falls_along_a_cosine_in_the_second() -> None:
    values = rates(scheduler="MultiStage", stage_3_lr_factor=0.2, **STAGES)
    between = [0.01 * (0.2 + 0.8 * (1 + math.cos(math.pi * step / 5)) / 2) for step in (1, 2, 3, 4)]
    assert values == pytest.approx([0.01, 0.01, *between, 0.002, 0.002, 0.002], rel=1e-12)


def plateau(losses: list[float], **changes: Any) -> list[float]:
    """The rate of each epoch, and of the one after the last."""
    settings = {"plateau_factor": 0.5, "plateau_patience": 1, "plateau_min_lr": 1e-3, **changes}
    asked = TrainingConfig(learning_rate=0.01, scheduler="ReduceLROnPlateau", **settings)
    return [learning_rate(asked, epoch + 1, losses[:epoch]) for epoch in range(len(losses) + 1)]


def test_a_plateau_lowers_the_rate_after_more_than_its_patience() -> None:
    assert plateau([3, 2, 2, 2, 2, 2, 1]) == [0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025]


def test_a_better_loss_starts_the_wait_anew() -> None:
    assert plateau([3, 3, 2, 2, 1, 1]) == [0.01] * 7


def test_better_is_by_more_than_the_threshold() -> None:
    losses = [1.0, 0.95, 0.9, 0.85]
    assert plateau(losses) == [0.01] * 5
    assert plateau(losses, plateau_threshold=0.2) == [0.01, 0.01, 0.01, 0.005, 0.005]


def test_the_rate_never_falls_below_the_lowest() -> None:
    values = plateau([1.0] * 20, plateau_patience=0, plateau_min_lr=4e-3)
    assert values[:3] == [0.01, 0.01, 0.005]
    assert set(values[3:]) == {4e-3}


def test_a_plateau_is_a_function_of_the_losses_alone() -> None:
    losses = [5.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0]
    assert plateau(losses)[5] == plateau(losses[:5])[5]


def weights(**changes: Any) -> list[float]:
    asked = TrainingConfig(**{**STAGES, **changes})
    return [physics_weight(asked, epoch) for epoch in range(1, asked.nepochs + 1)]


@pytest.mark.parametrize(
    ("schedule", "rise"),
    [
        ("linear", [0.2, 0.4, 0.6, 0.8]),
        ("cosine", [(1 - math.cos(math.pi * step / 5)) / 2 for step in (1, 2, 3, 4)]),
        ("exponential", [(100 ** (step / 5) - 1) / 99 for step in (1, 2, 3, 4)]),
    ],
)
def test_the_physics_weight_rises_in_the_second_stage(schedule: str, rise: list[float]) -> None:
    assert weights(physics_weight_schedule=schedule) == pytest.approx([0, 0, *rise, 1, 1, 1], rel=1e-12)


def test_without_stages_the_physics_weight_is_one() -> None:
    assert {physics_weight(TrainingConfig(nepochs=3), epoch) for epoch in (1, 2, 3)} == {1.0}


def test_without_a_second_stage_the_physics_weight_jumps() -> None:
    assert weights(nepochs=4, stage_1_epochs=2, stage_2_epochs=0, stage_3_epochs=2) == [0, 0, 1, 1]


@settings(max_examples=40)
@given(stages=st.tuples(*[st.integers(0, 9)] * 3).filter(any), schedule=st.sampled_from(["linear", "exponential"]))
def test_the_physics_weight_never_falls(stages: tuple[int, int, int], schedule: str) -> None:
    one, two, three = stages
    named = {"physics_weight_schedule": schedule} if two else {}
    values = weights(nepochs=sum(stages), stage_1_epochs=one, stage_2_epochs=two, stage_3_epochs=three, **named)
    assert values == sorted(values)
    assert all(0 <= value <= 1 for value in values)
    assert values[:one] == [0.0] * one
    assert values[one + two :] == [1.0] * three
