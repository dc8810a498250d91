"""What Ptychodus's settings for PtychoPINN-Torch mean to ptycho-core; what has no counterpart is warned of.

Fields that Ptychodus does not offer are taken from the environment, as the command line takes them: PTYCHO_BACKEND,
PTYCHO_N_GROUPS, PTYCHO_SEED, … (docs/configuration.md). They override its settings.
"""

from __future__ import annotations

import logging
from typing import Any

from ptycho_core.cli.options import environment_values
from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import from_mapping
from ptycho_core.settings.model import CNN, ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_torch import config_params as theirs

log = logging.getLogger(__name__)

GROUPS = 512
"""At most, in an epoch."""
SCHEDULERS = {"Default": "Default", "Exponential": "Exponential", "Cosine": "WarmupCosine"}
MODES = {"Unsupervised": "pinn", "Supervised": "supervised"}
WITHOUT_COUNTERPART = {
    theirs.DataConfig: (
        *("normalize", "neighbor_function", "scan_pattern", "probe_normalize", "x_bounds", "y_bounds"),
        *("min_neighbor_distance", "max_neighbor_distance", "K_quadrant", "n_subsample", "probe_ramp_removal"),
        *("data_scaling", "phase_subtraction"),
    ),
    theirs.ModelConfig: (
        *("use_shared_decoder", "intensity_scale", "max_position_jitter", "num_datasets", "amp_loss", "phase_loss"),
        *("amp_loss_coeff", "phase_loss_coeff", "batch_norm", "edge_pad", "decoder_last_c_outer_fraction"),
        *("decoder_spatial_kernel", "offset", "probe_reference_coeff", "amplitude_variance_loss"),
        "amplitude_variance_coeff",
    ),
    theirs.TrainingConfig: ("n_devices", "epochs_fine_tune", "fine_tune_gamma", "enable_staged_finetuning"),
    theirs.InferenceConfig: ("batch_size", "middle_trim", "patch_weighting", "pad_eval", "window"),
}
"""Of each configuration, the settings that change nothing here."""


def training_config(manager: Any, *, N: int, frames: int) -> TrainingConfig:
    """manager: with the four configurations. N, frames: of the scan. Raises ConfigurationError."""
    data, model, training = manager.data_config, manager.model_config, manager.training_config
    for config in (data, model, training, manager.inference_config):
        warn_of_the_rest(config)
    if N != data.N:
        log.warning("model_size = %d has no effect: the patterns have %d x %d pixels", data.N, N, N)
    return from_mapping(TrainingConfig, _training(data, model, training, frames), model=model_config(data, model, N))


def model_config(data: theirs.DataConfig, model: theirs.ModelConfig, N: int) -> ModelConfig:
    """Of the published network, cnn, unless PTYCHO_ARCHITECTURE names another one."""
    sides = tuple(data.grid_size)
    if len(set(sides)) != 1 or sides[0] ** 2 != data.C:
        raise ConfigurationError(
            "PtychoPINNTorchData",
            expected="grid_size_x = grid_size_y = g, and num_channels = g²",
            received=f"{sides[1]}, {sides[0]} and {data.C}",
            remedy="Set them so: a group is a square of patterns.",
        )
    same = (
        *("object_big", "probe_big", "amp_activation", "n_filters_scale", "spatial_decoder"),
        *("cbam_encoder", "cbam_bottleneck", "cbam_decoder", "eca_encoder", "eca_decoder"),
    )
    values = {name: getattr(model, name) for name in same}
    values |= {"N": N, "architecture": CNN, "gridsize": sides[0], "model_type": MODES[model.mode]}
    values["probe_scale"] = data.probe_scale
    return from_mapping(ModelConfig, {**values, **environment_values("model")})


def _training(
    data: theirs.DataConfig, model: theirs.ModelConfig, training: theirs.TrainingConfig, frames: int
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "backend": "torch",
        "nepochs": training.epochs,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "accum_steps": training.accum_steps,
        "n_groups": min(frames, GROUPS),
        "intensity_scale_trainable": model.intensity_scale_trainable,
        "scheduler": SCHEDULERS.get(training.scheduler, training.scheduler),
    }
    if data.C > 1:
        values["neighbor_count"] = max(data.K, data.C - 1)
    if training.gradient_clip_val:
        values["gradient_clip_val"] = training.gradient_clip_val
    if values["scheduler"] == "WarmupCosine":
        values |= {"lr_warmup_epochs": training.warmup_epochs, "lr_min_ratio": training.min_lr_ratio}
    if model.mode == "Unsupervised":
        likely = training.nll and model.loss_function == "Poisson"
        values |= {"nll_weight": float(likely), "mae_weight": float(not likely)}
    return {**values, **environment_values("training")}


def execution_config(training: theirs.TrainingConfig) -> ExecutionConfig:
    """device: "cuda", the default, is whatever accelerator there is."""
    values = {"num_workers": training.num_workers, "accelerator": "cpu" if training.device == "cpu" else "auto"}
    return from_mapping(ExecutionConfig, {**values, **environment_values("execution")})


def warn_of_the_rest(config: theirs.Settings) -> None:
    """Name what was set and changes nothing."""
    names = WITHOUT_COUNTERPART.get(type(config), ())
    changed = [name for name in names if getattr(config, name) != config.DEFAULTS[name]]
    if changed:
        log.warning("%s: %s: set, and without effect in ptycho-core", type(config).__name__, ", ".join(changed))
