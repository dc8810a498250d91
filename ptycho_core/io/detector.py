"""From stored patterns to square ones: masks, background, centre, orientation, crop, bins (specs/data.md, Readers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.places import place_of, read_place
from ptycho_core.io.stored import Grid, Stored
from ptycho_core.scans.beam import beam_centroid
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.steps import Bin, Blank, Level, Orient, Roll, Step, centred, fftshift
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.words import mask_kinds
from ptycho_core.storage.source import frames_of_a_block
from ptycho_core.vocabulary import Measurement

CENTRE_FRAMES = 64
"""Of a scan, evenly spread: what the centroid of the direct beam is taken from."""


def detector_orientation(options: ReadOptions) -> Orient:
    """How the options turn the stored patterns."""
    return Orient(options.transpose, options.flip_rows, options.flip_columns)


def detector_steps(
    stored: Stored, options: ReadOptions, measurement: Measurement
) -> tuple[tuple[Step, ...], Grid, NDArray[np.bool_]]:
    """Bad pixels blank, background off, DC in the centre, orientation, crop, bins and pad, in this order.

    The mask of the stored patterns (H, W), after the reader's own steps, comes last.
    """
    steps = list(stored.steps)
    height, width = stored.frames.shape[1:]
    for step in steps:
        height, width = step.shape(height, width)
    bad = _bad_pixels(stored, options, (height, width))
    if bad.any():
        stated = (options.bad_pixels, options.good_pixels, options.mask) != (None, None, None)
        steps.append(Blank(bad, kept=stored.keeps_bad and not stated))
    steps += _background(stored, options, measurement, (height, width))
    if options.dc == "corner":
        steps.append(fftshift((height, width)))
    beam = options.stated_centre
    if options.centre == "auto":
        beam = _centroid(stored, steps, bad, measurement)
    centre = beam or (height // 2, width // 2)
    if not (centre[0] < height and centre[1] < width):
        received, remedy = f"row {centre[0]}, column {centre[1]}", "Give the pixel of the direct beam."
        expected = f"a centre on {height} x {width} pixels"
        raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy)
    turn = detector_orientation(options)
    known = centre if turn == Orient() and options.dc != "corner" else None
    if turn != Orient():
        steps.append(turn)
        height, width = turn.shape(height, width)
        row, column = centre[::-1] if turn.transpose else centre
        centre = (height - 1 - row if turn.flip_rows else row, width - 1 - column if turn.flip_columns else column)
    crop = options.crop or (min(height, width) if beam else None)
    if options.crop is not None and options.crop > max(height, width):
        expected, received = f"at most {max(height, width)} pixels, as the patterns have", f"crop = {options.crop}"
        remedy = "Crop to fewer, or pad them"
        raise DataError(
            stored.path, stored.key, expected=expected, received=received, remedy=remedy, state=(f"pad={options.crop}",)
        )
    window = (height, width) if crop is None else (crop, crop)
    middle = height // 2, width // 2
    if beam is None and window == (height, width):
        if centre != middle:  # a flip about the centre: the row that leaves is the one that enters
            steps.append(Roll(middle[0] - centre[0], middle[1] - centre[1]))
    elif crop is not None and (window != (height, width) or centre != middle):
        steps.append(centred((height, width), crop, centre))
    if options.bin > 1:
        steps.append(Bin(options.bin))
    side = window[0] // options.bin, window[1] // options.bin
    if options.pad is not None and side != (options.pad, options.pad):
        if max(side) > options.pad:
            received, remedy = f"pad = {options.pad}", "Use crop to make patterns smaller."
            expected = f"at least {max(side)} pixels"
            raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy)
        steps.append(centred(side, options.pad))
        side = options.pad, options.pad
    if side[0] != side[1]:
        expected, received = "square patterns", f"{side[0]} x {side[1]} pixels"
        remedy, state = "Crop or pad them", (f"crop={min(side) * options.bin}", f"pad={max(side)}")
        raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy, state=state)
    return tuple(steps), Grid(height, width, window, options.bin, side[0], known), bad


def _centroid(
    stored: Stored, steps: Sequence[Step], bad: NDArray[np.bool_], measurement: Measurement
) -> tuple[int, int]:
    """The pixel (row, column) nearest to the centroid of the mean of some patterns."""
    some = np.unique(np.linspace(0, stored.count - 1, CENTRE_FRAMES).astype(np.int64))
    index = some if stored.index is None else stored.index[some]
    frames = Frames(stored.frames, measurement=measurement, steps=steps, name=stored.path, key=stored.key, index=index)
    total = np.zeros(bad.shape)
    for block in frames.blocks():
        total += np.nan_to_num(np.square(block, dtype=np.float64)).sum(axis=0)
    row, column = beam_centroid(total, ~bad)
    return round(row), round(column)


def _background(stored: Stored, options: ReadOptions, measurement: Measurement, shape: tuple[int, int]) -> list[Step]:
    """What is taken off the counts, and nothing left below 0."""
    if options.dark is None and options.background is None:
        return [Level()] if options.clip_negative else []
    name = "dark" if options.dark is not None else "background"
    if measurement != "intensity":
        remedy = "Take it off the counts, before their root"
        received, state = "amplitudes", ("measurement=intensity",)
        raise DataError(stored.path, name, expected="counts", received=received, remedy=remedy, state=state)
    background: NDArray[np.float64] | float = options.background or 0.0
    if options.dark is not None:
        place = place_of(options.dark, stored.path)
        dark = np.asarray(read_place(place, "dark"), np.float64)
        dark = dark.mean(axis=tuple(range(dark.ndim - 2))) if dark.ndim > 2 else dark
        if dark.shape != shape or not np.isfinite(dark).all():
            expected, received = f"finite numbers {shape} or (k, {shape[0]}, {shape[1]})", f"shape {dark.shape}"
            remedy = "Give a background of the stored patterns, before crop and bins."
            raise DataError(stored.path, str(place), expected=expected, received=received, remedy=remedy)
        background = dark + background
    return [Level(background)]


def _bad_pixels(stored: Stored, options: ReadOptions, shape: tuple[int, int]) -> NDArray[np.bool_]:
    masks: list[tuple[str, NDArray[Any]]] = []
    if stored.bad_pixels is not None and options.good_pixels is None:
        masks.append(("bad_pixels", stored.bad_pixels))
    stated = options.bad_pixels or options.good_pixels
    if stated is not None:
        place = place_of(stated, stored.path)
        values = read_place(place, "bad_pixels", kinds="biuf")
        masks.append((str(place), values == 0 if options.good_pixels is not None else values))
    bad = np.zeros(shape, bool)
    for name, mask in masks:
        mask = np.squeeze(np.asarray(mask)) if np.ndim(mask) > 2 else np.asarray(mask)
        if mask.shape != shape:
            remedy = "Give a mask of the stored patterns, before crop and bins."
            expected, received = f"shape {shape}", f"shape {mask.shape}"
            raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy)
        bad |= mask != 0
    if options.mask is not None:
        bad |= _shown_bad(stored, options, shape)
    return bad


def _shown_bad(stored: Stored, options: ReadOptions, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): pixels that any pattern shows to be bad, in one pass. Patterns that are mostly not finite say nothing."""
    kinds, source = mask_kinds(options.mask or ""), stored.frames
    level = Frames(source, index=stored.index, saturation=options.saturation).saturation
    bad = np.zeros(shape, bool)
    count = frames_of_a_block(source)
    everything = np.arange(source.shape[0]) if stored.index is None else stored.index
    for start in range(0, len(everything), count):
        block = source.read(everything[start : start + count])
        for step in stored.steps:
            block = step.apply(block)
        if "nan" in kinds and block.dtype.kind == "f":
            infinite = ~np.isfinite(block)
            bad |= infinite[infinite.mean(axis=(1, 2)) < 0.5].any(axis=0)
        if "negative" in kinds:
            bad |= (block < 0).any(axis=0)
        if "saturated" in kinds and level is not None:
            bad |= (block >= level).any(axis=0)
    return bad
