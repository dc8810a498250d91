"""Ptychographic images from physics-informed networks: one core, interchangeable engines.

scan = load_scan("scan.npz")
model = train(scan, TrainingConfig(model=ModelConfig(N=64), backend="torch"))
reconstruction = reconstruct(scan, model)
"""

import lazy_loader

__version__ = "0.1.0"

# The public names are those of the stub beside this file; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
