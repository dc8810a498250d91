"""Means of loss terms are those of all batches, however these are put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_core.engine.steps import LossMeans

terms = st.fixed_dictionaries({name: st.floats(-1e9, 1e9) for name in ("total", "nll")})
batches = st.lists(st.tuples(st.integers(1, 64), terms), min_size=1, max_size=20)


def means_of(parts: list[tuple[int, dict[str, float]]]) -> LossMeans:
    means = LossMeans()
    for groups, values in parts:
        means.add(groups, values)
    return means


def test_terms_are_means_weighted_by_the_groups_of_a_batch() -> None:
    parts = [(4, {"total": 1.0, "nll": 2.0}), (4, {"total": 2.0, "nll": 0.0}), (2, {"total": 9.0, "nll": 1.0})]
    assert means_of(parts).means() == {"total": pytest.approx(3.0), "nll": pytest.approx(1.0)}


def test_of_several_scans_the_total_is_known_by_scan() -> None:
    means, other = LossMeans(), LossMeans()
    means.add(4, {"total": 1.0, "nll": 2.0}, 1)
    means.add(2, {"total": 4.0, "nll": 5.0}, 2)
    other.add(2, {"total": 3.0, "nll": 0.0}, 1)
    assert other.means() == {"total": 3.0, "nll": 0.0, "scan1/total": 3.0}
    means.merge(other)
    assert means.means() == {
        "total": pytest.approx(18 / 8),
        "nll": pytest.approx(18 / 8),
        "scan1/total": pytest.approx(10 / 6),
        "scan2/total": pytest.approx(4.0),
    }


@given(parts=batches, data=st.data())
def test_merged_parts_equal_the_whole_to_the_last_bit_in_any_order_and_split(
    parts: list[tuple[int, dict[str, float]]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(parts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(parts)), max_size=4)))
    merged = LossMeans()
    for start, end in zip([0, *cuts], [*cuts, len(parts)], strict=True):
        merged.merge(means_of(shuffled[start:end]))
    assert merged.means() == means_of(parts).means()


def test_a_term_is_not_looked_at_before_the_means_are_asked_for() -> None:
    class OnADevice:
        waited = False

        def __float__(self) -> float:
            self.waited = True
            return 3.0

    term, means = OnADevice(), LossMeans()
    means.add(2, {"total": term})
    assert not term.waited
    assert means.means() == {"total": 3.0}
