"""Refuse to build for an environment that holds another distribution with a package `ptycho`.

pip builds a source distribution or a folder with the interpreter that it installs for, before it changes anything
there; but in an isolated process, which does not see that environment's packages. So its folders are looked at.
"""

from __future__ import annotations

import runpy
import site
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RefuseBesideAnother(BuildHookInterface):
    """Raises before anything is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        refusal = runpy.run_path(str(Path(self.root) / "ptycho" / "_others.py"))["refusal"]
        message = refusal(distributions(path=sorted(folders_of_this_interpreter())))
        if message is not None:
            raise RuntimeError(message)


def folders_of_this_interpreter() -> set[str]:
    """Where this interpreter's packages lie, whatever the isolation has taken off `sys.path`."""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return installed | {*site.getsitepackages(), site.getusersitepackages()}
