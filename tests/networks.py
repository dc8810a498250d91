"""The network that most tests are of: what they say of fields and of the loop is no matter of the architecture."""

from __future__ import annotations

from typing import Any

from ptycho_core.settings.model import ModelConfig


def cnn(**settings: Any) -> ModelConfig:
    """The one that works on patches, and reads every field of a patch, unless `settings` name another."""
    return ModelConfig(**{"architecture": "cnn", **settings})
