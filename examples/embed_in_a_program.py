"""Training and reconstruction inside a program: arrays in metres, progress, partial objects, and a stop.

    python examples/embed_in_a_program.py [BACKEND]

Each call works in a child process that it starts, so this process imports no deep-learning framework. The child imports
this file, which is why the work stands under `if __name__ == "__main__"`.
"""

from __future__ import annotations

import sys

import numpy as np

from ptycho_core import embedding, simulate

PIXEL_M = 10e-9


def arrays() -> embedding.ScanArrays:
    """What a program has at hand: patterns as counts, positions of the patches' middles in metres, and a grid."""
    scan = simulate(object="dead-leaves", N=32, positions=60, photons=1e6, seed=2)
    assert scan.object_field is not None
    height, width = scan.object_field.shape
    centre_px = np.array([(width - 1) / 2, (height - 1) / 2])
    middles_px = scan.positions_px - 0.5  # a scan's position names pixel [N/2, N/2], the middle is half a pixel before
    return embedding.ScanArrays(
        patterns=np.round(scan.diffraction_amplitude[:] ** 2),
        measurement="intensity",
        positions_m=(middles_px - centre_px) * PIXEL_M,
        probe=scan.probe,
        grid=embedding.ObjectGrid(shape=(height, width), pixel_m=(PIXEL_M, PIXEL_M), centre_m=(0.0, 0.0)),
    )


def main(backend: str = "auto") -> None:
    for setting in embedding.describe_settings("training")[:4]:  # enough to draw a form
        print(f"{setting.name}: {setting.help}")

    data = arrays()
    model = {"architecture": "cnn", "n_filters_scale": 1, "pad_object": False}
    config = embedding.make_config("training", {"backend": backend, "nepochs": 100, "n_groups": 60, **model})
    for progress in embedding.train(data, "model.zip", config):
        print(f"epoch {progress.epoch} of {progress.goal}: loss {progress.train['total']:.4f}")
        if progress.epoch == 3:
            break  # closes the iterator, which ends the child; the best model so far is in model.zip

    for partial in embedding.reconstruct(data, "model.zip"):
        print(f"{partial.done} of {partial.goal} groups, {partial.known.mean():.0%} of the object known")
    np.save("object.npy", partial.object_field)


if __name__ == "__main__":
    main(*sys.argv[1:])
