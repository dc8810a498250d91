"""What a network of a canvas was trained with: the illumination of each of its scans (specs/archive.md, Weights)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.lengths import Pair
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, MEAN_INTENSITY, PROBE, Weights, of_scan

SCALARS = (INPUT_SCALE, MEAN_INTENSITY, COUNTS_PER_INTENSITY)


@attrs.frozen(eq=False)
class Seen:
    """A scan that a model was trained on. object_pixel_m: (x, y); None where that is not known."""

    illumination: Illumination
    object_pixel_m: Pair | None = None


def to_numbered(others: Sequence[Illumination]) -> dict[str, NDArray[np.floating]]:
    """The arrays of the illuminations of the second scan and of those after it, as archives hold them."""
    numbered = enumerate(others, start=2)
    return {of_scan(number, name): array for number, light in numbered for name, array in light.arrays().items()}


def from_numbered(arrays: Weights, N: int) -> tuple[dict[str, NDArray[np.floating]], tuple[Illumination, ...]]:
    """The arrays of no number, and the illuminations. ArchiveError where one is incomplete or of another size."""
    rest, others = dict(arrays), list[Illumination]()
    while of_scan(len(others) + 2, PROBE) in rest:
        names = {name: of_scan(len(others) + 2, name) for name in (PROBE, *SCALARS)}
        missing = sorted(set(names.values()) - set(rest))
        if missing:
            raise ArchiveError("weights", received=f"missing {missing}; the illumination of a scan is incomplete")
        light = {name: rest.pop(numbered) for name, numbered in names.items()}
        received = np.shape(light[PROBE])
        if len(received) != 4 or not received[0] or received[1:] != (N, N, 2):
            raise ArchiveError("weights", names[PROBE], expected=f"shape (modes, {N}, {N}, 2)", received=received)
        check_light(light, names)
        others.append(Illumination.from_arrays(light))
    return rest, tuple(others)


def check_light(arrays: Weights, names: Mapping[str, str] | None = None) -> None:
    """ArchiveError for a data scale that is none, or an illumination without light. names: what to call each."""
    names = names or {}
    for name in SCALARS:
        value = np.asarray(arrays[name])
        if value.shape != () or not 0 < float(value) < np.inf:
            received = f"{float(value):g}" if value.shape == () else f"shape {value.shape}"
            raise ArchiveError(
                "weights.safetensors", names.get(name, name), expected="a number > 0", received=received, remedy=DAMAGED
            )
    probe = np.asarray(arrays[PROBE])
    if not np.isfinite(probe).all() or not probe.any():
        received = "zeros only" if not probe.any() else "NaN or infinity"
        expected = "finite values, not all 0"
        raise ArchiveError(
            "weights.safetensors", names.get(PROBE, PROBE), expected=expected, received=received, remedy=DAMAGED
        )


DAMAGED = "The model archive is damaged: copy or train it again."
