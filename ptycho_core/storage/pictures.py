"""Arrays as pictures in a page, for notebooks: PNG, written without a plotting library, in HTML."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterable

import attrs
import numpy as np
from numpy.typing import NDArray

LARGEST = 512
"""Pixels of a picture each way at most; of a larger array every second, third, … pixel is shown."""
SHOWN = 192
"""CSS pixels of a picture's longer side, at least."""
ROBUST = (1, 99)
"""Percentiles that are drawn black and white."""


@attrs.frozen(eq=False)
class Picture:
    """Real values (H, W) under a title; clear where `inside`, bool (H, W), is False."""

    title: str
    values: NDArray[np.floating]
    inside: NDArray[np.bool_] | None = None

    def html(self) -> str:
        inside = np.isfinite(self.values) & (True if self.inside is None else self.inside)
        step = -(-max(self.values.shape) // LARGEST)
        content = base64.b64encode(png(*greys(self.values[::step, ::step], inside[::step, ::step]))).decode()
        longest, title = max(SHOWN, *self.values.shape), html.escape(self.title)
        side = "width" if self.values.shape[1] >= self.values.shape[0] else "height"
        style = f"{side}:{min(longest, LARGEST)}px;image-rendering:pixelated"
        picture = f'<img alt="{title}" style="{style}" src="data:image/png;base64,{content}">'
        return f'<figure style="display:inline-block;margin:4px">{picture}<figcaption>{title}</figcaption></figure>'


def shown(text: str, pictures: Iterable[Picture]) -> str:
    """A line of text and pictures below it, as HTML."""
    return f"<div><code>{html.escape(text)}</code><br>{''.join(each.html() for each in pictures)}</div>"


def greys(values: NDArray[np.floating], inside: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey and opacity, uint8 (H, W): black and white are robust limits of the values inside."""
    low, high = np.percentile(values[inside], ROBUST) if inside.any() else (0.0, 0.0)
    share = np.where(inside, values - low, 0) / (high - low if high > low else 1)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8), np.where(inside, np.uint8(255), np.uint8(0))


def png(grey: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> bytes:
    """A PNG file of two 8-bit channels (ISO/IEC 15948, colour type 4), of arrays (H, W)."""
    height, width = grey.shape
    rows = np.zeros((height, 1 + 2 * width), np.uint8)  # a row begins with its filter, none
    rows[:, 1::2], rows[:, 2::2] = grey, opacity
    chunks = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)), (b"IDAT", zlib.compress(rows.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in (*chunks, (b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
