from __future__ import annotations

import csv
import io
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vitrail.data.decode import decode, image_size
from vitrail.errors import BadSampleError


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(width: int = 24, height: int = 16) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "QOI"])
def test_lossless_formats_come_back_as_they_are(kind: str) -> None:
    data = encode(picture(), kind)
    assert (pixels(decode(data)) == np.asarray(picture())).all()
    assert image_size(data) == (16, 24)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_equals_pillow_bit_by_bit(mode: str, subsampling: int) -> None:
    image = picture(101, 67).convert(mode)
    data = encode(image, "JPEG", quality=80, subsampling=subsampling)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (pixels(decode(data)) == expected).all()


def test_memory_is_channels_last() -> None:
    image = decode(encode(picture(), "JPEG"))
    assert image.shape == (3, 16, 24)
    assert image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(picture(), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert (pixels(decode(data)) == expected).all()
    assert image_size(data) == expected.shape[:2]


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    expected = [[[255, 255, 255], [255, 0, 0]]]
    assert pixels(decode(encode(clear, "PNG"))).tolist() == expected
    assert pixels(decode(encode(clear, "WEBP", lossless=True))).tolist() == expected
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 255, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    assert pixels(decode(encode(palette, "PNG", transparency=0))).tolist() == expected
    grey = Image.new("LA", (1, 1), (0, 128))
    assert abs(int(decode(encode(grey, "PNG"))[0, 0, 0]) - 127) <= 1


def test_sixteen_bits_keep_the_upper_eight() -> None:
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        image = decode(encode(Image.fromarray(values), kind))
        assert image[0, 0].tolist() == [0, 0, 1, 0x12, 0xFF]
    pgm = b"P5 5 1 65535\n" + values.astype(">u2").tobytes()
    assert decode(pgm)[2, 0].tolist() == [0, 0, 1, 0x12, 0xFF]


def test_transparent_sixteen_bit_grey_is_white() -> None:
    values = np.array([[7, 700]], dtype=np.uint16)
    image = decode(encode(Image.fromarray(values), "PNG", transparency=7))
    assert image[0, 0].tolist() == [255, 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([-3.0, 100.4, 300.0], [0, 100, 255])],
)
def test_float_images(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([[*values, np.nan]], dtype=np.float32))
    assert decode(encode(image, "TIFF"))[0, 0].tolist() == [*expected, 0]


def test_one_bit_cmyk_and_animation() -> None:
    assert decode(encode(Image.new("1", (3, 2), 1), "PNG")).min() == 255
    cmyk = picture().convert("CMYK")
    data = encode(cmyk, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert (pixels(decode(data)) == np.asarray(image.convert("RGB"))).all()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(animated)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_pixel_limit_is_checked_before_decoding(kind: str) -> None:
    data = encode(picture(), kind)
    assert decode(data, max_pixels=24 * 16).shape == (3, 16, 24)
    header = data[:-30]  # the limit speaks before the missing pixels do
    for call in (decode, image_size):
        with pytest.raises(BadSampleError, match="too large") as caught:
            call(header, max_pixels=24 * 16 - 1)
        assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_by_default() -> None:
    bomb = b"P6 20000 20000 255\n" + bytes(100)
    with pytest.raises(BadSampleError, match="too large"):
        decode(bomb)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        (bytes(5000), "not an image"),
    ],
)
def test_what_is_no_image_has_a_reason(data: bytes, reason: str) -> None:
    for call in (decode, image_size):
        with pytest.raises(BadSampleError, match=reason):
            call(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_cut_off_files_are_bad_samples(kind: str) -> None:
    data = encode(picture(200, 150), kind)
    with pytest.raises(BadSampleError):
        decode(data[: len(data) // 2])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM"]), st.data())
def test_mutated_files_decode_or_are_bad_samples(kind: str, data: st.DataObject) -> None:
    raw = bytearray(encode(picture(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        outcome = decode(bytes(raw), max_pixels=10**6)
    except BadSampleError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert outcome
        assert "\n" not in outcome
    else:
        assert outcome.dtype == torch.uint8


def test_damaged_exif_counts_as_upright() -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).shape == (3, 16, 24)


def test_threads_leave_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    files = [encode(picture(), kind) for kind in ("PNG", "JPEG", "GIF")]
    threads = [
        threading.Thread(target=lambda: [decode(data) for data in files * 20]) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_the_hostile_folder_agrees_with_its_manifest(shared_data: Path) -> None:
    folder = shared_data / "hostile"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong: list[str] = []
    silent, stderr = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    os.dup2(silent, 2)  # libtiff complains there by itself
    try:
        for row in rows:
            data = (folder / row["file"]).read_bytes()
            try:
                image = decode(data)
            except BadSampleError as error:
                readable = not str(error)
            else:
                readable = True
                if image_size(data) != tuple(image.shape[1:]):
                    wrong.append(f"{row['file']}: {image_size(data)} is not {image.shape}")
            if readable != (row["load"] == row["rgb"] == "ok"):
                wrong.append(row["file"])
    finally:
        os.dup2(stderr, 2)
        os.close(silent)
        os.close(stderr)
    assert len(rows) > 900
    assert wrong == []


def test_rotated_photos_are_equal_upright(shared_data: Path) -> None:
    folder = shared_data / "hostile" / "exif-orientation"
    images = [decode((folder / f"Landscape_{i}.jpg").read_bytes()) for i in range(9)]
    assert {tuple(image.shape) for image in images} == {(3, 1200, 1800)}
    for image in images[1:]:
        assert (image.float() - images[0].float()).abs().mean() < 6


def test_real_photos_equal_pillow(shared_data: Path) -> None:
    files = [*(shared_data / "flowers" / "val").rglob("*.jpg")][::10]
    files += [*(shared_data / "coco60" / "images").rglob("*.jpg")][::6]
    assert len(files) > 20
    for path in files:
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert (pixels(decode(path.read_bytes())) == expected).all(), path
