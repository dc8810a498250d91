"""The process that embeds us imports no framework, whatever it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ptychodus", reason="ptychodus is not installed")

from tests.ptychodus.conftest import ONE

SCRIPT = """
import dataclasses, sys
from pathlib import Path

def main(pair, out, backend):
    from ptychodus.api.io import load_diffraction_data, load_product
    from ptychodus.api.reconstruct import prepare_reconstruct_input
    from ptychodus.api.settings import SettingsRegistry
    from ptycho_core.integrations.ptychodus.reconstructors import PtychoCoreReconstructorLibrary
    import ptycho_core.integrations.ptychodus_plugin

    registry = SettingsRegistry()
    library = PtychoCoreReconstructorLibrary(registry)
    values = {"NumEpochs": 1, "NumGroups": 8, "Backend": backend}
    for name, value in values.items():
        registry["PtychoCoreTraining"].parameters()[name].set_value(value)
    registry["PtychoCoreModel"].parameters()["NumFiltersScale"].set_value(1)
    pinn = next(iter(library))
    parameters = prepare_reconstruct_input(
        load_diffraction_data(pair / "diffraction.h5"), load_product(pair / "product.h5")
    )
    pinn.export_training_data(out / "train_data.npz", parameters)
    trained = list(pinn.train(out / "train_data.npz", out / "model"))
    results = [(output.progress, pinn.get_progress_goal()) for output in pinn.reconstruct(parameters)]
    done, goal = results[-1]
    assert len(trained) == 1 and done == goal and goal % len(parameters.diffraction_patterns) == 0
    print("imported:", sorted({"torch", "tensorflow", "keras"} & set(sys.modules)))

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.skipif(not ONE, reason="no engine is installed")
def test_training_and_reconstruction_import_no_framework_here(simulated: object, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(simulated.pair), str(tmp_path), ONE]  # type: ignore[attr-defined]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout
