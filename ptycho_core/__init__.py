"""Ptychographic images from physics-informed networks: one core, interchangeable engines.

scan = load_scan("scan.npz")
model = train(scan, TrainingConfig(model=ModelConfig(N=64), backend="torch"))
reconstruction = reconstruct(scan, model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_core.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:  # what `__getattr__` gives at run time, for type checkers and editors
    from ptycho_core.architecture import TableBuilder as TableBuilder
    from ptycho_core.architecture import register_architecture as register_architecture
    from ptycho_core.archive import Model as Model
    from ptycho_core.archive import load_model as load_model
    from ptycho_core.config import ExecutionConfig as ExecutionConfig
    from ptycho_core.config import InferenceConfig as InferenceConfig
    from ptycho_core.config import ModelConfig as ModelConfig
    from ptycho_core.config import TrainingConfig as TrainingConfig
    from ptycho_core.configfiles import read_configs as read_configs
    from ptycho_core.configfiles import write_config as write_config
    from ptycho_core.contracts import Batch as Batch
    from ptycho_core.contracts import Scan as Scan
    from ptycho_core.engine import Engine as Engine
    from ptycho_core.engine import Network as Network
    from ptycho_core.engine import registered_engines as registered_engines
    from ptycho_core.errors import ArchiveError as ArchiveError
    from ptycho_core.errors import BackendError as BackendError
    from ptycho_core.errors import Cancelled as Cancelled
    from ptycho_core.errors import ConfigurationError as ConfigurationError
    from ptycho_core.errors import DataError as DataError
    from ptycho_core.errors import PtychoError as PtychoError
    from ptycho_core.errors import TrainingError as TrainingError
    from ptycho_core.evaluation import Comparison as Comparison
    from ptycho_core.evaluation import Truth as Truth
    from ptycho_core.evaluation import evaluate as evaluate
    from ptycho_core.evaluation import load_truth as load_truth
    from ptycho_core.export import export_model as export_model
    from ptycho_core.io import convert as convert
    from ptycho_core.io import load_scan as load_scan
    from ptycho_core.io import save_scan as save_scan
    from ptycho_core.orientation import rank_orientations as rank_orientations
    from ptycho_core.published import convert_published as convert_published
    from ptycho_core.published import import_published as import_published
    from ptycho_core.reading import ReadOptions as ReadOptions
    from ptycho_core.reconstruction import Reconstruction as Reconstruction
    from ptycho_core.reconstruction import load_reconstruction as load_reconstruction
    from ptycho_core.reconstruction import reconstruct as reconstruct
    from ptycho_core.simulation import simulate as simulate
    from ptycho_core.splitting import split as split
    from ptycho_core.training import EpochReport as EpochReport
    from ptycho_core.training import Fit as Fit
    from ptycho_core.training import Progress as Progress
    from ptycho_core.training import fit as fit
    from ptycho_core.training import train as train

__getattr__, _names = lazy_names(
    __name__,
    {
        "architecture": ("TableBuilder", "register_architecture"),
        "archive": ("Model", "load_model"),
        "config": ("ExecutionConfig", "InferenceConfig", "ModelConfig", "TrainingConfig"),
        "configfiles": ("read_configs", "write_config"),
        "contracts": ("Batch", "Scan"),
        "engine": ("Engine", "Network", "registered_engines"),
        "errors": (
            "ArchiveError",
            "BackendError",
            "Cancelled",
            "ConfigurationError",
            "DataError",
            "PtychoError",
            "TrainingError",
        ),
        "evaluation": ("Comparison", "Truth", "evaluate", "load_truth"),
        "export": ("export_model",),
        "io": ("convert", "load_scan", "save_scan"),
        "orientation": ("rank_orientations",),
        "published": ("convert_published", "import_published"),
        "reading": ("ReadOptions",),
        "reconstruction": ("Reconstruction", "load_reconstruction", "reconstruct"),
        "simulation": ("simulate",),
        "splitting": ("split",),
        "training": ("EpochReport", "Fit", "Progress", "fit", "train"),
    },
)
__all__ = sorted([*_names, "__version__"])


def __dir__() -> list[str]:
    return __all__
