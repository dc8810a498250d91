"""Our algorithms in Ptychodus 1.7: PINN, Supervised and solve, in the library "ptycho-core" (docs/ptychodus.md).

    python -m ptycho_core.integrations.ptychodus    # Ptychodus with them, and its own arguments

    with ModelCore() as core:
        register(core)  # the same in a script: ptycho-core_pinn, ptycho-core_supervised and ptycho-core_solve

Every training and reconstruction runs in a child process of its own; here no framework is imported.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptycho_core.integrations.ptychodus.reconstructors import PtychoCoreReconstructorLibrary

__all__ = ["register"]

if multiprocessing.parent_process() is None:  # a child that works for us imports the script again, and has no settings
    from ptycho_core.integrations.ptychodus import settings_files

    settings_files.remember()


def register(core: Any) -> PtychoCoreReconstructorLibrary:
    """Add the algorithms to a running `ptychodus.model.ModelCore`, before a settings file is opened or after that.

    The first of ours is chosen where no algorithm was. Where they are added already nothing changes, and the library
    that was added is returned.
    """
    from ptycho_core.integrations.ptychodus.reconstructors import add

    return add(core)
