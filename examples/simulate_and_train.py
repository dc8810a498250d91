"""Simulate a scan, train on its patterns alone, reconstruct it and compare with the truth.

    python examples/simulate_and_train.py

The scan is small, so that this takes seconds; a real one has patterns of 64 pixels or more. The network is the default,
a canvas; `architecture="cnn"` is the one that works on single patches.
"""

from __future__ import annotations

from ptycho_core import Comparison, ModelConfig, TrainingConfig, evaluate, fit, reconstruct, simulate


def main(backend: str = "auto", epochs: int = 4) -> Comparison:
    scan = simulate(object="dead-leaves", N=32, positions=200, photons=1e6, seed=1)
    config = TrainingConfig(model=ModelConfig(N=32), backend=backend, nepochs=epochs, n_groups=32)

    for report in (run := fit(scan, config)):  # leave the loop to stop; the best weights so far are kept
        print(f"epoch {report.epoch} of {report.nepochs}: loss {report.train['total']:.4f}")
    assert run.model is not None
    run.model.save("run")

    result = reconstruct(scan, run.model)
    result.save("run")
    comparison = evaluate(result, scan.object_field)
    print(comparison.table())
    return comparison


if __name__ == "__main__":
    main()
