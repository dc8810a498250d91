"""The five configurations that Ptychodus makes: its settings by name, to be sent to a child process.

What they mean to a training of ptycho-core is in `ptycho_torch.translation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ptycho_core.errors import ConfigurationError


class Settings:
    """Values by name; those that are not given are Ptychodus's own defaults. ConfigurationError for an unknown name."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **values: Any) -> None:
        unknown = sorted(set(values) - set(self.DEFAULTS))
        if unknown:
            remedy = (
                "Another version of ptycho-core-ptychodus may know it; the algorithms of "
                "ptycho_core.integrations.ptychodus do without."
            )
            raise ConfigurationError(
                f"ptycho_torch.{type(self).__name__}",
                expected="the settings of Ptychodus 1.7",
                received=f"{', '.join(unknown)} of a newer one",
                remedy=remedy,
            )
        for name, default in self.DEFAULTS.items():
            setattr(self, name, values.get(name, default))

    def __repr__(self) -> str:
        changed = [f"{name}={value!r}" for name, value in vars(self).items() if value != self.DEFAULTS.get(name)]
        return f"{type(self).__name__}({', '.join(changed)})"


class DataConfig(Settings):
    """Patterns, groups and their scale."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "N": 128,
        "C": 4,
        "normalize": "Batch",
        "neighbor_function": "Nearest",
        "scan_pattern": "Isotropic",
        "probe_normalize": True,
        "x_bounds": (0.1, 0.9),
        "y_bounds": (0.1, 0.9),
        "min_neighbor_distance": 0.0,
        "max_neighbor_distance": 3.0,
        "K_quadrant": 30,
        "n_subsample": 7,
        "probe_scale": 4.0,
        "K": 6,
        "grid_size": (2, 2),
        "probe_ramp_removal": False,
        "data_scaling": "Parseval",
        "phase_subtraction": True,
    }


class ModelConfig(Settings):
    """The network and its losses."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "mode": "Unsupervised",
        "object_big": True,
        "probe_big": True,
        "loss_function": "Poisson",
        "amp_activation": "silu",
        "cbam_encoder": True,
        "decoder_last_amp_channels": 4,
        "use_shared_decoder": False,
        "intensity_scale_trainable": False,
        "intensity_scale": 10000.0,
        "max_position_jitter": 10,
        "num_datasets": 1,
        "C_model": 4,
        "C_forward": 4,
        "amp_loss": None,
        "phase_loss": None,
        "amp_loss_coeff": 1.0,
        "phase_loss_coeff": 1.0,
        "n_filters_scale": 2,
        "probe_mask": None,
        "eca_decoder": False,
        "batch_norm": False,
        "edge_pad": 10,
        "decoder_last_c_outer_fraction": 0.125,
        "cbam_bottleneck": False,
        "cbam_decoder": False,
        "spatial_decoder": False,
        "decoder_spatial_kernel": 7,
        "eca_encoder": False,
        "offset": 6,
        "probe_reference_coeff": 0.0,
        "amplitude_variance_loss": False,
        "amplitude_variance_coeff": 0.01,
    }


class TrainingConfig(Settings):
    """The training."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "epochs": 50,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "n_devices": 1,
        "num_workers": 4,
        "accum_steps": 1,
        "epochs_fine_tune": 0,
        "fine_tune_gamma": 0.1,
        "gradient_clip_val": None,
        "nll": True,
        "device": "cuda",
        "strategy": "ddp_spawn",
        "framework": "Lightning",
        "orchestrator": "Lightning",
        "scheduler": "Default",
        "warmup_epochs": 0,
        "min_lr_ratio": 0.1,
        "notes": "",
        "model_name": "PtychoPINNv2",
        "enable_staged_finetuning": False,
        "finetune_stage1_epochs": 7,
        "finetune_stage2_epochs": 7,
        "finetune_stage3_epochs": 5,
        "finetune_stage1_lr_decoder": 0.1,
        "finetune_stage2_lr_encoder_top": 0.01,
        "finetune_stage2_lr_decoder": 0.05,
        "finetune_stage2_lr_phase_head": 0.1,
        "finetune_stage3_lr_encoder_bottom": 0.005,
        "finetune_stage3_lr_encoder_top": 0.01,
        "finetune_stage3_lr_decoder": 0.02,
        "finetune_stage3_lr_phase_head": 0.05,
        "finetune_skip_stage3": True,
        "finetune_early_stop_patience": 3,
        "finetune_val_split": 0.05,
    }


class InferenceConfig(Settings):
    """Reconstructions. A model file does not keep them: Ptychodus reads them from it, not from its settings."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "batch_size": 1000,
        "middle_trim": 32,
        "experiment_number": 0,
        "patch_weighting": "probe",
        "pad_eval": True,
        "window": 20,
    }


class DatagenConfig(Settings):
    """Simulated data, of which Ptychodus makes none."""
