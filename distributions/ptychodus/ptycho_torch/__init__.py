"""ptycho-core under the names by which Ptychodus calls its PtychoPINN-Torch library.

Only what Ptychodus 1.7 calls is here; every other program is better served by `ptycho_core`. Nothing here imports
PyTorch: the engine does, in the child process in which Ptychodus trains and reconstructs.
"""

from importlib.metadata import distributions

from ptycho._others import refusal

if (_message := refusal(distributions(), "ptycho_torch")) is not None:
    raise ImportError(_message, name="ptycho_torch")
