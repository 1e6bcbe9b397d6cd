from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitrail.data import sizes
from vitrail.data.decode import decode
from vitrail.data.sizes import header_sizes
from vitrail.data.storage import Folder

TURNED = Image.Exif()
TURNED[0x0112] = 6
XMP = '<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><y tiff:Orientation="6"/></x>'


def save(path: Path) -> None:
    image = Image.new("RGB", (7, 5))
    info = PngInfo()
    match path.stem:
        case "exif":
            image.save(path, exif=TURNED)
        case "xmp":
            info.add_itxt("XML:com.adobe.xmp", XMP)
            image.save(path, pnginfo=info)
        case _:
            image.save(path)


@pytest.mark.parametrize(
    "name", ["plain.png", "exif.png", "xmp.png", "plain.jpg", "exif.jpg", "plain.bmp", "plain.webp"]
)
def test_sizes_are_those_of_the_decoded_image(tmp_path: Path, name: str) -> None:
    save(tmp_path / name)
    (size,) = header_sizes([(Folder(tmp_path), name)])
    assert size == tuple(decode((tmp_path / name).read_bytes()).shape[1:])
    assert size == ((5, 7) if name.startswith("plain") else (7, 5))


def test_every_real_file(shared_data: Path) -> None:
    folder = Folder(shared_data / "hostile" / "exif-orientation")
    found = header_sizes([(folder, path) for path in folder.paths])
    for path, size in zip(folder.paths, found, strict=True):
        if Path(path).suffix in {".jpg", ".png"}:
            assert size == tuple(decode(folder.read(path)).shape[1:]), path


def test_what_cannot_be_read_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "zero.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8))
    (tmp_path / "empty.jpg").write_bytes(b"")
    storage = Folder(tmp_path)
    names = ("cut.png", "zero.png", "empty.jpg", "gone.jpg")
    assert header_sizes([(storage, name) for name in names]) == [None] * 4
    assert header_sizes([]) == []


def test_a_plain_png_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "plain.png")
    monkeypatch.setattr(sizes, "image_size", None)
    assert header_sizes([(Folder(tmp_path), "plain.png")]) == [(5, 7)]
