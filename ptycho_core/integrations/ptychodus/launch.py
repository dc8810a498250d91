"""Ptychodus with our algorithms: its own command line, its own window, nothing of its files changed."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

log = logging.getLogger("ptycho_core")


def main() -> int:
    """Run Ptychodus with its own arguments, those of `sys.argv`; returns its exit code."""
    import ptychodus.__main__ as program

    program.ModelCore = core_class()
    arguments = argparse.ArgumentParser(add_help=False)
    arguments.add_argument("-b", "--batch")
    if arguments.parse_known_args()[0].batch is None and importlib.util.find_spec("PyQt5") is not None:
        from ptycho_core.integrations.ptychodus import page

        page.install()
    return int(program.main())


def core_class() -> type[Any]:
    """Ptychodus's ModelCore, which has our algorithms before it reads a settings file."""
    from ptychodus.api.exit_codes import ExitCode
    from ptychodus.api.io import StandardFileLayout
    from ptychodus.model import ModelCore

    from ptycho_core.integrations.ptychodus import register, settings_files

    class Core(ModelCore):
        def __init__(self, settings_file: Path | None = None, *, log_level: int = logging.WARNING) -> None:
            super().__init__(log_level=log_level)
            self.ptycho_core_library = register(self)
            if settings_file is not None:
                self.settings_registry.open_settings(settings_file)

        def __exit__(self, *exception: Any) -> None:
            self.processing_core.processing_api.task_monitor.stop_processing()  # first: all else may take seconds
            super().__exit__(*exception)

        def batch_mode_execute(self, action: str, input_directory: Path, output_directory: Path) -> ExitCode:
            """As Ptychodus does, but no other algorithm than the one that is stated, and the result as product.h5."""
            settings_file = input_directory / StandardFileLayout.SETTINGS
            stated = settings_files.read(settings_file).get("Processing", {}).get("algorithm")
            known = list(self.processing_core.processing_api.available_reconstructors())
            if stated is not None and stated.strip().casefold() not in known:
                log.error(
                    "%s: Processing: Algorithm must be one of %s; got %r.", settings_file, ", ".join(known), stated
                )
                return ExitCode.USAGE
            code = super().batch_mode_execute(action, input_directory, output_directory)
            if action == "reconstruct" and code == ExitCode.SUCCESS:
                whole = Path(output_directory / StandardFileLayout.PRODUCT)
                parts = list(output_directory.glob(f"{whole.stem}.*{whole.suffix}"))
                if parts:  # Ptychodus numbers every output and leaves the last one so
                    shutil.copyfile(max(parts, key=lambda path: path.stat().st_mtime_ns), whole)
                    log.info("The result is %s.", whole)
            return code

    return Core
