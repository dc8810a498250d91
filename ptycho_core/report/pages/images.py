"""Arrays as pictures in a page: coloured as in the figures, and small."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import MissingExtraError
from ptycho_core.quality.metrics import Mask
from ptycho_core.quality.ramp import flattened
from ptycho_core.report.plots.drawing import AMPLITUDE_MAP, ERROR_MAP, PATTERN_MAP, TINY, Limits, limits_of
from ptycho_core.report.plots.objects import Canvas, phase_limits

UNKNOWN = (217, 217, 217)
"""The grey of what was not measured, as in the figures."""
LARGEST_PX = 2048
"""Pixels of a picture each way at most; of a larger array every second, third, … pixel is shown."""
MOST_BYTES = 800_000
QUALITIES = (85, 70, 50, 30, 15)
"""Of WebP, tried until a picture has at most so many bytes."""
TRIED_PX = 384
"""Pixels each way on which a quality is tried."""
MEASURED_PX = 1024
"""Pixels each way of which limits are found."""
RAMP_PX = 512
"""Pixels each way of which the ramp is found."""


@attrs.frozen(eq=False)
class Coloured:
    """A picture: a data URI, and what its colours mean. palette: hexadecimal; logarithmic where `log`."""

    uri: str
    title: str
    label: str
    low: float
    high: float
    palette: Sequence[str]
    log: bool = False


@functools.cache
def colours(name: str) -> NDArray[np.uint8]:
    """(256, 3): a colour map of matplotlib. Raises MissingExtraError."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("a page", "matplotlib", "pages", setting="report") from error
    return np.asarray(255 * matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] + 0.5, np.uint8)


@functools.cache
def palette(name: str) -> tuple[str, ...]:
    return tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours(name))


def coloured(
    values: NDArray[Any],
    known: Mask,
    limits: Limits,
    color_map: str,
    *,
    title: str,
    label: str,
    log: bool = False,
    most_bytes: int = MOST_BYTES,
) -> Coloured:
    """Real values (H, W) in the colours of a map between the limits; grey where not known."""
    step = -(-max(values.shape) // LARGEST_PX)
    shown, inside = np.asarray(values[::step, ::step], np.float32), known[::step, ::step]
    low, high = (float(np.log(limit)) if log else float(limit) for limit in limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = ((np.log(shown) if log else shown) - np.float32(low)) * np.float32(255 / max(high - low, TINY))
    index = np.where(np.isfinite(share) & inside, np.clip(share, 0, 255), 256).astype(np.int16)
    return Coloured(picture(_in_colours(index, color_map), most_bytes), title, label, *limits, palette(color_map), log)


def _in_colours(index: NDArray[np.int16], color_map: str) -> NDArray[np.uint8]:
    """(H, W, 4), of which three are red, green and blue: of each pixel the colour of its index; 256 is not known."""
    table = np.zeros((257, 4), np.uint8)
    table[:, :3] = [*colours(color_map), UNKNOWN]
    return table.view(np.uint32)[:, 0][index].view(np.uint8).reshape(*index.shape, 4)  # a colour is looked up at once


def picture(rgb: NDArray[np.uint8], most_bytes: int = MOST_BYTES, *, exact: bool = False) -> str:
    """A data URI of an image (H, W, 3 or 4: the fourth is left out): WebP of as good a quality as the bytes allow.

    Of one that the worst quality leaves too large, every second pixel is shown. exact: PNG, pixel by pixel.
    """
    from PIL import Image

    def packed(part: NDArray[np.uint8], form: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        mode = "RGBX" if part.shape[-1] == 4 else "RGB"
        Image.frombytes(mode, part.shape[1::-1], part.tobytes()).save(stream, form, **options)
        return stream.getvalue()

    if exact:
        return f"data:image/png;base64,{base64.b64encode(packed(rgb, 'PNG')).decode()}"
    height, width = rgb.shape[:2]
    top, left = max(0, height - TRIED_PX) // 2, max(0, width - TRIED_PX) // 2
    tried = rgb[top : top + TRIED_PX, left : left + TRIED_PX]  # of which the quality follows
    room = most_bytes * tried.size / rgb.size
    good = (quality for quality in QUALITIES if len(packed(tried, "WEBP", quality=quality, method=0)) <= room)
    quality = next(good, None)
    if quality is None:
        return picture(rgb[::2, ::2], most_bytes)
    content = packed(rgb, "WEBP", quality=quality, method=0)
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def canvas_of(
    known: Mask,
    origin_px: tuple[float, float],
    positions_px: NDArray[np.float64],
    pixel_m: tuple[float, float] | None = None,
) -> Canvas:
    """As `Canvas.of`, the hull of the positions drawn on a part of the pixels where these are many."""
    step = _step(known.shape)
    origin = origin_px[0] / step, origin_px[1] / step
    small = Canvas.of(known[::step, ::step], origin_px=origin, positions_px=positions_px / step)
    focus = small.focus.repeat(step, 0).repeat(step, 1)[: known.shape[0], : known.shape[1]] & known
    return Canvas(known, focus if focus.any() else known, origin_px, pixel_m)


def _step(shape: tuple[int, ...]) -> int:
    return -(-max(shape) // MEASURED_PX)


def _part(canvas: Canvas) -> tuple[Any, Canvas]:
    """An index of the pixels that limits are found from, and the canvas of them."""
    step = _step(canvas.known.shape)
    chosen = np.s_[::step, ::step]
    focus = canvas.focus[chosen]
    if not focus.any():
        return np.s_[:, :], canvas
    return chosen, attrs.evolve(canvas, known=canvas.known[chosen], focus=focus)


def flat(field: NDArray[Any], inside: Mask) -> NDArray[np.float32]:
    """The phase (H, W) without its mean and its ramp, which of a large field is found from a part of the pixels."""
    step = -(-max(field.shape) // RAMP_PX)
    if step == 1 or not inside[::step, ::step].any():
        return np.angle(flattened(field, inside).field).astype(np.float32)
    across, down = (np.where(inside[part], field[part], 0) for part in (np.s_[::step], np.s_[:, ::step]))
    steep = np.angle([np.vdot(down[:-1], down[1:]), np.vdot(across[:, :-1], across[:, 1:])])  # neighbours: no alias
    rows, columns = (np.arange(length, dtype=np.float32) for length in field.shape)

    def wave(ramp: NDArray[np.floating], each: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        x, y = np.exp(-1j * ramp[1] * columns[::each]), np.exp(-1j * ramp[0] * rows[::each])
        return y.astype(np.complex64)[:, None], x.astype(np.complex64)

    y, x = wave(steep, step)
    found = flattened(field[::step, ::step] * y * x, inside[::step, ::step])
    y, x = wave(steep + np.array(found.ramp_rad_per_px[::-1]) / step, 1)
    return np.asarray(np.angle(field * (y * np.complex64(np.exp(-1j * found.phase_rad))) * x), np.float32)


def of_object(
    field: NDArray[np.complex64], canvas: Canvas, *, most_bytes: int = MOST_BYTES
) -> tuple[Coloured, Coloured]:
    """Amplitude and phase of an object."""
    amplitude = np.abs(field)
    chosen, part = _part(canvas)
    limits = limits_of(amplitude[chosen][part.focus])
    first = coloured(
        amplitude, canvas.known, limits, AMPLITUDE_MAP, title="amplitude", label="|object|", most_bytes=most_bytes
    )
    phase = flat(field, canvas.focus)
    span, color_map = phase_limits(phase[chosen], part)
    title = "phase, mean and ramp removed"
    return first, coloured(
        phase, canvas.known, span, color_map, title=title, label="phase (rad)", most_bytes=most_bytes
    )


def of_error(error: NDArray[Any], canvas: Canvas, *, most_bytes: int = MOST_BYTES) -> Coloured:
    """The trust map."""
    chosen, part = _part(canvas)
    values = error[chosen][part.focus]
    values = values[np.isfinite(values)]
    low, high = limits_of(values) if len(values) else (0.0, 1.0)
    low = max(low, 1e-3 * high, TINY)
    log = high > 5 * low
    title = f"trust map: predicted RMS error, median {np.median(values):.2g}" if len(values) else "trust map"
    return coloured(
        error,
        canvas.known,
        (low, high),
        ERROR_MAP,
        title=title,
        label="error of the object",
        log=log,
        most_bytes=most_bytes,
    )


def of_pattern(amplitude: NDArray[Any], top: float) -> str:
    """An intensity on a logarithmic scale of four decades below `top`, pixel by pixel, as a data URI."""
    intensity = np.square(amplitude, dtype=np.float64)
    with np.errstate(divide="ignore"):
        share = 1 + np.log10(intensity / max(top, TINY)) / 4
    index = np.where(intensity > 0, np.clip(255 * share, 0, 255), 256).astype(np.int16)
    return picture(_in_colours(index, PATTERN_MAP)[..., :3], exact=True)


def of_mode(mode: NDArray[Any]) -> str:
    """A mode of a probe: hue is phase, brightness amplitude; a data URI."""
    brightness = np.abs(mode) / max(float(np.abs(mode).max()), TINY)
    hue = colours("hsv")[((np.angle(mode) / (2 * np.pi)) % 1 * 255.999).astype(int)]
    return picture((hue * brightness[..., None]).astype(np.uint8), exact=True)
