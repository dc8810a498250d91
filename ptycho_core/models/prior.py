"""A prior that was learned, `prior.h5.zip`, and where its learning stands, `teaching.h5.zip` (specs/prior.md)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core.engine.checks import check_layers, check_optimizer_state
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ArchiveError
from ptycho_core.models.container import (
    PRIOR,
    TEACHING,
    decoding,
    from_arrays,
    from_history_csv,
    history_csv,
    located,
    read_container,
    to_arrays,
    to_json,
    whole_number,
    write_container,
)
from ptycho_core.networks.table import Table
from ptycho_core.networks.unet import canvas_unet
from ptycho_core.settings.fields import from_mapping, to_mapping
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.vocabulary import Weights

PRIOR_NAME, TEACHING_NAME = PRIOR.name, TEACHING.name
CHANNELS = 3  # specs/prior.md, Input
SEEN = ("noise", "real", "imaginary")  # specs/prior.md, Range
MOST_LEVELS, MOST_CHANNELS = 5, 4096


@attrs.frozen(eq=False, kw_only=True)
class LearnedPrior:
    """channels, weights: of `canvas_unet(3, channels)`. seen: least and largest of the canvases that it learned from.

    learned: how, as plain values, for the reader alone. lessons: from how many canvases. history: a row per epoch.
    engine: what taught it.
    """

    channels: tuple[int, ...]
    weights: Weights
    seen: Mapping[str, tuple[float, float]]
    learned: Mapping[str, Any]
    lessons: int
    history: list[dict[str, float]]
    engine: EngineInfo

    @property
    def table(self) -> Table:
        """The network."""
        return canvas_unet(CHANNELS, self.channels)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all; returns its path. A path without an ending is a folder."""
        facts = {"engine": attrs.asdict(self.engine), "lessons": self.lessons}
        return write_container(path, PRIOR, facts, self.members())

    def members(self) -> dict[str, bytes]:
        """What the file holds."""
        told = {"channels": list(self.channels), "seen": dict(self.seen), "learned": dict(self.learned)}
        return {
            "config.json": to_json(told),
            "weights.safetensors": from_arrays(self.weights),
            "history.csv": history_csv(self.history).encode(),
        }


@attrs.frozen(eq=False, kw_only=True)
class TeachingCheckpoint:
    """All that learning needs to go on, but its lessons, whose digest it has.

    prior: as it is after the last epoch. round: the one that this epoch was in, from 1.
    """

    prior: LearnedPrior
    round: int
    config: PriorConfig
    optimizer: Weights
    digest: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all; returns its path. A path without an ending is a folder."""
        prior = self.prior
        members = {**prior.members(), "optimizer.safetensors": from_arrays(self.optimizer)}
        members["run.json"] = to_json(to_mapping(self.config))
        facts = {"engine": attrs.asdict(prior.engine), "lessons": prior.lessons, "round": self.round}
        facts["digest"] = self.digest
        return write_container(path, TEACHING, facts, members)


def load_prior(path: str | os.PathLike[str]) -> LearnedPrior:
    """The prior in a file, or in the folder that holds `prior.h5.zip`. Raises ArchiveError."""
    target = located(path, PRIOR)
    manifest, members = read_container(target, PRIOR)
    with decoding(target, PRIOR):
        return _prior(manifest, members)


def load_teaching(path: str | os.PathLike[str]) -> TeachingCheckpoint:
    """The checkpoint in a file, or in the folder that holds `teaching.h5.zip`. Raises ArchiveError."""
    target = located(path, TEACHING)
    manifest, members = read_container(target, TEACHING)
    with decoding(target, TEACHING):
        prior = _prior(manifest, members)
        optimizer = to_arrays(members["optimizer.safetensors"], "optimizer state")
        moments = ("first_moment", "second_moment")
        like = {f"{moment}/{name}": array for moment in moments for name, array in prior.weights.items()}
        check_optimizer_state(optimizer, {"step": np.zeros(()), **like})
        config = from_mapping(PriorConfig, json.loads(members["run.json"]), source="run.json")
        return TeachingCheckpoint(
            prior=prior,
            round=whole_number(manifest["round"]),
            config=config,
            optimizer=optimizer,
            digest=str(manifest["digest"]),
        )


def _prior(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> LearnedPrior:
    told = json.loads(members["config.json"])
    channels = tuple(whole_number(count) for count in told["channels"])
    if not 2 <= len(channels) <= MOST_LEVELS or not all(0 < count <= MOST_CHANNELS for count in channels):
        raise ArchiveError("config.json", "channels", expected="two to five whole numbers", received=channels)
    weights = to_arrays(members["weights.safetensors"], "weights")
    check_layers(canvas_unet(CHANNELS, channels), weights)
    seen = {str(name): (float(low), float(high)) for name, (low, high) in told["seen"].items()}
    finite = all(math.isfinite(low) and low <= high < math.inf for low, high in seen.values())
    if set(seen) != set(SEEN) or not finite:
        expected = f"two rising numbers for each of {', '.join(SEEN)}"
        raise ArchiveError("config.json", "seen", expected=expected, received=seen)
    return LearnedPrior(
        channels=channels,
        weights=weights,
        seen=seen,
        learned=dict(told["learned"]),
        lessons=whole_number(manifest["lessons"]),
        history=from_history_csv(members["history.csv"]),
        engine=EngineInfo.from_mapping(manifest["engine"]),
    )


def described(config: PriorConfig) -> dict[str, Any]:
    """How a prior was learned, as plain values, without folders of the machine where it was."""
    return {name: value for name, value in to_mapping(config).items() if name not in ("scans_dir", "output_dir")}
