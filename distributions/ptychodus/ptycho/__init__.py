"""ptycho-core under the names by which Ptychodus calls its PtychoPINN library.

Only what Ptychodus 1.7 calls is here; every other program is better served by `ptycho_core` and `ptycho_core.legacy`.
"""

from importlib.metadata import distributions

from ptycho._others import refusal

if (_message := refusal(distributions())) is not None:
    raise ImportError(_message, name="ptycho")
