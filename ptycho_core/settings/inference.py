"""How a scan is reconstructed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import attrs

from ptycho_core.settings.deprecated import takes_n_images
from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import at_least, check_effects, given, only, setting, what_is_set
from ptycho_core.settings.model import ModelConfig


@takes_n_images
@explained
@attrs.define(kw_only=True)
class InferenceConfig:
    """How a trained network is used on a scan."""

    __repr__ = what_is_set

    DEPRECATED: ClassVar[tuple[str, ...]] = ("n_images",)

    model: ModelConfig | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(ModelConfig))
    )
    """What the caller takes the model to be; a field that is not at its default must be as in the archive."""
    model_path: Path | None = setting(None, "Model archive, or the folder that holds it.", common=True)
    test_data_file: Path | None = setting(None, "Scan to reconstruct.")
    output_dir: Path = setting(Path("inference_outputs"), "Folder to write to; created if missing.", common=True)
    backend: str = setting(
        "auto",
        "Engine: auto takes the one that trained the model; every engine can run every model.",
        name=True,
        common=True,
    )
    n_groups: int | None = setting(
        None, "Groups to reconstruct; one for each pattern if unset.", at_least(1), common=True
    )
    n_subsample: int | None = setting(
        None, "Reconstruct this many patterns, drawn at random; all of them if unset.", at_least(1)
    )
    subsample_seed: int | None = setting(
        None, "Seed of n_subsample; `seed` if unset.", at_least(0), beside={"n_subsample": given}
    )
    neighbor_count: int = setting(4, "K: number of nearest neighbours that a group is drawn from.", at_least(1))
    neighbor_pool_size: int | None = setting(
        None,
        "Number of neighbours to draw from, in place of neighbor_count.",
        at_least(1),
        beside={"enable_oversampling": only(True)},
    )
    enable_oversampling: bool = setting(False, "Allow more groups than positions (gridsize > 1).")
    weighting: Literal["probe", "uniform"] = setting(
        "probe", "Weights of overlapping patches in the object: probe intensity, or a plain count.", common=True
    )
    middle_trim: int | None = setting(
        None,
        "Side in pixels of the central square of each patch that is placed; all of the patch if unset.",
        at_least(1),
    )
    debug: bool = setting(False, "Log what goes into each batch and what comes out.")
    seed: int = setting(0, "Seed of the groups.", at_least(0))

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Refuse a field that has no effect with the others as they are: on construction, and when a run starts."""
        check_effects(self)
