"""The same scan with fewer photons."""

from __future__ import annotations

import attrs
import numpy as np

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.scans.scan import Scan


def thinned(scan: Scan, part: float, rng: np.random.Generator) -> Scan:
    """A scan in which every photon was counted with the probability `part`: what a shorter exposure would have given.

    Of Poisson counts that leaves Poisson counts. Raises DataError where the counts are not known.
    """
    if not 0 < part <= 1:
        remedy = "Give 0.1 for a tenth of the photons."
        raise ConfigurationError("simulation", "part", expected="above 0, up to 1", received=part, remedy=remedy)
    if not scan.dose_known:
        remedy = "State that the patterns are counts (--amplitude-unit 'sqrt(counts)')."
        raise DataError(scan.source, "dose", expected="patterns in photons", received="an unknown unit", remedy=remedy)
    counts = np.rint(np.square(np.asarray(scan.diffraction_amplitude[:]), dtype=np.float64)).astype(np.int64)
    fewer = np.sqrt(rng.binomial(counts, part)).astype(np.float32)
    return attrs.evolve(scan, diffraction_amplitude=fewer, source=f"{scan.source}, thinned to {part:.3g}")
