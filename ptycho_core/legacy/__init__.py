"""What users of the published implementations rely on, over the native API (docs/legacy.md).

Flat `params.cfg` dictionaries, PyTorch-style configurations, RawData, and the five workflow entry points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_core.lazy import lazy_names

if TYPE_CHECKING:  # what `__getattr__` gives at run time, for type checkers and editors
    from ptycho_core.legacy.data import RawData as RawData
    from ptycho_core.legacy.data import generate_grouped_data as generate_grouped_data
    from ptycho_core.legacy.parameters import from_legacy_dict as from_legacy_dict
    from ptycho_core.legacy.parameters import to_legacy_dict as to_legacy_dict
    from ptycho_core.legacy.parameters import update_legacy_dict as update_legacy_dict
    from ptycho_core.legacy.translation import to_inference_config as to_inference_config
    from ptycho_core.legacy.translation import to_model_config as to_model_config
    from ptycho_core.legacy.translation import to_training_config as to_training_config
    from ptycho_core.legacy.workflows import load_inference_bundle as load_inference_bundle
    from ptycho_core.legacy.workflows import reassemble_cdi_image as reassemble_cdi_image
    from ptycho_core.legacy.workflows import run_cdi_example as run_cdi_example
    from ptycho_core.legacy.workflows import save_outputs as save_outputs
    from ptycho_core.legacy.workflows import train_cdi_model as train_cdi_model

__getattr__, _names = lazy_names(
    __name__,
    {
        "data": ("RawData", "generate_grouped_data"),
        "parameters": ("from_legacy_dict", "to_legacy_dict", "update_legacy_dict"),
        "translation": ("to_inference_config", "to_model_config", "to_training_config"),
        "workflows": (
            "load_inference_bundle",
            "reassemble_cdi_image",
            "run_cdi_example",
            "save_outputs",
            "train_cdi_model",
        ),
    },
)
__all__ = sorted(_names)


def __dir__() -> list[str]:
    return __all__
