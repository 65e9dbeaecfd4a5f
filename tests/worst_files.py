"""Files that take a decoder as long as their size allows."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

_ZIGZAG = bytes(range(64))


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _huffman(table: int, symbols: Sequence[int]) -> bytes:
    """Return a Huffman table whose symbols all have codes of the same, least length."""
    bits = max(1, (len(symbols)).bit_length())
    counts = [0] * 16
    counts[bits - 1] = len(symbols)
    return _segment(0xC4, bytes([table, *counts, *symbols]))


def many_scans_jpeg(side: int, scans: int, components: int = 1, *, refine: bool = False) -> bytes:
    """Return a progressive JPEG whose scans hold only runs of empty blocks.

    Args:
        side: rows and columns.
        scans: number of scans, the first included.
        components: 1 or 3.
        refine: make the further scans refinements instead of first passes.
    """
    blocks = (-(-side // 8)) ** 2
    frame = bytes([8]) + struct.pack(">HH", side, side) + bytes([components])
    frame += b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    first = bytes([components]) + b"".join(
        bytes([number, 0x00]) for number in range(1, components + 1)
    )
    data = [
        b"\xff\xd8",
        _segment(0xDB, b"\0" + bytes([1]) * 64),
        _segment(0xC2, frame),
        _huffman(0x00, [0]),
        _huffman(0x10, [0xE0]),
        _segment(0xDA, first + bytes([0, 0, 0x01 if refine else 0x00])),
        bytes(-(-blocks * components // 8)),
    ]
    run = _empty_blocks(blocks)
    for number in range(scans - 1):
        component = number % components + 1
        approximation = 0x10 if refine and number >= components else 0x01
        data += [_segment(0xDA, bytes([1, component, 0x00, 1, 63, approximation])), run]
    return b"".join((*data, b"\xff\xd9"))


def _empty_blocks(blocks: int) -> bytes:
    """Return runs of 2^14 and more empty blocks each, coded as one bit and 14 bits of length."""
    bits = ""
    while blocks > 0:
        count = min(blocks, 2**15 - 1)
        count = max(count, 2**14)  # the decoder does not mind that the last run is longer
        bits += "0" + format(count - 2**14, "014b")
        blocks -= count
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return packed.replace(b"\xff", b"\xff\0")


def noise_jpeg(
    side: int, quality: int = 100, *, progressive: bool = False, mode: str = "L"
) -> bytes:
    """Return a JPEG of noise, which has as many bytes as a JPEG can have."""
    shape = (side, side) if mode == "L" else (side, side, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(
        file, "JPEG", quality=100, progressive=progressive, subsampling=0
    )
    return file.getvalue()


def png(  # noqa: PLR0913 -- what a PNG header holds
    rows: int,
    columns: int,
    depth: int,
    color: int,
    row_filter: int,
    *,
    interlaced: bool = False,
    noise: bool = False,
) -> bytes:
    """Return a PNG of one colour, or of noise, whose rows all use one filter.

    Args:
        rows: rows.
        columns: columns.
        depth: bits of a sample.
        color: the colour type of PNG: 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha.
        row_filter: 0 none to 4 Paeth.
        interlaced: whether the seven passes of Adam7 are used.
        noise: whether the samples are random.
    """
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    squeeze = zlib.compressobj(1)
    body = []
    rng = np.random.default_rng(0)
    for top, left, down, right in passes:
        height, width = -(-(rows - top) // down), -(-(columns - left) // right)
        if height <= 0 or width <= 0:
            continue
        num_bytes = -(-width * samples * depth // 8)
        for _ in range(height):
            row = rng.bytes(num_bytes) if noise else bytes(num_bytes)
            body.append(squeeze.compress(bytes([row_filter]) + row))
    body.append(squeeze.flush())
    header = struct.pack(">2L5B", columns, rows, depth, color, 0, 0, int(interlaced))
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(body)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">L", len(content)) + checked + struct.pack(">L", zlib.crc32(checked))


_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""First row and column, and steps, of each pass (PNG specification, 8.2)."""
