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
from ptycho_core.solving.priors import PRIORS
from ptycho_core.solving.run import Freedoms, State
from ptycho_core.solving.trials import Bench

ALIKE = 2.0  # specs/solving.md, Prior: standard errors
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
    """No prior, and each weight of one in rising order until the deviance rises again.

    A prior must be significantly better than none. Of its weights the smallest is taken that is within `ALIKE` standard
    errors of the best: the stronger a prior, the more it dims what is faint.
    """
    name = "tv" if config.prior == "auto" else config.prior
    prior = PRIORS.load(name)
    if config.prior_weight is not None:
        return attrs.evolve(freedoms, prior=prior, prior_name=name, prior_weight=config.prior_weight)
    none: Candidate | None = None
    if config.prior == "auto":
        none, _ = bench.tried("none", state, freedoms)
        yield _prior_trial(none, math.nan, kept=False)
    tried: list[tuple[float, Candidate]] = []
    for weight in prior.weights:
        drawn = attrs.evolve(freedoms, prior=prior, prior_name=name, prior_weight=weight)
        result, _ = bench.tried(f"{name} {weight:g}", state, drawn)
        yield _prior_trial(result, math.nan if none is None else margin(result, none), kept=False)
        before = tried[-1][1] if tried else none
        tried.append((weight, result))
        if before is not None and margin(result, before) <= -ALIKE:
            break
    best = min((result for _, result in tried), key=lambda result: result.mean_deviance)
    weight, chosen = next((weight, result) for weight, result in tried if not margin(best, result) > ALIKE)
    if none is not None and not margin(chosen, none) >= SIGNIFICANT:
        yield _prior_trial(none, math.nan, kept=True)
        return freedoms
    yield _prior_trial(chosen, math.nan if none is None else margin(chosen, none), kept=True)
    return attrs.evolve(freedoms, prior=prior, prior_name=name, prior_weight=weight)


def _prior_trial(result: Candidate, by: float, *, kept: bool) -> Trial:
    return Trial(
        question="prior",
        candidate=result.name,
        deviance=result.mean_deviance,
        margin=by,
        kept=kept,
        facts=result.facts,
    )
