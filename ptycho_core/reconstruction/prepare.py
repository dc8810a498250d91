"""What a reconstruction can be refused for before a pattern is read: settings beside the model, and the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ptycho_core.engine.registry import backend_for, find_engine
from ptycho_core.errors import ConfigurationError, NoEffectError
from ptycho_core.settings.fields import default_of, fields_of
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import check_pool

if TYPE_CHECKING:
    from ptycho_core.engine.protocol import Engine
    from ptycho_core.models.model import Model


def prepare(model: Model, config: InferenceConfig, backend: str | None = None) -> Callable[[], Engine]:
    """Check settings and backend; what it returns makes the engine, whose framework is not imported before.

    backend: as `reconstruct` takes it. Raises ConfigurationError or BackendError.
    """
    config.validate()
    _check_model(config, model)
    stated = config.backend if backend is None else backend
    chosen = model.backend if stated == "auto" else stated
    return find_engine(backend_for(model.engine.name) if chosen == "auto" else chosen)


def _check_model(config: InferenceConfig, model: Model) -> None:
    """What the caller takes the model to be, where it says so, must be what the model is."""
    check_pool(config, model.config.model)
    if config.middle_trim is not None and config.middle_trim > model.config.model.N:
        expected, received = f"it is at most {model.config.model.N}, the side of a patch", str(config.middle_trim)
        remedy = "Set it to less, or leave it unset."
        raise NoEffectError("InferenceConfig", "middle_trim", expected=expected, received=received, remedy=remedy)
    if config.model is None:
        return
    for name, field in fields_of(ModelConfig).items():
        stated, trained = getattr(config.model, name), getattr(model.config.model, name)
        if stated not in (trained, default_of(config.model, field)):
            remedy = f"Leave {name} at its default: the archive says what the model is."
            expected = f"{trained!r}, as it was trained"
            raise ConfigurationError(
                "InferenceConfig", f"model.{name}", expected=expected, received=repr(stated), remedy=remedy
            )
