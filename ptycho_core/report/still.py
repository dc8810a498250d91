"""An object of a work in progress, taken so that the work can go on."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray


@attrs.frozen(eq=False, kw_only=True)
class Still:
    """An object that is not changed any more, as arrays; an `ObjectSoFar`."""

    origin_px: tuple[float, float]
    field: NDArray[np.complex64]
    known: NDArray[np.bool_]
    limit: NDArray[Any] | None = None
    positions_px: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, so_far: Any) -> Any:
        """A snapshot of an object, by its own means, where it has such."""
        if hasattr(so_far, "snapshot"):
            return so_far.snapshot()
        field, known = so_far.known_field()
        limit, places = (getattr(so_far, name, lambda: None)() for name in ("photon_limit", "places"))
        return cls(origin_px=so_far.origin_px, field=field, known=known, limit=limit, positions_px=places)

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        return self.field, self.known

    def photon_limit(self) -> NDArray[Any] | None:
        return self.limit

    def places(self) -> NDArray[np.float64] | None:
        return self.positions_px
