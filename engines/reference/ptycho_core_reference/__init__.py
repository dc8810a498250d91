"""The yardstick: a complete engine in float64 numpy, gradients written by hand.

Every engine's contract tests compare with it, and a new engine may be written by reading it. It is not registered as a
backend: it is exact, single-threaded and slow.
"""

from ptycho_core_reference.engine import ReferenceEngine
from ptycho_core_reference.network import ReferenceNetwork
from ptycho_core_reference.physics import ForwardModel

__all__ = ["ForwardModel", "ReferenceEngine", "ReferenceNetwork"]
