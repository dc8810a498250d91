"""Configuration classes: every field typed, checked and explained in one place (specs/configuration.md).

The command line's flags, the files, the flat dictionaries and the reference table are all made from these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, NoReturn

import attrs

from ptycho_core.errors import ConfigurationError, NoEffectError
from ptycho_core.settings.deprecated import takes_n_images
from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import (
    DefaultBy,
    OtherThan,
    at_least,
    below_one,
    check_effects,
    fraction,
    given,
    only,
    power_of_two,
    setting,
    what_is_set,
)
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import CANVAS, ModelConfig
from ptycho_core.settings.words import is_loss_weights, loss_weights


def _large_groups(canvas: int, otherwise: int) -> DefaultBy:
    """A default that is another one for a network of a canvas, whose groups are large."""
    return DefaultBy("model.architecture", {CANVAS: canvas}, otherwise)


@takes_n_images
@explained
@attrs.define(kw_only=True)
class TrainingConfig:
    """How a network is trained.

    What is by the architecture, such as `batch_size`, is settled when a configuration is made: another model in place
    of its own does not change it.
    """

    __repr__ = what_is_set

    DEPRECATED: ClassVar[tuple[str, ...]] = ("n_images",)

    model: ModelConfig = attrs.field(factory=ModelConfig, validator=attrs.validators.instance_of(ModelConfig))
    train_data_file: Path | None = setting(
        None, "Scan to train on, or a list of scans: a .txt file, one path per line."
    )
    test_data_file: Path | None = setting(
        None, "A second scan, or a list of scans; its loss chooses the best weights.", common=True
    )
    output_dir: Path = setting(
        Path("training_outputs"), "Folder that a run writes to; created if missing.", common=True
    )
    backend: str = setting("auto", "Engine: auto, torch, tensorflow or another registered one.", name=True, common=True)
    batch_size: int = setting(_large_groups(1, 16), "Groups per batch.", power_of_two, common=True)
    accum_steps: int = setting(1, "Batches whose gradients are averaged into one step of the optimiser.", at_least(1))
    nepochs: int = setting(_large_groups(20, 50), "Passes over the groups.", at_least(1), common=True)
    n_groups: int = setting(
        _large_groups(64, 512), "Groups per epoch and scan, drawn again for each epoch.", at_least(1), common=True
    )
    neighbor_count: int = setting(4, "K: number of nearest neighbours that a group is drawn from.", at_least(1))
    neighbor_pool_size: int | None = setting(
        None,
        "Number of neighbours to draw from, in place of neighbor_count.",
        at_least(1),
        beside={"enable_oversampling": only(True)},
    )
    held_out_frames: int | None = setting(
        None,
        "Patterns of each group, of its inner half, that the network does not see and the losses are of; a quarter of "
        "the group if unset. Only where the network works on a canvas.",
        at_least(0),
    )
    enable_oversampling: bool = setting(False, "Allow more groups than positions (gridsize > 1).")
    sequential_sampling: bool = setting(
        False, "Seed the groups at the first n_groups positions instead of random ones."
    )
    n_subsample: int | None = setting(
        None, "Train on this many patterns, drawn at random; on all of them if unset.", at_least(1)
    )
    subsample_seed: int | None = setting(
        None, "Seed of n_subsample; `seed` if unset.", at_least(0), beside={"n_subsample": given}
    )
    positions_provided: bool = setting(
        True, "Use the true positions of the scan (xcoords, ycoords); otherwise the nominal ones (xcoords_start, …)."
    )
    nll_weight: float = setting(
        1.0, "Weight of the Poisson negative log likelihood of the counts.", fraction, common=True
    )
    mae_weight: float = setting(
        0.0, "Weight of the mean absolute error of the diffraction amplitude.", fraction, common=True
    )
    realspace_weight: float = setting(0.0, "Weight of the total variation of the complex object.", fraction)
    realspace_mae_weight: float = setting(0.0, "Weight of the mean absolute error against ground truth.", fraction)
    loss_weights: str | None = setting(
        None, "Weights of losses that a program has registered: NAME=WEIGHT, with commas.", is_loss_weights
    )
    stage_1_epochs: int = setting(
        0, "Epochs at the start that train on the amplitude error alone: the physics weight is 0.", at_least(0)
    )
    stage_2_epochs: int = setting(0, "Epochs after those, in which the physics weight rises from 0 to 1.", at_least(0))
    stage_3_epochs: int = setting(
        0, "Epochs at the end that train on the configured losses: the physics weight is 1.", at_least(0)
    )
    physics_weight_schedule: Literal["linear", "cosine", "exponential"] = setting(
        "cosine", "How the physics weight rises in stage 2.", beside={"stage_2_epochs": at_least(1)}
    )
    nphotons: float = setting(
        1e9, "Mean photons per pattern, where the scan's dose is unknown.", at_least(0, exclusive=True)
    )
    probe_gauge: Literal["mean", "given"] = setting(
        "mean",
        "mean: scale the probe to the mean intensity of the patterns; given: keep the scale of the probe in the scan.",
    )
    probe_trainable: bool = setting(False, "Refine the probe while the network is trained.")
    intensity_scale_trainable: bool = setting(True, "Refine a global factor between predicted and measured amplitude.")
    optimizer: str = setting(
        "adam", "Optimiser: adam, adamw (decouples weight_decay), sgd or a registered one.", name=True
    )
    momentum: float = setting(
        0.9, "Momentum of sgd.", below_one, beside={"optimizer": OtherThan(("adam", "adamw"), "sgd")}
    )
    adam_beta1: float = setting(
        0.9,
        "Decay of the first moment of adam and adamw.",
        below_one,
        beside={"optimizer": OtherThan(("sgd",), "adam or adamw")},
    )
    adam_beta2: float = setting(
        0.999,
        "Decay of the second moment of adam and adamw.",
        below_one,
        beside={"optimizer": OtherThan(("sgd",), "adam or adamw")},
    )
    weight_decay: float = setting(0.0, "Weight decay of the convolution kernels.", at_least(0))
    learning_rate: float = setting(1e-3, "Highest learning rate.", at_least(0, exclusive=True), common=True)
    scheduler: Literal["Default", "Exponential", "MultiStage", "WarmupCosine", "ReduceLROnPlateau"] = setting(
        "WarmupCosine",
        "Learning rate over the epochs: constant; multiplied by lr_decay after each epoch; by the three stages; "
        "warm-up, then a cosine; or reduced whenever the loss stops improving.",
        common=True,
    )
    schedule_epochs: int | None = setting(
        None,
        "Epochs that the cosine or the stages span; nepochs if unset. What they end with holds afterwards.",
        at_least(1),
    )
    lr_decay: float = setting(
        0.95, "Factor per epoch.", at_least(0, exclusive=True), beside={"scheduler": only("Exponential")}
    )
    lr_warmup_epochs: int = setting(
        0, "Epochs of linear warm-up.", at_least(0), beside={"scheduler": only("WarmupCosine")}
    )
    lr_min_ratio: float = setting(
        0.02,
        "Final learning rate as a fraction of learning_rate.",
        fraction,
        beside={"scheduler": only("WarmupCosine")},
    )
    plateau_factor: float = setting(
        0.5,
        "Factor when the loss stops improving.",
        below_one,
        beside={"scheduler": only("ReduceLROnPlateau")},
    )
    plateau_patience: int = setting(
        2,
        "Epochs without a better loss before the rate is reduced.",
        at_least(0),
        beside={"scheduler": only("ReduceLROnPlateau")},
    )
    plateau_threshold: float = setting(
        0.0,
        "How much lower a loss must be to count as better, as a fraction of the best.",
        below_one,
        beside={"scheduler": only("ReduceLROnPlateau")},
    )
    plateau_min_lr: float = setting(
        5e-5, "Lowest learning rate.", at_least(0), beside={"scheduler": only("ReduceLROnPlateau")}
    )
    stage_3_lr_factor: float = setting(
        0.1,
        "Learning rate of stage 3 as a fraction of learning_rate.",
        fraction,
        beside={"scheduler": only("MultiStage")},
    )
    gradient_clip_val: float | None = setting(
        None, "Limit of the gradient; no clipping if unset.", at_least(0, exclusive=True)
    )
    gradient_clip_algorithm: Literal["norm", "value", "agc"] = setting(
        "norm",
        "What is limited: the norm over all weights, every element, or the norm of each unit relative to its weights "
        "(adaptive gradient clipping).",
        beside={"gradient_clip_val": given},
    )
    early_stop_patience: int | None = setting(None, "Stop after this many epochs without a better loss.", at_least(1))
    seed: int = setting(0, "Seed of initial weights, groups and batch order.", at_least(0), common=True)

    def __attrs_post_init__(self) -> None:
        self.validate()

    @property
    def staged_epochs(self) -> int:
        """Epochs of the three stages together; 0 where there are no stages."""
        return self.stage_1_epochs + self.stage_2_epochs + self.stage_3_epochs

    @property
    def schedule_span(self) -> int:
        """Epochs from the begin of the learning rate's cosine, or of the stages, to their end."""
        return self.nepochs if self.schedule_epochs is None else self.schedule_epochs

    @property
    def is_scheduled(self) -> bool:
        """Whether the number of epochs has a part in learning rate or physics weight."""
        return self.scheduler == "WarmupCosine" or self.staged_epochs > 0

    @property
    def frames_held_out(self) -> int:
        """Of each group, where the network works on a canvas."""
        return self.model.channels // 4 if self.held_out_frames is None else self.held_out_frames

    def validate(self) -> None:
        """Check what no single field can: called on construction, and again when a run starts.

        Raises ConfigurationError naming the fields that contradict each other.
        """
        self.model.validate()
        check_effects(self)
        self._check_losses()
        self._check_schedule()
        check_pool(self, self.model)
        if self.frames_held_out >= self.model.channels > 1:
            expected, remedy = f"fewer than the {self.model.channels} patterns of a group", "Lower it."
            self._refuse("held_out_frames", expected, self.frames_held_out, remedy)
        needed = self.model.channels - 1
        takes_nearest = self.model.architecture == CANVAS or self.model.group_size is not None
        if self.neighbor_count < needed and not takes_nearest:
            expected, remedy = f">= gridsize² - 1 = {needed}", f"Set neighbor_count to {needed} or more."
            self._refuse("neighbor_count", expected, self.neighbor_count, remedy)
        if self.probe_gauge == "given" and self.model.probe_scale != 4.0:
            expected, received = (
                "probe_gauge = mean",
                f"probe_gauge = given and probe_scale = {self.model.probe_scale:g}",
            )
            remedy = "Set probe_gauge to mean, or leave probe_scale at 4."
            raise NoEffectError("ModelConfig", "probe_scale", expected=expected, received=received, remedy=remedy)

    def _check_losses(self) -> None:
        weighs = any(loss_weights(self.loss_weights or "").values())
        if self.model.model_type == "pinn" and self.nll_weight + self.mae_weight <= 0 and not weighs:
            received = f"nll_weight = {self.nll_weight:g}, mae_weight = {self.mae_weight:g}"
            self._refuse(None, "a positive nll_weight or mae_weight", received, "Set nll_weight to 1.")
        if self.model.model_type == "supervised":
            others = {"mae_weight": self.mae_weight, "realspace_weight": self.realspace_weight}
            others |= {"realspace_mae_weight": self.realspace_mae_weight}
            if any(others.values()) or self.nll_weight not in (0, 1):
                weights = {"nll_weight": self.nll_weight, **others}
                received = ", ".join(f"{name} = {value:g}" for name, value in weights.items())
                remedy = "Leave them at their defaults: a supervised network is trained on ground truth alone."
                self._refuse(
                    None, "no weights of the diffraction losses with model_type = supervised", received, remedy
                )
            unused = {"probe_trainable": self.probe_trainable, "stage epochs": self.staged_epochs > 0}
            for name, value in {**unused, "loss_weights": self.loss_weights is not None}.items():
                if value:
                    remedy = "Leave it unset: a supervised network is trained on ground truth alone."
                    self._refuse(None, f"no {name} with model_type = supervised", f"{name} set", remedy)

    def _check_schedule(self) -> None:
        span = "nepochs" if self.schedule_epochs is None else "schedule_epochs"
        if self.schedule_epochs is not None and not self.is_scheduled:
            received = f"scheduler = {self.scheduler} and no stages"
            raise NoEffectError(
                "TrainingConfig",
                "schedule_epochs",
                expected="scheduler = WarmupCosine, or stages",
                received=received,
                remedy="Leave it unset, or choose one of these.",
            )
        if self.lr_warmup_epochs >= self.schedule_span and self.scheduler == "WarmupCosine":
            expected, remedy = (
                f"fewer than {span} = {self.schedule_span}",
                "Warm up for fewer epochs, or train for more.",
            )
            self._refuse("lr_warmup_epochs", expected, self.lr_warmup_epochs, remedy)
        if self.scheduler == "ReduceLROnPlateau" and self.plateau_min_lr >= self.learning_rate:
            expected, remedy = f"below learning_rate = {self.learning_rate:g}", "Lower it, or raise learning_rate."
            self._refuse("plateau_min_lr", expected, self.plateau_min_lr, remedy)
        self._check_stages(span)

    def _check_stages(self, span: str) -> None:
        staged = self.staged_epochs
        if staged and staged != self.schedule_span:
            stages = ", ".join(f"stage_{n}_epochs = {getattr(self, f'stage_{n}_epochs')}" for n in (1, 2, 3))
            received = f"{stages} and {span} = {self.schedule_span}"
            self._refuse(None, f"stages that add up to {span}", received, f"Set {span} to {staged}.")
        if self.scheduler == "MultiStage" and not staged:
            remedy = "Set them so that they add up to nepochs, or choose another scheduler."
            expected = "stage_1_epochs, stage_2_epochs or stage_3_epochs with scheduler = MultiStage"
            self._refuse(None, expected, "none of them", remedy)
        if self.scheduler == "ReduceLROnPlateau" and (self.stage_1_epochs or self.stage_2_epochs):
            expected = "another, as the loss means something else in each stage"
            self._refuse("scheduler", expected, "ReduceLROnPlateau", "Set scheduler to MultiStage.")

    def _refuse(self, name: str | None, expected: str, received: object, remedy: str) -> NoReturn:
        raise ConfigurationError("TrainingConfig", name, expected=expected, received=received, remedy=remedy)


def check_pool(config: TrainingConfig | InferenceConfig, model: ModelConfig) -> None:
    """Refuse a pool of neighbours that oversampling cannot draw from: ConfigurationError."""
    pool = config.neighbor_count if config.neighbor_pool_size is None else config.neighbor_pool_size
    owner, channels = type(config).__name__, model.channels
    if config.enable_oversampling and channels == 1:
        expected, received = "gridsize > 1, as a group is one pattern otherwise", "gridsize = 1"
        remedy = "Set gridsize to 2 or more, or leave enable_oversampling unset."
        raise NoEffectError(owner, "enable_oversampling", expected=expected, received=received, remedy=remedy)
    if config.enable_oversampling and pool < channels:
        expected = f">= gridsize² = {channels} for oversampling"
        remedy = f"Set neighbor_pool_size to {channels} or more."
        raise ConfigurationError(owner, "neighbor_pool_size", expected=expected, received=pool, remedy=remedy)
