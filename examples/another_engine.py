"""Train with one engine, reconstruct with another, and compare the two objects.

    python examples/another_engine.py

A model is arrays under names that every engine knows, so any engine runs any model. Needs two engines:
pip install 'ptycho-core[all]'.
"""

from __future__ import annotations

import numpy as np

from ptycho_core import ModelConfig, TrainingConfig, load_model, reconstruct, registered_engines, simulate, train
from ptycho_core.engine.registry import is_installed


def main() -> float:
    """The largest difference of the two objects, as a fraction of the peak."""
    installed = [name for name in sorted(registered_engines()) if is_installed(name)]
    if len(installed) < 2:
        raise SystemExit(f"installed: {', '.join(installed) or 'no engine'}; this example compares two")
    first, second = installed[-1], installed[0]

    scan = simulate(object="dead-leaves", N=32, positions=120, photons=1e6, seed=2)
    model = ModelConfig(N=32, n_filters_scale=1)
    train(scan, TrainingConfig(model=model, backend=first, nepochs=1, n_groups=16)).save("model")

    objects = [reconstruct(scan, load_model("model", backend=name)).object_field for name in (first, second)]
    difference = float(np.abs(objects[1] - objects[0]).max() / np.abs(objects[0]).max())
    print(
        f"trained with {first}; reconstructed with {first} and {second}: objects differ by {difference:.1e} of the peak"
    )
    return difference


if __name__ == "__main__":
    main()
