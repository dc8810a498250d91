"""A pytest plugin, `-p tests.meta.without_torch`: a machine on which PyTorch is not installed."""

import sys

sys.modules["torch"] = None  # type: ignore[assignment]
