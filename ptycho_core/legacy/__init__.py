"""What users of the published implementations rely on, over the native API (docs/legacy.md).

Flat `params.cfg` dictionaries, PyTorch-style configurations, RawData, and the five workflow entry points.
"""

import lazy_loader

# The public names are those of the stub beside this file; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
