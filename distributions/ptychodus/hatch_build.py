"""Refuse to build for an environment with another package `ptycho` or `ptycho_torch`; leave out a second `lightning`.

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
        others = runpy.run_path(str(Path(self.root) / "ptycho" / "_others.py"))
        installed = list(distributions(path=sorted(folders_of_this_interpreter())))
        for package in ("ptycho", "ptycho_torch"):
            message = others["refusal"](installed, package)
            if message is not None:
                raise RuntimeError(message)
        if self.target_name == "wheel" and not any(others["has_package"](item, "lightning") for item in installed):
            build_data["force_include"][str(Path(self.root) / "lightning")] = "lightning"


def folders_of_this_interpreter() -> set[str]:
    """Where this interpreter's packages lie, whatever the isolation has taken off `sys.path`."""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return installed | {*site.getsitepackages(), site.getusersitepackages()}
