"""Several processes, as threads, with the reference engine: the core shares out, sums up and decides alike."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.processes import Processes, agreed, check_alike
from ptycho_core.errors import Cancelled, DataError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.loop import Solving
from ptycho_core.vocabulary import Weights
from tests.contract.cases import make_scan
from tests.contract.process_cases import WORKS, alone, differences, found
from tests.processes import together

PRECISION = "64-true"


@functools.cache
def of_one(work: str) -> Weights:
    return alone(ReferenceEngine(), work, PRECISION)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("work", WORKS)
def test_any_number_of_processes_makes_what_one_makes(work: str, size: int) -> None:
    engine = ReferenceEngine()
    with found(engine):
        several = together(size, lambda processes: WORKS[work](engine, PRECISION, processes))
    for theirs in several:
        assert differences(theirs, of_one(work), PRECISION) == []
    for name, array in several[0].items():
        np.testing.assert_array_equal(several[-1][name], array, err_msg=name)


def test_means_are_weighted_and_a_process_with_nothing_counts_nothing() -> None:
    values, weights = [np.array([1.0, 2.0]), np.array([4.0, 8.0]), np.array([99.0, 99.0])], [3, 1, 0]

    def work(processes: Processes) -> np.ndarray:
        return processes.mean(values[processes.rank], weights[processes.rank])

    for mean in together(3, work):
        np.testing.assert_allclose(mean, [1.75, 3.5])


def test_what_the_first_process_says_is_known_to_all_and_what_all_say_comes_in_their_order() -> None:
    def work(processes: Processes) -> tuple[object, list[object], bool]:
        own = {"rank": processes.rank, "loss": 0.1 + processes.rank, "text": "x" * 3000 * processes.rank}
        return processes.tell(own), processes.told_by_all(own["text"]), processes.any(processes.rank == 1)

    for told, by_all, wished in together(3, work):
        assert told == {"rank": 0, "loss": 0.1, "text": ""}
        assert by_all == ["", "x" * 3000, "x" * 6000]
        assert wished


def test_a_wish_to_stop_is_followed_by_all_at_one_point_and_points_that_come_fast_take_few_messages() -> None:
    def work(processes: Processes) -> tuple[int, int]:
        asked = iter(range(10**6))
        stop = agreed(processes, lambda: next(asked) >= 3000 and processes.rank == 1)
        points = next(point for point in range(10**6) if stop())
        return points, processes.sums  # type: ignore[attr-defined]

    (points, sums), other = together(2, work)
    assert other == (points, sums)
    assert points >= 3000
    assert sums < points / 10


def test_a_solve_that_one_process_wishes_to_end_gives_all_of_them_its_last_whole_sweep() -> None:
    engine = ReferenceEngine()
    scan = make_scan(32, 2, 2e4, True).subset(slice(0, 6))
    config = SolveConfig(sweeps=10**6, batches=2, refine="none", prior="none", nphotons=2e4, split_half=False)

    def work(processes: Processes) -> tuple[int, np.ndarray]:
        swept: list[object] = []
        wishes = {"should_stop": lambda: len(swept) > 1 and processes.rank == 1, "processes": processes}
        run = Solving(scan, config, execution=ExecutionConfig(), **wishes)  # type: ignore[arg-type]
        with pytest.raises(Cancelled):
            swept.extend(event for event in run if event.kind == "sweep")
        return len(run.history), run.result().object_field

    with found(engine):
        (sweeps, field), (others, same) = together(2, work)
    assert sweeps == others > 1
    np.testing.assert_array_equal(field, same)


def test_processes_that_have_other_scans_are_an_error_that_names_the_first_one_that_differs() -> None:
    def work(processes: Processes) -> None:
        check_alike(processes, "scan.npz", {"probe": "0" * 64, "frames": str(processes.rank // 2) * 64})

    with pytest.raises(DataError, match=r"scan.npz: frames: expected the same in all 3 processes.*in process 3"):
        together(3, work)


def test_an_output_folder_that_one_process_does_not_see_is_an_error(tmp_path: Path) -> None:
    from ptycho_core.runs.folder import following, leading

    def work(processes: Processes) -> None:
        folder = tmp_path if processes.rank < 2 else tmp_path / "other"
        with (leading if processes.first else following)(folder, processes):
            raise AssertionError("the block is not reached")

    with pytest.raises(DataError, match=r"a folder that all 3 processes see.*in process 3"):
        together(3, work)
    assert list(tmp_path.iterdir()) == []
