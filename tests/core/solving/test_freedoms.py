"""What earns its place: the rules by which freedoms, modes and priors are kept."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.scans.scan import Scan
from ptycho_core.solving.choices import SIGNIFICANT, margin
from ptycho_core.solving.freedoms import Chosen, stated, tried_freedoms, tried_priors
from ptycho_core.solving.problem import begun, scaled
from ptycho_core.solving.run import Freedoms, State
from ptycho_core.solving.start import flat
from tests.core.solving.conftest import small
from tests.core.solving.fakes import FakeBench, answered, candidate, fake_bench, kept

NOTHING = "nothing refined"


@pytest.fixture
def state(solved_scan: Scan) -> State:
    return flat(begun(solved_scan, small()), scaled(solved_scan, solved_scan.probe))


def bench_of(scan: Scan, **deviances: float) -> FakeBench:
    names = {name.replace("_", " ").strip(): value for name, value in deviances.items()}
    return fake_bench(begun(scan, small()), names)


def test_the_fakes_differ_by_standard_errors_of_about_one() -> None:
    assert margin(candidate("a", 1000), candidate("b", 1010)) == pytest.approx(10, rel=0.3)


# -- freedoms ----------------------------------------------------------------------------------------------------------


def freedoms(scan: Scan, state: State, deviances: dict[str, float], **config: object) -> tuple[Chosen, list[str]]:
    bench = fake_bench(begun(scan, small()), deviances)
    chosen, trials = answered(tried_freedoms(bench, state, small(**config)))
    assert bench.names == [trial.candidate for trial in trials]
    return chosen, kept(trials)


def test_everything_that_lowers_the_deviance_is_kept(solved_scan: Scan, state: State) -> None:
    deviances = {NOTHING: 2000, "probe": 1500, "2 modes": 1300, "3 modes": 1290, "intensity": 1250, "positions": 1200}
    chosen, names = freedoms(solved_scan, state, deviances, refine="auto", modes="auto")
    assert chosen.modes == 2  # a third would lower it by 10 standard errors and less than 2 %
    assert chosen.freedoms == Freedoms(probe=True, intensity=True, positions=True)
    assert names == [NOTHING, "probe", "2 modes", "intensity", "positions"]


def test_what_lowers_it_by_less_than_five_standard_errors_is_not_kept(solved_scan: Scan, state: State) -> None:
    little = SIGNIFICANT * 0.6
    deviances = dict.fromkeys(("probe", "2 modes", "intensity", "positions"), 1000 - little)
    chosen, names = freedoms(solved_scan, state, {NOTHING: 1000, **deviances}, refine="auto", modes="auto")
    assert (chosen.freedoms, chosen.modes, names) == (Freedoms(), 1, [NOTHING])


def test_each_is_asked_beside_what_was_kept_before(solved_scan: Scan, state: State) -> None:
    bench = bench_of(solved_scan, nothing_refined=2000, probe=1000, intensity=1500, positions=900)
    chosen, _ = answered(tried_freedoms(bench, state, small(refine="auto", modes=1)))
    assert [tried for _, _, tried, _ in bench.asked] == [
        Freedoms(),
        Freedoms(probe=True),
        Freedoms(probe=True, intensity=True),
        Freedoms(probe=True, positions=True),
    ]
    assert chosen.freedoms == Freedoms(probe=True, positions=True)


def test_more_modes_are_tried_from_the_modes_of_the_probe(solved_scan: Scan, state: State) -> None:
    deviances = {"as stated": 2000, "2 modes": 1000, "3 modes": 500, "4 modes": 600}
    chosen, names = freedoms(solved_scan, state, deviances, refine="probe", modes="auto")
    assert (chosen.modes, names) == (3, ["as stated", "2 modes", "3 modes"])
    assert chosen.freedoms == Freedoms(probe=True)


def test_there_are_eight_modes_at_most(solved_scan: Scan, state: State) -> None:
    deviances = {"as stated": 2.0**20, **{f"{count} modes": 2.0 ** (20 - count) for count in range(2, 9)}}
    chosen, _ = freedoms(solved_scan, state, deviances, refine="probe", modes="auto")
    assert chosen.modes == 8


def test_what_is_stated_is_not_asked(solved_scan: Scan, state: State) -> None:
    chosen, names = freedoms(solved_scan, state, {"as stated": 1000}, refine="positions", modes="auto")
    assert (chosen.freedoms, chosen.modes, names) == (Freedoms(positions=True), 1, ["as stated"])


def test_more_modes_than_the_probe_has_are_refined() -> None:
    assert stated(small(modes=2), 1).probe
    assert not stated(small(modes=2), 2).probe


# -- priors ------------------------------------------------------------------------------------------------------------


NAMES = ("none", "tv 0.02", "tv 0.05", "tv 0.1", "tv 0.2")
LAST = ["learned", "alternating"]


def chosen_prior(
    scan: Scan, state: State, deviances: list[float], learned: float = 2000, alternating: float = 2000, **more: Any
) -> tuple[str, float | None, list[str]]:
    """Name and weight, and what was tried."""
    known = {**dict(zip(NAMES, deviances, strict=False)), "learned": learned, "alternating": alternating}
    settings = {name: more.pop(name) for name in ("prior", "prior_weight") if name in more}
    bench = attrs.evolve(fake_bench(begun(scan, small()), known), **more)
    free, trials = answered(tried_priors(bench, state, Freedoms(probe=True), small(**{"prior": "auto", **settings})))
    assert free.probe
    assert len(kept(trials)) == (0 if not trials else 1)
    return free.prior_name, free.prior_weight if free.prior is not None else None, bench.names


def test_no_prior_where_none_lowers_the_deviance(solved_scan: Scan, state: State) -> None:
    assert chosen_prior(solved_scan, state, [1000, 1010, 1020]) == ("none", None, ["none", "tv 0.02", *LAST])
    assert chosen_prior(solved_scan, state, [1000, 997, 1020], learned=996)[:2] == ("none", None)


def test_the_weight_of_the_least_deviance(solved_scan: Scan, state: State) -> None:
    name, weight, names = chosen_prior(solved_scan, state, [1000, 900, 800, 700, 750])
    assert (name, weight, names[-3]) == ("tv", 0.1, "tv 0.2")


def test_no_stronger_prior_is_tried_once_the_deviance_rises(solved_scan: Scan, state: State) -> None:
    _, weight, names = chosen_prior(solved_scan, state, [1000, 900, 950])
    assert (weight, names) == (0.02, ["none", "tv 0.02", "tv 0.05", *LAST])


def test_of_weights_that_fit_alike_the_smallest_is_taken(solved_scan: Scan, state: State) -> None:
    assert chosen_prior(solved_scan, state, [1000, 900, 850.5, 850, 851])[1] == 0.05


def test_the_prior_of_the_least_deviance(solved_scan: Scan, state: State) -> None:
    for name, others in {"tv": (910, 920), "learned": (890, 895), "alternating": (890, 880)}.items():
        chosen = chosen_prior(solved_scan, state, [1000, 900, 950], *others)
        assert chosen[:2] == (name, 0.02 if name == "tv" else 1.0)


def test_of_priors_that_fit_alike_the_one_that_leaves_most_of_what_is_faint(solved_scan: Scan, state: State) -> None:
    alike: dict[str, Any] = {"learned": 900.2, "alternating": 899.9}
    for contrast, name in (([0.5, 0.9, 0.8], "tv"), ([0.5, 0.4, 0.9], "alternating"), ([0.5, 0.95, 0.9], "learned")):
        kept_ = [*contrast[:1], 0.1, *contrast[1:]] if name != "tv" else [0.95, 0.1, 0.9, 0.8]
        assert chosen_prior(solved_scan, state, [1000, 900, 950], **alike, kept=kept_)[0] == name
    worse = chosen_prior(solved_scan, state, [1000, 900, 950], learned=905, kept=[0.5, 0.1, 0.9, 0.9])
    assert worse[0] == "tv"


def test_a_prior_that_the_object_does_not_suit_is_not_taken(solved_scan: Scan, state: State) -> None:
    unsuited = ("learned", "alternating")
    assert chosen_prior(solved_scan, state, [1000, 900, 950], 500, 500, not_used=unsuited)[0] == "tv"
    assert chosen_prior(solved_scan, state, [1000, 1010], 500, 500, not_used=unsuited)[0] == "none"


def test_a_prior_that_is_named_is_not_compared_with_none(solved_scan: Scan, state: State) -> None:
    _, weight, names = chosen_prior(solved_scan, state, [np.nan, 1000, 900, 950], prior="tv")
    assert (weight, names) == (0.05, ["tv 0.02", "tv 0.05", "tv 0.1"])
    assert chosen_prior(solved_scan, state, [], prior="learned") == ("learned", 1.0, [])


def test_a_weight_that_is_given_is_not_asked(solved_scan: Scan, state: State) -> None:
    assert chosen_prior(solved_scan, state, [], prior="tv", prior_weight=0.07) == ("tv", 0.07, [])


def test_a_state_is_the_same_for_every_candidate(solved_scan: Scan, state: State) -> None:
    bench = bench_of(solved_scan, none=1000, tv=0)
    bench = attrs.evolve(
        bench, deviances={"none": 1000, "tv 0.02": 900, "tv 0.05": 1000, "learned": 900, "alternating": 900}
    )
    answered(tried_priors(bench, state, Freedoms(), small(prior="auto")))
    assert {id(begun_) for _, begun_, _, _ in bench.asked} == {id(state)}
