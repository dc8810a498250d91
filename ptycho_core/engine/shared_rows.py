"""What several processes hold of one object, each a band of it (specs/solving.md, Several processes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

N = TypeVar("N", bound=np.number[Any])
Index = tuple[slice, ...]


@attrs.frozen
class SharedRows:
    """The rows that more than one process holds, as one of the processes sees them. Hashable.

    axis: 0, or 1 where the bands lie side by side and these are columns. count: all of them, one after the other in a
    message that has the same shape in all processes. held: those of this process's canvas, as (first row in the canvas,
    the row after the last one, where the first one is in the message), in rising order.

    >>> rows = SharedRows(axis=0, count=3, held=((6, 8, 1),))
    >>> rows.summed(np.ones((8, 2)), lambda message: 2 * message)[5:]
    array([[1., 1.],
           [2., 2.],
           [2., 2.]])
    """

    axis: int
    count: int
    held: tuple[tuple[int, int, int], ...]

    @classmethod
    def all_of(cls, shape: Sequence[int]) -> SharedRows:
        """Those of a canvas that every process holds as a whole."""
        return cls(0, shape[0], ((0, shape[0], 0),))

    @property
    def all_held(self) -> bool:
        """Whether this process holds all that is in the message."""
        return sum(stop - start for start, stop, _ in self.held) == self.count

    def message_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of the message, by that of this process's canvas."""
        return tuple(self.count if axis == self.axis else size for axis, size in enumerate(shape))

    @property
    def places(self) -> list[tuple[Index, Index]]:
        """Where pieces of the rows are in the canvas, and where they are in the message."""
        before = (slice(None),) * self.axis
        return [
            ((*before, slice(start, stop)), (*before, slice(there, there + stop - start)))
            for start, stop, there in self.held
        ]

    def summed(self, array: NDArray[N], total: Callable[[NDArray[N]], NDArray[N]]) -> NDArray[N]:
        """The array of a canvas (H, W, …), its shared rows summed in place. total: sums over the processes."""
        message = np.zeros(self.message_shape(array.shape), array.dtype)
        for own, there in self.places:
            message[there] = array[own]
        message = total(message)
        for own, there in self.places:
            array[own] = message[there]
        return array
