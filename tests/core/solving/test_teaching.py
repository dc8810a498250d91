"""A prior learns: its lessons, its crops, and a run that is stopped and goes on (specs/prior.md)."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.errors import Cancelled, ConfigurationError, DataError, TrainingError
from ptycho_core.models.prior import LearnedPrior, load_teaching
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving import teaching
from ptycho_core.solving.lessons import Lesson, again, from_counts, load_lesson, with_truth
from ptycho_core.solving.teaching import Teaching, Viewed, crops
from tests.core.solving.conftest import small

ENGINE, EXECUTION = ReferenceEngine(), ExecutionConfig()


def short(**changes: object) -> PriorConfig:
    usual = {"epochs": 2, "steps": 2, "batch_size": 2, "crop_px": 16, "widths": "3,4", "learning_rate": 1e-2}
    return PriorConfig(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(N=16, positions=60, step_px=3, object="cells", photons=3e3, seed=5)


@pytest.fixture(scope="module")
def lesson(scan: Scan) -> Lesson:
    return with_truth(scan, small(), ENGINE, EXECUTION)


def taught(lessons: list[list[Lesson]], config: PriorConfig, **more: object) -> Teaching:
    run = Teaching(lessons, config, ENGINE, EXECUTION, **more)  # type: ignore[arg-type]
    for _ in run:
        pass
    return run


def assert_same(one: LearnedPrior, other: LearnedPrior) -> None:
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in each.history] for each in (one, other)]
    assert rows[0] == rows[1]


# -- lessons -------------------------------------------------------------------------------------------------------


def test_a_lesson_has_the_truth_where_the_canvas_has_the_object(scan: Scan, lesson: Lesson) -> None:
    view = Viewed.of(lesson).view
    assert lesson.canvas.shape == lesson.wanted.shape == lesson.counts.shape
    known = view.lit & (lesson.wanted != 0)
    assert (known == view.lit).all()
    a, b = (each[known] - each[known].mean() for each in (lesson.canvas, lesson.wanted))
    assert abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b) > 0.6
    assert np.median(lesson.counts[known]) == pytest.approx(3e3 * 60 / known.sum(), rel=0.5)


def test_a_lesson_is_read_as_it_was_written(lesson: Lesson, tmp_path: Path) -> None:
    read = load_lesson(lesson.save(tmp_path / "one.npz"))
    assert all(np.array_equal(getattr(read, name), getattr(lesson, name)) for name in ("canvas", "wanted", "counts"))
    np.savez(tmp_path / "other.npz", canvas=lesson.canvas)
    with pytest.raises(DataError, match=r"other.npz: expected canvas, wanted, counts of one shape; received canvas"):
        load_lesson(tmp_path / "other.npz")


def test_a_scan_without_truth_is_no_lesson(scan: Scan) -> None:
    with pytest.raises(DataError, match=r"objectGuess: expected ground truth; received none\..*--from-scans"):
        with_truth(attrs.evolve(scan, object_field=None), small(), ENGINE, EXECUTION)


def test_without_a_truth_fewer_photons_are_compared_with_all(scan: Scan) -> None:
    bare = attrs.evolve(scan, object_field=None)
    lessons = list(from_counts(bare, small(), ENGINE, EXECUTION, np.random.default_rng(1)))
    assert len(lessons) == 4
    all_photons = with_truth(scan, small(refine="probe"), ENGINE, EXECUTION).counts.sum()
    parts = [each.counts.sum() / all_photons for each in lessons]
    assert all(0.0005 < part < 0.4 for part in parts) and len({round(part, 6) for part in parts}) == 4
    assert all(np.array_equal(each.wanted, lessons[0].wanted) for each in lessons)
    with pytest.raises(DataError, match=r"dose: expected patterns in photons"):
        next(from_counts(attrs.evolve(bare, dose_known=False), small(), ENGINE, EXECUTION, np.random.default_rng(1)))


def test_a_second_round_changes_the_canvas_alone(scan: Scan, lesson: Lesson) -> None:
    prior = taught([[lesson]], short(learning_rate=1e-1)).prior
    later = again(scan, lesson, prior, small(), ENGINE, EXECUTION)
    assert np.array_equal(later.wanted, lesson.wanted) and np.array_equal(later.counts, lesson.counts)
    assert np.abs(later.canvas - lesson.canvas).max() > 0.01


# -- crops ---------------------------------------------------------------------------------------------------------


def test_what_is_wanted_makes_the_crop_the_truth_to_a_factor(lesson: Lesson) -> None:
    """Turned and conjugated alike, so that it also holds after that."""
    images = crops([Viewed.of(attrs.evolve(lesson, wanted=lesson.wanted * 5j))], 20, 16, np.random.default_rng(0))
    truth = lesson.wanted
    for maps, wanted, weight in zip(images.maps, images.wanted, images.weight, strict=True):
        assert weight.mean() >= 0.5 and set(np.unique(weight)) <= {0, 1}
        assert not wanted[weight == 0].any()
        result = maps[..., 0] + 1 + 1j * maps[..., 1] + wanted[..., 0] + 1j * wanted[..., 1]
        ratios = []
        for turns in range(4):
            back = np.rot90(result, -turns)
            for field in (back, back.conj()):
                for y in range(truth.shape[0] - 15):
                    for x in range(truth.shape[1] - 15):
                        part, mask = truth[y : y + 16, x : x + 16], np.rot90(weight, -turns) > 0
                        if not (part[mask] != 0).all():
                            continue
                        ratio = field[mask] / part[mask]
                        ratios.append(float(np.std(ratio) / abs(np.mean(ratio))))
        assert min(ratios) < 1e-4
        break


def test_crops_are_turned_conjugated_and_drawn_from_all_lessons(lesson: Lesson) -> None:
    striped = np.ones(lesson.canvas.shape, np.complex64)
    striped[:, ::2] = 1 + 1j
    lessons = [Viewed.of(attrs.evolve(lesson, canvas=canvas)) for canvas in (striped, np.ones_like(striped))]
    images = crops(lessons, 80, 16, np.random.default_rng(0))
    imaginary = np.where(images.weight > 0, images.maps[..., 1], 0)
    flat = np.abs(imaginary).max(axis=(1, 2)) < 1e-3
    assert 0.3 < flat.mean() < 0.7
    across, down = (np.abs(np.diff(imaginary[~flat], axis=axis)).mean(axis=(1, 2)) for axis in (2, 1))
    assert 0.3 < (across > down).mean() < 0.7  # turned by a quarter, columns are rows
    real = np.where(images.weight > 0, images.maps[..., 0], 0)
    together = (real * imaginary).sum(axis=(1, 2))[~flat]
    assert 0.3 < (together > 0).mean() < 0.7  # conjugated, brighter stripes have the lower phase


# -- learning ------------------------------------------------------------------------------------------------------


def test_learning_leaves_less_of_the_error(lesson: Lesson) -> None:
    run = taught([[lesson]], short(epochs=12, steps=20, widths="8,8", learning_rate=3e-3))
    losses = [row["loss"] for row in run.history]
    assert losses[-1] < 0.9 * losses[0] < 0.85
    rates = [row["learning_rate"] for row in run.history]
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(3e-5)
    assert run.prior.seen["noise"][0] == run.prior.seen["noise"][1]
    assert run.prior.learned["widths"] == "8,8" and "output_dir" not in run.prior.learned


def test_the_same_lessons_and_seed_give_the_same_prior(lesson: Lesson) -> None:
    one, same, other = (taught([[lesson]], short(seed=seed)).prior for seed in (0, 0, 1))
    assert_same(one, same)
    assert any(not np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(lesson: Lesson, tmp_path: Path) -> None:
    config = short(epochs=3)
    whole = taught([[lesson]], config).prior
    run = Teaching([[lesson]], config, ENGINE, EXECUTION)
    next(iter(run))
    checkpoint = load_teaching(run.checkpoint().save(tmp_path))
    assert (tmp_path / "teaching.h5.zip").exists()
    assert_same(taught([[lesson]], config, resume=checkpoint).prior, whole)


def test_a_second_round_begins_where_the_first_ended(lesson: Lesson, tmp_path: Path) -> None:
    config = short()
    first = taught([[lesson]], config)
    assert [event.round for event in (first,)] == [1]
    second = Teaching([[lesson, lesson]], config, ENGINE, EXECUTION, after=first.prior)
    assert second.round == 2 and len(second.history) == 2
    events = list(second)
    assert [(event.done, event.total) for event in events] == [(3, 4), (4, 4)]
    assert events[0].learning_rate == pytest.approx(1e-2)
    again_ = Teaching([[lesson, lesson]], config, ENGINE, EXECUTION, after=first.prior)
    next(iter(again_))
    resumed = taught([[lesson, lesson]], config, resume=load_teaching(again_.checkpoint().save(tmp_path)))
    assert_same(resumed.prior, second.prior)


def test_a_run_does_not_go_on_with_other_lessons_or_settings(lesson: Lesson) -> None:
    run = taught([[lesson]], short())
    checkpoint = run.checkpoint()
    with pytest.raises(DataError, match=r"lessons: expected those that the run began with; received others"):
        taught([[lesson, lesson]], short(), resume=checkpoint)
    with pytest.raises(ConfigurationError, match=r"steps must be 2, as the run began; got 3"):
        taught([[lesson]], short(steps=3), resume=checkpoint)


def test_some_scans_are_set_aside(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "EVERY", 2)
    run = taught([[lesson, lesson], [attrs.evolve(lesson, canvas=lesson.canvas * 1.5)]], short())
    assert run.prior.lessons == 2
    assert all(0 < row["unseen"] < 10 for row in run.history)


def test_it_can_be_stopped_before_a_step(lesson: Lesson) -> None:
    answers = iter([False, True])
    run = Teaching([[lesson]], short(), ENGINE, EXECUTION, should_stop=lambda: next(answers))
    with pytest.raises(Cancelled, match="epoch 1, before step 2 of 2"):
        next(iter(run))
    with pytest.raises(TrainingError, match=r"expected a prior after a whole epoch; received no whole epoch"):
        _ = run.prior


def test_a_loss_that_is_no_number_ends_the_run(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Teaching([[lesson]], short(), ENGINE, EXECUTION)
    monkeypatch.setattr(run._network, "train_step", lambda images, rate: np.nan)
    with pytest.raises(TrainingError, match=r"a loss of nan in epoch 1\. Lower learning_rate"):
        next(iter(run))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"crop_px": 18, "widths": "2,2,2"},
            r"crop_px must be a multiple of 4, for 3 levels; got 18\. Set crop_px to 16",
        ),
        ({"crop_px": 400}, r"lessons: expected a canvas of 400 x 400 pixels; received 1 scans"),
    ],
)
def test_crops_that_do_not_fit_are_refused(lesson: Lesson, config: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigurationError, DataError), match=message):
        Teaching([[lesson]], short(**config), ENGINE, EXECUTION)
