"""Shares of what several processes do together (specs/engine.md, Several processes)."""

from __future__ import annotations

import attrs


@attrs.frozen
class Part:
    """One of `size` shares that differ by one at most: the `rank`-th, from 0. The default is all there is.

    >>> [Part(rank, 3).of(7) for rank in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> slice:
        """The share of `count` things in a row; empty where there are fewer things than shares and none is left."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


WHOLE = Part()
"""The share of a process that works alone."""
