"""What every engine does alike around its steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import SupportsFloat

from ptycho_core.batches.batch import Batch
from ptycho_core.vocabulary import LossTerms


def windows(batches: Iterable[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """The batches of each step of the optimiser: `size` in a row, fewer at the end; each is taken when it is needed."""
    remaining = iter(batches)
    for first in remaining:
        yield itertools.chain((first,), itertools.islice(remaining, size - 1))


def mean_terms(terms: Iterable[tuple[int, Mapping[str, SupportsFloat]]]) -> LossTerms:
    """The mean of loss terms over batches, each weighted by its number of groups."""
    totals: dict[str, float] = {}
    groups = 0
    for size, batch in terms:
        groups += size
        for name, term in batch.items():
            totals[name] = totals.get(name, 0.0) + size * float(term)
    return {name: total / groups for name, total in totals.items()}
