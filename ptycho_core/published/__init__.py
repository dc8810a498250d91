"""Archives of the published implementations: what they are, and ours made from them (docs/published.md)."""

import lazy_loader

# The public names are those of the stub beside this file; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
