"""The quick way gives Pillow's pixels, or declines."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.data.jpeg import decode_plain_jpeg

LIMIT = 10**6


def jpeg(mode: str = "RGB", exif: Image.Exif | None = None, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((61, 37), Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    if exif is not None:
        options["exif"] = exif
    image.save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg("L"),
        jpeg(quality=95, subsampling=0),
        jpeg(progressive=True),
        jpeg(comment=b"x"),
    ],
    ids=["plain", "grey", "444", "progressive", "comment"],
)
def test_pixels_are_those_of_pillow(data: bytes) -> None:
    pixels = decode_plain_jpeg(data, LIMIT)
    assert pixels is not None
    assert np.array_equal(pixels, pillow(data))


@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation_is_left_to_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera"
    if orientation != 9:
        exif[0x0112] = orientation
    pixels = decode_plain_jpeg(jpeg(exif=exif), LIMIT)
    assert (pixels is not None) == (orientation in {1, 9})


def test_odd_metadata_is_left_to_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    data = jpeg(exif=exif)
    assert decode_plain_jpeg(data, LIMIT) is not None
    block = exif.tobytes()
    assert block in data
    for odd in (
        block[:-8] + b"\xff" * 8,
        block.replace(b"*", b"+"),
        b"http://ns.adobe.com/xap/1.0/\0"[: len(block)].ljust(len(block)),
        bytes(len(block)),
    ):
        pixels = decode_plain_jpeg(data.replace(block, odd), LIMIT)
        assert pixels is None or odd == block[:-8] + b"\xff" * 8


def test_whatever_needs_a_closer_look_is_declined() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = jpeg()
    for data in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"no image at all",
        jpeg(exif=turned),
        jpeg("CMYK"),
        plain[: len(plain) // 2],
        plain[:30],
        plain.replace(b"\xff\xda", b"\xff\xd9", 1),
    ):
        assert decode_plain_jpeg(data, LIMIT) is None
    assert decode_plain_jpeg(plain, 61 * 37) is not None
    assert decode_plain_jpeg(plain, 61 * 37 - 1) is None


def test_real_photos_and_hostile_files(shared_data: Path) -> None:
    photos = sorted((shared_data / "flowers" / "val").rglob("*.jpg"))[::10]
    quick = 0
    for path in photos:
        pixels = decode_plain_jpeg(path.read_bytes(), LIMIT)
        if pixels is not None:
            quick += 1
            assert np.array_equal(pixels, pillow(path.read_bytes()))
    assert quick > len(photos) / 2
    hostile = shared_data / "hostile"
    for path in sorted(p for p in hostile.rglob("*") if p.is_file()):
        pixels = decode_plain_jpeg(path.read_bytes(), LIMIT)
        if pixels is not None:
            assert np.array_equal(pixels, pillow(path.read_bytes())), path.name
