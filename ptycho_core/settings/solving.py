"""How a scan is solved on its canvas (specs/solving.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import Check, Interval, at_least, check_effects, only, setting, what_is_set

FREEDOMS = ("probe", "positions", "intensity")
"""What may be refined beside the object."""
MOST_MODES = 8


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _refinements(value: object) -> str | None:
    """auto, none, or some of `FREEDOMS` separated by commas, none of them twice."""
    if value in ("auto", "none"):
        return None
    names = _names(value) if isinstance(value, str) else []
    if names and len(set(names)) == len(names) and set(names) <= set(FREEDOMS):
        return None
    return f"auto, none, or some of {', '.join(FREEDOMS)} separated by commas"


def refining(freedom: str) -> Check:
    """A check that something may be refined."""

    def check(value: object) -> str | None:
        refined = _names(value) if isinstance(value, str) else []
        return None if value == "auto" or freedom in refined else f"auto or a list with {freedom}"

    return check


def _named(value: object) -> str | None:
    """A check that a prior is named."""
    return "the name of a prior" if value in ("auto", "none", None, 0) else None


@explained
@attrs.define(kw_only=True)
class SolveConfig:
    """How a scan is solved: object, probe, positions and intensities fitted to the patterns, without a network."""

    __repr__ = what_is_set

    data_file: Path | None = setting(None, "Scan to solve.")
    output_dir: Path = setting(Path("solving_outputs"), "Folder to write to; created if missing.", common=True)
    backend: str = setting("auto", "Engine: auto, torch, tensorflow or another registered one.", name=True, common=True)
    sweeps: int = setting(20, "Passes over the frames.", at_least(1), common=True)
    batches: int = setting(32, "Steps of the optimiser per sweep, whatever the number of frames.", at_least(1))
    loss: Literal["poisson", "amplitude"] = setting(
        "poisson", "What is fitted: the counts, by their Poisson likelihood, or their square roots.", common=True
    )
    object_rate: float = setting(
        0.05, "First step size of the object, whose amplitude is about 1.", at_least(0, exclusive=True)
    )
    probe_rate: float = setting(
        0.05,
        "First step size of the probe, in units of its root mean square.",
        at_least(0, exclusive=True),
        beside={"refine": refining("probe")},
    )
    refine: str = setting(
        "auto",
        "What is refined beside the object: a list of probe, positions, intensity (of each frame), separated by "
        "commas; none; or auto: what lowers the deviance of the held-out pixels.",
        _refinements,
        name=True,
        common=True,
    )
    modes: Literal["auto", "1", "2", "3", "4", "5", "6", "7", "8"] = setting(
        "auto",
        "Modes of the probe, at least those of the scan; auto: as many as lower the deviance of the held-out pixels.",
        common=True,
    )
    position_error_px: float = setting(
        2.0,
        "Largest error of a position that is searched for, in pixels.",
        at_least(0, exclusive=True),
        beside={"refine": refining("positions")},
    )
    held_out: float = setting(
        0.03,
        "Part of the pixels of every pattern that is never fitted; results are judged by them.",
        Interval(0, 0.5, above=True, words="a number > 0 and <= 0.5"),
        common=True,
    )
    prior: str = setting(
        "auto",
        "What is known of an object beforehand: none; tv (its total variation is small); learned (a network that came "
        "with this package, or the file of one of your own); alternating (learned, three sweeps, learned); or auto: "
        "the one that lowers the deviance of the held-out pixels.",
        spellings={name: name for name in ("auto", "none", "tv", "learned", "alternating")},
        place=True,
        common=True,
    )
    prior_weight: float | None = setting(
        None,
        "Weight of the prior; chosen by the deviance of the held-out pixels if unset.",
        at_least(0, exclusive=True),
        beside={"prior": _named},
    )
    start: str = setting(
        "flat",
        "Object to begin with: flat, or the file or folder of a reconstruction or a model.",
        place=True,
        common=True,
    )
    first_probe: Literal["given", "auto"] = setting(
        "given", "Probe to begin with: the scan's own, or auto: looked for, from the mean pattern alone.", common=True
    )
    probe_defocus: Literal["given", "auto"] = setting(
        "given",
        "Defocus of the scan's own probe: as it is, or auto: looked for around it.",
        beside={"first_probe": only("given")},
        common=True,
    )
    orientation: Literal["read", "auto"] = setting(
        "read",
        "Orientation of the patterns: as they were read, or auto: the one of eight that the patterns agree with.",
        common=True,
    )
    nphotons: float = setting(
        1e9, "Mean photons per frame where the scan's dose is unknown.", at_least(0, exclusive=True), common=True
    )
    split_half: bool = setting(
        False,
        "Solve each half of the frames by itself, too: resolution, and a calibrated map of the error.",
        common=True,
    )
    seed: int = setting(0, "Seed of the order of frames, the held-out pixels and the halves.", at_least(0), common=True)

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Refuse a field that has no effect beside the others: on construction, and when a run starts."""
        check_effects(self)

    @property
    def refined(self) -> tuple[str, ...] | None:
        """What is refined beside the object; None where that is to be found out."""
        if self.refine == "auto":
            return None
        return tuple(name for name in FREEDOMS if name in _names(self.refine))

    @property
    def mode_count(self) -> int | None:
        """The number of probe modes; None where it is to be found out."""
        return None if self.modes == "auto" else int(self.modes)
