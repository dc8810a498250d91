"""Reconstruction of a scan that is still being measured (specs/live.md).

`LiveReconstruction` places frames as they come; sources bring them from a file that grows, a folder, a stream.
"""

from ptycho_core.live.reconstruction import LiveReconstruction, LiveReport
from ptycho_core.live.setup import Setup

__all__ = ["LiveReconstruction", "LiveReport", "Setup"]
