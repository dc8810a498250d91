"""Settings that are set and, beside the others, change nothing: warned of, because files are shared between runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ptycho_core.settings.fields import default_of, fields_of
from ptycho_core.settings.model import CANVAS, CNN
from ptycho_core.settings.training import TrainingConfig

OF_THE_NETWORK = (
    *("n_filters_scale", "amp_activation", "amplitude_ceiling", "cbam_encoder", "cbam_bottleneck", "cbam_decoder"),
    *("eca_encoder", "eca_decoder", "spatial_decoder"),
)
"""Fields of `ModelConfig` that nothing but the architecture reads."""


def idle_fields(config: TrainingConfig, read: Collection[str] | None) -> Iterator[tuple[str, str]]:
    """Each field that is not at its default and has no effect, and beside what. read: by the architecture, if known."""
    model = config.model
    changed = {
        name
        for part in (model, config)
        for name, field in fields_of(type(part)).items()
        if getattr(part, name) != default_of(part, field)
    }
    beside: list[tuple[bool, str, tuple[str, ...]]] = [
        (model.channels == 1, "at gridsize 1", ("neighbor_count", "object_big")),
        (model.architecture == CNN, "on a network that works on patches", ("held_out_frames",)),
        (not model.pad_object, "without pad_object", ("probe_big",)),
        (
            model.model_type == "supervised" and model.architecture != CANVAS,
            "in supervised training",
            ("probe_gauge", "probe_scale", "nphotons", "intensity_scale_trainable"),
        ),
        (
            config.early_stop_patience is not None and config.early_stop_patience >= config.nepochs,
            f"in a run of {config.nepochs} epochs",
            ("early_stop_patience",),
        ),
        (read is not None, f"on the architecture {model.architecture}",
         tuple(name for name in OF_THE_NETWORK if name not in (read or ()))),
    ]  # fmt: skip
    for holds, words, names in beside:
        if holds:
            yield from ((name, words) for name in names if name in changed)
