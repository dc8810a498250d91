"""Configuration classes: every field typed, checked and explained in one place (specs/configuration.md).

The command line's flags, the files, the flat dictionaries and the reference table are all made from these classes.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import attrs

from ptycho_core.fields import (
    at_least,
    below_one,
    check_effects,
    fraction,
    given,
    only,
    power_of_two,
    refuse,
    setting,
)
from ptycho_core.reading import ReadOptions

T = TypeVar("T", bound="type[Any]")

LOSS_TERMS = Literal["total", "nll", "reduced_deviance", "amplitude_mae", "total_variation", "realspace_mae"]
"""Names of specs/physics.md, Losses."""


def _takes_n_images(cls: T) -> T:
    """Accept `n_images`, a deprecated spelling of `n_groups`; an explicit n_groups wins."""
    construct = cls.__init__

    @functools.wraps(construct)
    def with_n_images(self: Any, *, n_images: int | None = None, **fields: Any) -> None:
        if n_images is not None:
            _warn_of_n_images(cls)
            fields = {"n_groups": n_images, **fields}
        construct(self, **fields)

    def read(self: Any) -> int | None:
        _warn_of_n_images(cls)
        groups: int | None = self.n_groups
        return groups

    def write(self: Any, value: int) -> None:
        _warn_of_n_images(cls)
        self.n_groups = value

    cls.__init__ = with_n_images
    cls.n_images = property(read, write, doc="Deprecated spelling of `n_groups`.")
    return cls


def _warn_of_n_images(cls: type[Any]) -> None:
    text = f"{cls.__name__}.n_images is a deprecated spelling of n_groups: use n_groups."
    warnings.warn(text, DeprecationWarning, stacklevel=3)


@attrs.define(kw_only=True)
class ModelConfig:
    """What the network is: fixed once it is trained, stored in its archive."""

    N: int = setting(64, "Side of a diffraction pattern and of an object patch, pixels.", at_least(16))
    gridsize: int = setting(1, "A group holds gridsize² overlapping patterns.", at_least(1))
    n_filters_scale: int = setting(2, "Multiplies the width of every layer.", at_least(1))
    model_type: Literal["pinn", "supervised"] = setting(
        "pinn", "pinn: compare the far field with the measurement; supervised: compare patches with ground truth."
    )
    amp_activation: Literal["sigmoid", "swish", "softplus", "relu"] = setting(
        "sigmoid", "Activation of the amplitude head; silu is another spelling of swish.", spellings={"silu": "swish"}
    )
    object_big: bool = setting(
        True, "Merge the patches of a group into one object before the forward model; otherwise every frame is alone."
    )
    probe_big: bool = setting(True, "With pad_object: also predict the object outside the central N/2 square.")
    probe_mask: bool = setting(False, "Multiply the probe by a circular mask of radius N/4.")
    pad_object: bool = setting(True, "Predict the central N/2 square and pad it with zeros.")
    probe_scale: float = setting(
        4.0,
        "Divides the calibrated probe, in units of 4: a clear object then has amplitude probe_scale / 4.",
        at_least(0, exclusive=True),
    )
    gaussian_smoothing_sigma: float = setting(
        0.0,
        "Standard deviation of a Gaussian smoothing of the exit wave, pixels; 0 is none.",
        at_least(0),
        beside={"model_type": only("pinn")},
    )
    architecture: str = setting("cnn", "Name of the network in the architecture table.")
    amplitude_ceiling: float = setting(
        2.0,
        "Factor of a sigmoid amplitude head; an untrained network predicts half.",
        at_least(0, exclusive=True),
        beside={"amp_activation": only("sigmoid")},
    )
    merge_weights: Literal["probe", "uniform", "central"] = setting(
        "probe",
        "Weights of the patches in a merge: probe intensity, a plain count, or the central N/2 square only.",
        beside={"object_big": only(True), "gridsize": at_least(2), "model_type": only("pinn")},
    )
    cbam_encoder: bool = setting(False, "Channel and spatial attention (CBAM) in every block of the encoder.")
    cbam_bottleneck: bool = setting(False, "Channel and spatial attention (CBAM) between encoder and decoders.")
    cbam_decoder: bool = setting(False, "Channel and spatial attention (CBAM) in every block of the decoders.")
    eca_encoder: bool = setting(False, "Efficient channel attention (ECA) in every block of the encoder.")
    eca_decoder: bool = setting(False, "Efficient channel attention (ECA) in every block of the decoders.")
    spatial_decoder: bool = setting(False, "Spatial attention in every block of the decoders.")

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Refuse a field that has no effect beside the others: on construction, and when a run starts."""
        check_effects(self)

    @property
    def channels(self) -> int:
        """C, patterns a group."""
        return self.gridsize**2


@_takes_n_images
@attrs.define(kw_only=True)
class TrainingConfig:
    """How a network is trained."""

    DEPRECATED: ClassVar[tuple[str, ...]] = ("n_images",)

    model: ModelConfig = attrs.field(factory=ModelConfig, validator=attrs.validators.instance_of(ModelConfig))
    train_data_file: Path | None = setting(None, "Scan to train on.")
    test_data_file: Path | None = setting(None, "A second scan; its loss chooses the best weights.")
    output_dir: Path = setting(Path("training_outputs"), "Folder that a run writes to; made if it is not there.")
    backend: str = setting("auto", "Engine: auto, torch, tensorflow or another registered one.")
    batch_size: int = setting(16, "Groups a batch.", power_of_two)
    accum_steps: int = setting(1, "Batches whose gradients are averaged for one step of the optimiser.", at_least(1))
    nepochs: int = setting(50, "Passes over the groups.", at_least(1))
    n_groups: int = setting(512, "Groups an epoch, drawn anew every epoch.", at_least(1))
    neighbor_count: int = setting(4, "K: nearest neighbours that a group may be drawn from.", at_least(1))
    neighbor_pool_size: int | None = setting(
        None,
        "Neighbours to choose from instead of neighbor_count.",
        at_least(1),
        beside={"enable_oversampling": only(True)},
    )
    enable_oversampling: bool = setting(False, "Allow more groups than positions (gridsize > 1).")
    sequential_sampling: bool = setting(
        False, "Seed the groups at the first n_groups positions instead of random ones."
    )
    n_subsample: int | None = setting(
        None, "Train on that many frames, drawn at random; all of them if unset.", at_least(1)
    )
    subsample_seed: int | None = setting(
        None, "Seed of n_subsample; `seed` if unset.", at_least(0), beside={"n_subsample": given}
    )
    positions_provided: bool = setting(
        True, "Use the true positions of the scan (xcoords, ycoords); otherwise the nominal ones (xcoords_start, …)."
    )
    nll_weight: float = setting(1.0, "Weight of the Poisson negative log likelihood of the counts.", fraction)
    mae_weight: float = setting(0.0, "Weight of the mean absolute error of the diffraction amplitude.", fraction)
    realspace_weight: float = setting(0.0, "Weight of the total variation of the complex object.", fraction)
    realspace_mae_weight: float = setting(0.0, "Weight of the mean absolute error against ground truth.", fraction)
    stage_1_epochs: int = setting(
        0, "First epochs, trained on the amplitude error alone: the physics weight is 0.", at_least(0)
    )
    stage_2_epochs: int = setting(0, "Epochs in which the physics weight rises from 0 to 1.", at_least(0))
    stage_3_epochs: int = setting(0, "Last epochs, trained on the configured losses: physics weight 1.", at_least(0))
    physics_weight_schedule: Literal["linear", "cosine", "exponential"] = setting(
        "cosine", "How the physics weight rises in stage 2.", beside={"stage_2_epochs": at_least(1)}
    )
    nphotons: float = setting(
        1e9, "Mean photons a frame where the scan's dose is unknown.", at_least(0, exclusive=True)
    )
    probe_gauge: Literal["mean", "given"] = setting(
        "mean", "mean: scale the probe to the mean intensity of a frame; given: trust the probe's own."
    )
    probe_trainable: bool = setting(False, "Refine the probe with the network.")
    intensity_scale_trainable: bool = setting(True, "Refine a global factor between predicted and measured amplitude.")
    optimizer: Literal["adam", "adamw", "sgd"] = setting("adam", "Optimiser; adamw decouples weight_decay.")
    momentum: float = setting(0.9, "Momentum of sgd.", below_one, beside={"optimizer": only("sgd")})
    adam_beta1: float = setting(
        0.9, "Decay of the first moment of adam and adamw.", below_one, beside={"optimizer": only("adam", "adamw")}
    )
    adam_beta2: float = setting(
        0.999, "Decay of the second moment of adam and adamw.", below_one, beside={"optimizer": only("adam", "adamw")}
    )
    weight_decay: float = setting(0.0, "Pull of the layers' kernels towards 0.", at_least(0))
    learning_rate: float = setting(1e-3, "Learning rate at its highest.", at_least(0, exclusive=True))
    scheduler: Literal["Default", "Exponential", "MultiStage", "WarmupCosine", "ReduceLROnPlateau"] = setting(
        "WarmupCosine",
        "Learning rate over the epochs: constant; times lr_decay an epoch; by the three stages; warm-up and a cosine; "
        "or lower whenever the loss stands still.",
    )
    lr_decay: float = setting(
        0.95, "Factor an epoch.", at_least(0, exclusive=True), beside={"scheduler": only("Exponential")}
    )
    lr_warmup_epochs: int = setting(
        0, "Epochs of linear warm-up.", at_least(0), beside={"scheduler": only("WarmupCosine")}
    )
    lr_min_ratio: float = setting(
        0.02,
        "Last learning rate as a fraction of learning_rate.",
        fraction,
        beside={"scheduler": only("WarmupCosine")},
    )
    plateau_factor: float = setting(
        0.5,
        "Factor when the loss stands still.",
        below_one,
        beside={"scheduler": only("ReduceLROnPlateau")},
    )
    plateau_patience: int = setting(
        2, "Epochs without a better loss before that.", at_least(0), beside={"scheduler": only("ReduceLROnPlateau")}
    )
    plateau_threshold: float = setting(
        0.0,
        "How much lower a loss must be to be better, as a fraction of the best.",
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
    early_stop_patience: int | None = setting(None, "Stop after that many epochs without a better loss.", at_least(1))
    seed: int = setting(0, "Seed of initial weights, groups and batch order.", at_least(0))

    def __attrs_post_init__(self) -> None:
        self.validate()

    @property
    def staged_epochs(self) -> int:
        """Epochs of the three stages together; 0 where there are no stages."""
        return self.stage_1_epochs + self.stage_2_epochs + self.stage_3_epochs

    def validate(self) -> None:
        """Check what no single field can: called on construction, and again when a run starts.

        Raises ConfigurationError naming the fields that contradict each other.
        """
        self.model.validate()
        check_effects(self)
        self._check_losses()
        self._check_schedule()
        check_pool(self, self.model)
        needed = self.model.channels - 1
        if self.neighbor_count < needed:
            expected = f"neighbor_count >= gridsize² - 1 = {needed}"
            refuse("TrainingConfig.neighbor_count", expected, self.neighbor_count, f"Set it to {needed} or more.")
        if self.probe_gauge == "given" and self.model.probe_scale != 4.0:
            remedy = "Set probe_gauge to mean, or leave probe_scale at 4."
            received = f"probe_gauge = given and probe_scale = {self.model.probe_scale:g}"
            refuse("ModelConfig.probe_scale", "probe_gauge = mean beside it", received, remedy)

    def _check_losses(self) -> None:
        if self.model.model_type == "pinn" and self.nll_weight + self.mae_weight <= 0:
            received = f"nll_weight = {self.nll_weight:g}, mae_weight = {self.mae_weight:g}"
            refuse("TrainingConfig", "a positive nll_weight or mae_weight", received, "Set nll_weight to 1.")
        if self.model.model_type == "supervised":
            others = {"mae_weight": self.mae_weight, "realspace_weight": self.realspace_weight}
            others |= {"realspace_mae_weight": self.realspace_mae_weight}
            if any(others.values()) or self.nll_weight not in (0, 1):
                weights = {"nll_weight": self.nll_weight, **others}
                received = ", ".join(f"{name} = {value:g}" for name, value in weights.items())
                remedy = "Leave them at their defaults: a supervised network is trained on ground truth alone."
                expected = "no weights of the diffraction losses with model_type = supervised"
                refuse("TrainingConfig", expected, received, remedy)
            for name, value in (("probe_trainable", self.probe_trainable), ("stage epochs", self.staged_epochs > 0)):
                if value:
                    remedy = "Leave it unset: a supervised network is trained on ground truth alone."
                    refuse("TrainingConfig", f"no {name} with model_type = supervised", f"{name} set", remedy)

    def _check_schedule(self) -> None:
        if self.lr_warmup_epochs >= self.nepochs and self.scheduler == "WarmupCosine":
            expected, remedy = f"fewer than nepochs = {self.nepochs}", "Warm up for fewer epochs than there are."
            refuse("TrainingConfig.lr_warmup_epochs", expected, self.lr_warmup_epochs, remedy)
        if self.scheduler == "ReduceLROnPlateau" and self.plateau_min_lr >= self.learning_rate:
            expected, remedy = f"below learning_rate = {self.learning_rate:g}", "Lower it: it is the lowest rate."
            refuse("TrainingConfig.plateau_min_lr", expected, self.plateau_min_lr, remedy)
        self._check_stages()

    def _check_stages(self) -> None:
        staged = self.staged_epochs
        if staged and staged != self.nepochs:
            stages = ", ".join(f"stage_{n}_epochs = {getattr(self, f'stage_{n}_epochs')}" for n in (1, 2, 3))
            received = f"{stages} and nepochs = {self.nepochs}"
            refuse("TrainingConfig", "stages that add up to nepochs", received, f"Set nepochs to {staged}.")
        if self.scheduler == "MultiStage" and not staged:
            remedy = "Set them so that they add up to nepochs, or choose another scheduler."
            expected = "stage_1_epochs, stage_2_epochs or stage_3_epochs with scheduler = MultiStage"
            refuse("TrainingConfig", expected, "none of them", remedy)
        if self.scheduler == "ReduceLROnPlateau" and (self.stage_1_epochs or self.stage_2_epochs):
            remedy = "Choose scheduler = MultiStage."
            expected = "another scheduler beside stages, whose loss changes its meaning"
            refuse("TrainingConfig.scheduler", expected, "ReduceLROnPlateau", remedy)


def check_pool(config: TrainingConfig | InferenceConfig, model: ModelConfig) -> None:
    """Refuse a pool of neighbours that oversampling cannot draw from: ConfigurationError."""
    pool = config.neighbor_count if config.neighbor_pool_size is None else config.neighbor_pool_size
    name, channels = type(config).__name__, model.channels
    if config.enable_oversampling and channels == 1:
        remedy = "Set gridsize to 2 or more, or leave enable_oversampling unset."
        refuse(f"{name}.enable_oversampling", "gridsize > 1 beside it: a frame is a group", "gridsize = 1", remedy)
    if config.enable_oversampling and pool < channels:
        expected = f"neighbor_pool_size >= gridsize² = {channels} for oversampling"
        refuse(f"{name}.neighbor_pool_size", expected, pool, f"Set neighbor_pool_size to {channels} or more.")


@_takes_n_images
@attrs.define(kw_only=True)
class InferenceConfig:
    """How a trained network is used on a scan."""

    DEPRECATED: ClassVar[tuple[str, ...]] = ("n_images",)

    model: ModelConfig | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(ModelConfig))
    )
    """What the caller takes the model to be; a field that is not at its default must be as in the archive."""
    model_path: Path | None = setting(None, "Model archive, or the folder that holds it.")
    test_data_file: Path | None = setting(None, "Scan to reconstruct.")
    output_dir: Path = setting(Path("inference_outputs"), "Folder to write to; made if it is not there.")
    backend: str = setting("auto", "Engine: auto takes the one that trained the model; any engine reads any model.")
    n_groups: int | None = setting(None, "Groups to reconstruct; one for every frame if unset.", at_least(1))
    n_subsample: int | None = setting(
        None, "Reconstruct that many frames, drawn at random; all of them if unset.", at_least(1)
    )
    subsample_seed: int | None = setting(
        None, "Seed of n_subsample; `seed` if unset.", at_least(0), beside={"n_subsample": given}
    )
    neighbor_count: int = setting(4, "K: nearest neighbours that a group may be drawn from.", at_least(1))
    neighbor_pool_size: int | None = setting(
        None,
        "Neighbours to choose from instead of neighbor_count.",
        at_least(1),
        beside={"enable_oversampling": only(True)},
    )
    enable_oversampling: bool = setting(False, "Allow more groups than positions (gridsize > 1).")
    weighting: Literal["probe", "uniform"] = setting(
        "probe", "Weights of overlapping patches in the object: probe intensity, or a plain count."
    )
    middle_trim: int | None = setting(
        None, "Place only the central square of so many pixels of every patch; all of it if unset.", at_least(1)
    )
    debug: bool = setting(False, "Log what goes into every batch and what comes out of it.")
    seed: int = setting(0, "Seed of the groups.", at_least(0))

    def __attrs_post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Refuse a field that has no effect beside the others: on construction, and when a run starts."""
        check_effects(self)


@attrs.define(kw_only=True)
class ExecutionConfig:
    """Where and how an engine computes and what is told of it: never the meaning of a result."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = setting(
        "auto", "Device: auto takes a GPU if the framework sees one; gpu is cuda or mps, whichever is there."
    )
    devices: int = setting(1, "Devices to use.", only(1, because="a run uses one device"))
    num_nodes: int = setting(1, "Machines to use.", only(1, because="a run uses one machine"))
    strategy: str = setting("auto", "How devices share the work.", only("auto", because="a run uses one device"))
    precision: Literal["32-true", "64-true", "bf16-mixed"] = setting(
        "32-true", "Floating-point precision; bf16-mixed runs the network's layers in bfloat16."
    )
    deterministic: bool = setting(
        False, "Refuse the framework's operations whose result differs from run to run; slower on a GPU."
    )
    num_workers: int = setting(1, "Threads that gather batches ahead; 0 gathers each when it is needed.", at_least(0))
    inference_batch_size: int = setting(32, "Groups predicted at a time.", at_least(1))
    enable_checkpointing: bool = setting(
        True, "Write the best model whenever there is a better one; otherwise when the run ends."
    )
    checkpoint_save_top_k: int = setting(1, "How many of the best models a run keeps.", at_least(1))
    checkpoint_monitor_metric: LOSS_TERMS = setting(
        "total", "The loss term that chooses the best weights, of the test scan where there is one."
    )
    checkpoint_mode: Literal["min", "max"] = setting("min", "Whether a lower or a higher value of it is better.")
    logger: Literal["csv", "tensorboard", "mlflow", "none"] = setting(
        "csv", "Where a run's losses go: history.csv, TensorBoard events, MLflow, or nowhere but the archive."
    )
    enable_progress_bar: bool = setting(True, "Show a progress bar on a terminal.")


def existing_file(config: Any, field: str) -> Path | None:
    """The path in a field, None where it is unset; ConfigurationError where there is no such file.

    Looked at when a run starts, not when a configuration is made: that of an archive names files of another machine.
    """
    path: Path | None = getattr(config, field)
    if path is not None and not path.exists():
        refuse(f"{type(config).__name__}.{field}", "an existing file", f"no such file: {path}", "Check the path.")
    return path


SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "inference": InferenceConfig,
    "execution": ExecutionConfig,
    "reading": ReadOptions,
}
"""The tables of a configuration file, and the class that each one fills."""
