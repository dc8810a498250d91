"""An unchanged Ptychodus, headless, with its own PtychoPINN library: export, train, save, load, reconstruct.

`python drive_library.py FOLDER SETTINGS_JSON WAY…`; the folder holds diffraction.h5 and product.h5, and a WAY is how a
model comes to its reconstruction: saved (as a file, and loaded) or bundle (a zip file of its folder). A program of its
own, because Ptychodus spawns processes, which need a main module that can be imported.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, settings: dict[str, dict[str, Any]], ways: list[str]) -> None:
    from ptychodus.model import ModelCore  # the processes that it spawns import this file, and do without

    algorithm = "ptychopinn_pinn"
    with ModelCore(log_level=20) as core:
        library = core.ptychopinn_reconstructor_library
        for group, values in settings.items():
            for name, value in values.items():
                getattr(getattr(library, f"{group}_settings"), name).set_value(value)
        workflow, processing = core.workflow_api, core.processing_core.processing_api
        assert algorithm in list(workflow.available_reconstructors())  # an unknown one would be ignored

        diffraction = workflow.load_assembled_diffraction_data(folder / "diffraction.h5")
        product = workflow.load_product(folder / "product.h5", file_type="HDF5", diffraction=diffraction)
        for name in ("train_data.npz", "test_data.npz"):
            product.export_training_data(folder / name, algorithm=algorithm)
        product.train_reconstructor_local(folder, folder / "trained", algorithm=algorithm, block=True)

        def reconstruct(name: str) -> None:
            result = product.reconstruct_local(algorithm=algorithm, block=True)
            core.run_tasks()
            result.save_product(folder / name, file_type="HDF5")

        for way in ways:
            if way == "saved":
                # Ptychodus unpacks this file when it uses it.
                processing.save_model_to_file(folder / "saved.zip", algorithm)
                processing.load_model_from_file(folder / "saved.zip", algorithm)
            elif way == "bundle":
                bundle = shutil.make_archive(str(folder / "bundle"), "zip", root_dir=folder / "trained")
                processing.load_model_from_file(Path(bundle), algorithm)
            reconstruct(f"{way}.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:])
