"""How a prior is learned from solved scans (specs/prior.md)."""

from __future__ import annotations

from pathlib import Path

import attrs

from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import at_least, check_effects, only, setting, what_is_set


def _widths(value: object) -> str | None:
    """Two to five whole numbers from 1, separated by commas."""
    parts = value.split(",") if isinstance(value, str) else []
    if 2 <= len(parts) <= 5 and all(part.strip().isdigit() and int(part) > 0 for part in parts):
        return None
    return "two to five whole numbers > 0 separated by commas"


@explained
@attrs.define(kw_only=True)
class PriorConfig:
    """How a prior is learned: scans are solved, and a small network learns what solving leaves."""

    __repr__ = what_is_set

    scans_dir: Path | None = setting(None, "Folder of scans to learn from.")
    output_dir: Path = setting(Path("prior"), "Folder to write to; created if missing.", common=True)
    backend: str = setting("auto", "Engine: auto, torch, tensorflow or another registered one.", name=True, common=True)
    from_scans: bool = setting(
        False,
        "Learn from measured scans without ground truth: input is a solve of thinned counts, target one of all counts.",
        common=True,
    )
    sweeps: int = setting(20, "Passes over the frames of a solve.", at_least(1))
    epochs: int = setting(
        54,
        "Epochs of a round; in each the step size is lower, along a cosine, to a hundredth.",
        at_least(1),
        common=True,
    )
    rounds: int = setting(
        2,
        "How often it is taught for so many epochs: from the second round on also by canvases that it has changed.",
        at_least(1),
        beside={"from_scans": only(False)},
    )
    steps: int = setting(100, "Steps of the optimiser per epoch.", at_least(1), common=True)
    batch_size: int = setting(8, "Crops per step.", at_least(1))
    crop_px: int = setting(96, "Side of a crop, pixels; a multiple of 16.", at_least(16))
    learning_rate: float = setting(1e-3, "First step size of Adam.", at_least(0, exclusive=True))
    widths: str = setting("24,48,96", "Channels of each level of the network, from fine to coarse.", _widths)
    seed: int = setting(0, "Seed of first weights, crops and thinning.", at_least(0), common=True)

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Refuse a field that has no effect beside the others: on construction, and when a run starts."""
        check_effects(self)

    @property
    def taught_rounds(self) -> int:
        """One, from measured scans."""
        return 1 if self.from_scans else self.rounds

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each level."""
        return tuple(int(part) for part in self.widths.split(","))
