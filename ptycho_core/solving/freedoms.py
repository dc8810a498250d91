"""What is refined beside the object, and how it is drawn to a prior: what lowers the held-out deviance earns its place.

Every question is answered by short runs from the same state. A yes must be significant; a table of what was tried is
kept (specs/solving.md, Choices).
"""

from __future__ import annotations

import math
from collections.abc import Generator

import attrs

from ptycho_core.settings.solving import MOST_MODES, SolveConfig
from ptycho_core.solving.choices import SIGNIFICANT, Candidate, Trial, margin
from ptycho_core.solving.modes import with_modes
from ptycho_core.solving.priors import prior_named
from ptycho_core.solving.run import Freedoms, State
from ptycho_core.solving.trials import Bench

ALIKE = 2.0  # specs/solving.md, Prior: standard errors
AUTO = ("tv", "learned", "alternating")  # specs/solving.md, Prior: in this order
KEPT, NOT_USED = "contrast kept", "not used"
LEAST_GAIN = 0.02  # specs/solving.md, Choices: of the deviance, for one more mode, which takes its time in every step


@attrs.frozen(eq=False)
class Chosen:
    """What the main run goes on with."""

    freedoms: Freedoms
    modes: int


def stated(config: SolveConfig, modes: int) -> Freedoms:
    """The freedoms that a configuration names; nothing where it leaves them to be found out."""
    refined = config.refined or ()
    return Freedoms(
        probe="probe" in refined or (config.mode_count or modes) > modes,
        positions="positions" in refined,
        intensity="intensity" in refined,
    )


def tried_freedoms(bench: Bench, state: State, config: SolveConfig) -> Generator[Trial, None, Chosen]:
    """Probe, further modes, intensity and positions, those that are left to be found out, one after the other."""
    modes = config.mode_count or len(state.probe)
    state = attrs.evolve(state, probe=with_modes(state.probe, modes))
    kept = stated(config, len(state.probe))
    best, _ = bench.tried("nothing refined" if config.refined is None else "as stated", state, kept)
    yield Trial(
        question="freedoms",
        candidate=best.name,
        deviance=best.mean_deviance,
        margin=float("nan"),
        kept=True,
        facts=best.facts,
    )

    def compare(name: str, tried: Candidate, least_gain: float = 0.0) -> Trial:
        by = margin(tried, best)
        gain = 1 - tried.mean_deviance / best.mean_deviance
        good = by >= SIGNIFICANT and gain >= least_gain
        return Trial(
            question="freedoms", candidate=name, deviance=tried.mean_deviance, margin=by, kept=good, facts=tried.facts
        )

    if config.refined is None:
        tried, _ = bench.tried("probe", state, attrs.evolve(kept, probe=True))
        trial = compare("probe", tried)
        yield trial
        if trial.kept:
            best, kept = tried, attrs.evolve(kept, probe=True)
    if config.mode_count is None and (config.refined is None or "probe" in config.refined):
        for count in range(len(state.probe) + 1, MOST_MODES + 1):
            more = attrs.evolve(state, probe=with_modes(state.probe, count))
            tried, _ = bench.tried(f"{count} modes", more, attrs.evolve(kept, probe=True))
            trial = compare(f"{count} modes", tried, LEAST_GAIN)
            yield trial
            if not trial.kept:
                break
            best, kept, state = tried, attrs.evolve(kept, probe=True), more
    if config.refined is None:
        for name in ("intensity", "positions"):
            freer = attrs.evolve(kept, intensity=True) if name == "intensity" else attrs.evolve(kept, positions=True)
            tried, _ = bench.tried(name, state, freer)
            trial = compare(name, tried)
            yield trial
            if trial.kept:
                best, kept = tried, freer
    return Chosen(kept, len(state.probe))


def tried_priors(
    bench: Bench, state: State, freedoms: Freedoms, config: SolveConfig
) -> Generator[Trial, None, Freedoms]:
    """No prior, and each of those that there are, with each of its weights in rising order until the deviance rises.

    A prior must be significantly better than none. Of those within one standard error of the best it is the one that
    leaves most of a faint disk, since the deviance does not see what is faint.
    """
    if config.prior != "auto":
        prior = prior_named(config.prior)
        named = attrs.evolve(freedoms, prior=prior, prior_name=config.prior)
        weight = config.prior_weight or (prior.weights[0] if len(prior.weights) == 1 else None)
        if weight is not None:
            return attrs.evolve(named, prior_weight=weight)
        tried = yield from _tried_weights(bench, state, named, None, None)
        chosen = _weakest(tried)
        yield _prior_trial(chosen[1], math.nan, kept=True)
        return chosen[0]
    none, before = bench.tried("none", state, freedoms)
    yield _prior_trial(none, math.nan, kept=False)
    best: list[tuple[Freedoms, Candidate]] = []
    for name in AUTO:
        named = attrs.evolve(freedoms, prior=prior_named(name), prior_name=name)
        tried = yield from _tried_weights(bench, state, named, none, before)
        if tried:
            best.append(_weakest(tried))
    least = min(best, key=lambda each: each[1].mean_deviance, default=None)
    if least is None or not margin(least[1], none) >= SIGNIFICANT:
        yield _prior_trial(none, math.nan, kept=True)
        return freedoms
    alike = [each for each in best if not margin(least[1], each[1]) > 1]
    free, chosen_one = max(alike, key=lambda each: float(each[1].facts[KEPT]))
    yield _prior_trial(chosen_one, margin(chosen_one, none), kept=True)
    return free


def _tried_weights(
    bench: Bench, state: State, named: Freedoms, none: Candidate | None, before: State | None
) -> Generator[Trial, None, list[tuple[Freedoms, Candidate]]]:
    """Each weight of one prior until the deviance rises; not one that the object does not suit.

    none, before: the trial without a prior, and what it came to; the contrast that is kept is worked out of it.
    """
    prior, tried = named.prior, []
    assert prior is not None
    last = none
    for weight in prior.weights:
        drawn = attrs.evolve(named, prior_weight=weight)
        name = named.prior_name if len(prior.weights) == 1 else f"{named.prior_name} {weight:g}"
        facts = {} if before is None else {KEPT: bench.contrast_kept(before, prior, weight)}
        result, _ = bench.tried(name, state, drawn, **facts)
        yield _prior_trial(result, math.nan if none is None else margin(result, none), kept=False)
        if NOT_USED not in result.facts:
            tried.append((drawn, result))
        if last is not None and margin(result, last) <= -ALIKE:
            break
        last = result
    return tried


def _weakest(tried: list[tuple[Freedoms, Candidate]]) -> tuple[Freedoms, Candidate]:
    """Of the weights of one prior the smallest that is within `ALIKE` standard errors of the best."""
    best = min((result for _, result in tried), key=lambda result: result.mean_deviance)
    return next(each for each in tried if not margin(best, each[1]) > ALIKE)


def _prior_trial(result: Candidate, by: float, *, kept: bool) -> Trial:
    return Trial(
        question="prior",
        candidate=result.name,
        deviance=result.mean_deviance,
        margin=by,
        kept=kept,
        facts=result.facts,
    )
