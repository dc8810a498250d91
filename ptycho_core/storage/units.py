"""Units as files name them (specs/data.md, HDF5)."""

from __future__ import annotations

from collections.abc import Mapping

ELECTRONVOLT_J = 1.602176634e-19  # exact, SI

LENGTHS: Mapping[str, float] = {
    "m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0,
    "cm": 1e-2, "centimeter": 1e-2, "centimeters": 1e-2,
    "mm": 1e-3, "millimetre": 1e-3, "millimeter": 1e-3, "millimeters": 1e-3,
    "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "micrometre": 1e-6, "micrometer": 1e-6,
    "micrometers": 1e-6,
    "nm": 1e-9, "nanometre": 1e-9, "nanometer": 1e-9, "nanometers": 1e-9,
    "å": 1e-10, "angstrom": 1e-10, "angstroms": 1e-10, "ang": 1e-10, "a": 1e-10,
    "pm": 1e-12, "picometer": 1e-12,
}  # fmt: skip
ENERGIES: Mapping[str, float] = {
    "ev": 1.0,
    "kev": 1e3,
    "mev": 1e6,
    "j": 1 / ELECTRONVOLT_J,
    "joule": 1 / ELECTRONVOLT_J,
    "joules": 1 / ELECTRONVOLT_J,
}
KINDS: Mapping[str, Mapping[str, float]] = {"m": LENGTHS, "eV": ENERGIES}


def factor_to(unit: str, name: str) -> float | None:
    """What a number in the unit called `name` is multiplied by to be in `unit`, "m" or "eV"; None: not known.

    >>> factor_to("m", "mm"), factor_to("eV", "keV"), factor_to("m", "furlong")
    (0.001, 1000.0, None)
    """
    return KINDS[unit].get(name.strip().lower())
