"""How mask files are read, and what is said of those that cannot be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mask_formats import SCENES, by_value, put_image, put_mask, write_colours, write_indices
from vitrail.data.dataset import Dataset
from vitrail.data.mask_values import from_values, mask_values
from vitrail.data.open import open_labelled
from vitrail.data.segments import MaskFiles, MaskValueError
from vitrail.errors import BadSampleError, DataError
from vitrail.types import VOID, Segments


def made(root: Path, values: np.ndarray, *, mode: str = "", suffix: str = "png") -> MaskFiles:
    """Three images with one mask."""
    for number in range(3):
        put_image(root / "images" / f"{number}.png", (values.shape[0], values.shape[1]))
        (root / "masks").mkdir(exist_ok=True, parents=True)
        image = Image.fromarray(values)
        (image.convert(mode) if mode else image).save(root / "masks" / f"{number}.{suffix}")
    data = open_labelled(str(root))
    assert isinstance(data, MaskFiles)
    return data


def drawn(data: Dataset, index: int = 0) -> Segments:
    found = data.targets[index]
    assert isinstance(found, Segments)
    return found


HALF = np.zeros((10, 12), dtype=np.uint8)
HALF[:, 6:] = 1


@pytest.mark.parametrize(
    ("values", "mode", "suffix", "said"),
    [
        (HALF * 255, "1", "png", "binary masks of 0 and 1"),
        (HALF * 255, "", "png", "binary masks of 0 and 255"),
        (HALF, "", "png", "binary masks of 0 and 1"),
        (HALF * 255, "RGB", "png", "binary masks of 0 and 255"),
        (HALF * 255, "RGBA", "png", "binary masks of 0 and 255"),
        (HALF * 255, "LA", "png", "binary masks of 0 and 255"),
        (HALF, "P", "png", "binary masks of 0 and 1"),
        (HALF.astype(np.int32), "", "tif", "binary masks of 0 and 1"),
        (HALF * 255, "", "gif", "binary masks of 0 and 1"),
        (HALF.astype(np.uint16), "", "png", "binary masks of 0 and 1"),
    ],
)
def test_binary_masks(
    tmp_path: Path, values: np.ndarray, mode: str, suffix: str, said: str
) -> None:
    data = made(tmp_path, values, mode=mode, suffix=suffix)
    assert data.classes == ("foreground",)
    assert (data.segments, data.background, data.category_ids is None) == (
        "semantic",
        True,
        "255" in said,
    )
    assert said in data.reason
    assert drawn(data).labels == (0,)
    assert torch.equal(drawn(data).ids[0], torch.from_numpy(HALF).short())


def test_soft_edges_are_cut(tmp_path: Path) -> None:
    values = np.zeros((64, 64), dtype=np.uint8)
    values[20:, 7:50] = 255
    big = np.kron(values, np.ones((4, 4), dtype=np.uint8))
    data = made(tmp_path, np.asarray(Image.fromarray(big).rotate(10, Image.BICUBIC)), suffix="jpg")
    assert "soft edges, cut at 128" in data.reason
    assert drawn(data).labels == (0,)


def test_indices_without_names(tmp_path: Path) -> None:
    values = np.array([[0, 3, 255], [7, 3, 0]], dtype=np.uint8)
    data = made(tmp_path, values)
    assert (data.classes, data.category_ids) == (("class 3", "class 7"), (3, 7))
    assert drawn(data).labels == (0, 1, VOID)
    assert drawn(data).ids.tolist() == [[[0, 1, 3], [2, 1, 0]]]
    assert "masks of indices, 2 classes and background" in data.reason


def test_sixteen_bits(tmp_path: Path) -> None:
    data = made(tmp_path, np.array([[0, 300, 65535], [255, 300, 0]], dtype=np.uint16))
    assert data.classes == ("class 255", "class 300")
    assert drawn(data).ids.tolist() == [[[0, 2, 3], [1, 2, 0]]]


def test_one_class_and_void(tmp_path: Path) -> None:
    data = made(tmp_path, np.array([[0, 1, 255]], dtype=np.uint8))
    assert data.classes == ("foreground",)
    assert drawn(data).labels == (0, VOID)


@pytest.mark.parametrize(
    ("names", "classes", "background", "labels"),
    [
        ("background\nroad\nriver", ("road", "river"), True, (0, 1)),
        ("sky\nroad\nriver", ("sky", "road", "river"), False, (0, 1, 2)),
        ("void\nroad\nriver", ("road", "river"), False, (0, 1, VOID)),
        ("_background_\nunlabeled\nriver", ("river",), True, (0, VOID)),
    ],
)
def test_what_value_0_is_called(
    tmp_path: Path, names: str, classes: tuple[str, ...], background: bool, labels: object
) -> None:
    tmp_path.joinpath("classes.txt").write_text(names)
    data = made(tmp_path, np.array([[0, 1, 2]], dtype=np.uint8))
    assert (data.classes, data.background) == (classes, background)
    assert drawn(data).labels == labels
    assert data.reason.endswith("named by classes.txt")


def test_a_binary_mask_has_the_name_of_its_only_class(tmp_path: Path) -> None:
    tmp_path.joinpath("classes.txt").write_text("vessel\n")
    data = made(tmp_path, HALF * 255)
    assert data.classes == ("vessel",)
    assert drawn(data).labels == (0,)


def test_a_value_that_no_file_names(tmp_path: Path) -> None:
    write_indices(tmp_path)
    wrong = SCENES[0].values()
    wrong[5, 5] = 9
    put_mask(tmp_path / "masks" / "one.png", wrong)
    data = open_labelled(str(tmp_path))
    with pytest.raises(
        BadSampleError, match=r"masks/one\.png has the value 9, which classes\.json"
    ):
        data.read([Path(name).stem for name in data.ids].index("one"))
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(DataError, match=r"has the value \d, which classes\.json does not name"):
        open_labelled(str(tmp_path))


def test_a_colour_that_no_file_names(tmp_path: Path) -> None:
    write_colours(tmp_path)
    wrong = by_value()[SCENES[0].values()]
    wrong[0, 0] = (1, 2, 3)
    put_mask(tmp_path / "masks" / "one.png", wrong)
    data = open_labelled(str(tmp_path))
    with pytest.raises(
        BadSampleError, match=r"one\.png has the colour \(1, 2, 3\), .*palette\.csv"
    ):
        data.read([Path(name).stem for name in data.ids].index("one"))
    (tmp_path / "palette.csv").unlink()
    with pytest.raises(DataError, match=r"masks with \d colours .* add a palette\.csv"):
        open_labelled(str(tmp_path))


def test_two_files_that_could_name_the_classes(tmp_path: Path) -> None:
    write_indices(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a, b, c, d, e, f, g, h]")
    with pytest.raises(DataError, match=r"classes\.json and data\.yaml could both name"):
        open_labelled(str(tmp_path))
    (tmp_path / "data.yaml").write_text("names: [a, b]")
    assert open_labelled(str(tmp_path)).classes == ("field", "road", "house"), "the one that fits"


def test_masks_that_cannot_be_read(tmp_path: Path) -> None:
    write_indices(tmp_path)
    (tmp_path / "masks" / "one.png").write_bytes(b"no image")
    data = open_labelled(str(tmp_path))
    with pytest.raises(BadSampleError, match=r"the mask masks/one\.png: no mask that can be read"):
        data.read([Path(name).stem for name in data.ids].index("one"))
    for scene in SCENES:
        (tmp_path / "masks" / f"{scene.stem}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no mask can be read: masks/four\.png"):
        open_labelled(str(tmp_path))


def test_photographs_are_no_masks(tmp_path: Path) -> None:
    for number in range(4):
        put_image(tmp_path / "images" / f"{number}.png", (30, 30))
        put_image(tmp_path / "masks" / f"{number}.png", (30, 31))
    with pytest.raises(DataError, match=r"masks/0\.png is named like a mask, but has as many col"):
        open_labelled(str(tmp_path))
    found = open_labelled(str(tmp_path), task="classify")
    assert found.classes == ("images", "masks"), "folders of classes"


def test_values_without_a_meaning() -> None:
    values = np.array([[0, 4]], dtype=np.uint8)
    with pytest.raises(ValueError, match="4"):
        from_values(values, {0: None, 1: 0})
    assert from_values(values, {0: None, 4: 2}).labels == (2,)
    with io.BytesIO() as file:
        Image.new("CMYK", (4, 3), (1, 2, 3, 4)).save(file, "TIFF")
        with pytest.raises(BadSampleError, match="pixels of kind CMYK"):
            mask_values(file.getvalue())


def saved(root: Path, number: int, image: Image.Image, suffix: str = "png", **how: int) -> None:
    (root / "masks" / f"{number}.png").unlink(missing_ok=True)
    image.save(root / "masks" / f"{number}.{suffix}", **how)


def squares(root: Path, classes: tuple[int, ...], count: int = 4) -> None:
    """Masks of 64 x 64 pixels with a square of each class."""
    for number in range(count):
        values = np.zeros((64, 64), dtype=np.uint8)
        for place, value in enumerate(classes):
            values[3 + number : 30, 20 * place : 20 * place + 15] = value
        put_image(root / "images" / f"{number}.png", (64, 64))
        put_mask(root / "masks" / f"{number}.png", values)


@pytest.mark.parametrize("classes", [(1,), (1, 2, 3)])
@pytest.mark.parametrize(("suffix", "how"), [("jpg", {"quality": 60}), ("webp", {"quality": 60})])
def test_loss_smears_indices(
    tmp_path: Path, classes: tuple[int, ...], suffix: str, how: dict[str, int]
) -> None:
    squares(tmp_path, classes)
    for number in range(4):
        image = Image.open(tmp_path / "masks" / f"{number}.png").convert("RGB")
        saved(tmp_path, number, image, suffix, **how)
    with pytest.raises(DataError, match="of a lossy format, which smears values; save masks as"):
        open_labelled(str(tmp_path))


def test_a_lossy_mask_among_others(tmp_path: Path) -> None:
    squares(tmp_path, (1, 2, 3))
    (tmp_path / "classes.txt").write_text("none\na\nb\nc")
    saved(tmp_path, 0, Image.open(tmp_path / "masks" / "0.png"), "jpg")
    data = open_labelled(str(tmp_path))
    with pytest.raises(MaskValueError, match=r"masks/0\.jpg is of a lossy format"):
        data.read(0)
    assert data.read(1).target is not None


def test_transparency_may_say_nothing_new(tmp_path: Path) -> None:
    squares(tmp_path, (255,))
    for number in range(4):
        alpha = Image.open(tmp_path / "masks" / f"{number}.png")
        image = alpha.convert("RGB")
        image.putalpha(alpha)
        saved(tmp_path, number, image)
    assert drawn(open_labelled(str(tmp_path))).labels == (0,)
    white = Image.new("RGB", (64, 64), "white")
    white.putalpha(alpha)
    saved(tmp_path, 3, white)
    with pytest.raises(MaskValueError, match="both opaque and transparent; save it without"):
        open_labelled(str(tmp_path)).read(3)


@pytest.mark.parametrize("transparency", [0, b"\0\xff\x80"])
def test_transparency_of_palettes(tmp_path: Path, transparency: object) -> None:
    squares(tmp_path, (1, 2))
    for number in range(4):
        image = Image.open(tmp_path / "masks" / f"{number}.png").copy()
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        image.save(tmp_path / "masks" / f"{number}.png", transparency=transparency)
    assert open_labelled(str(tmp_path)).classes == ("class 1", "class 2")


def test_one_resized_mask_changes_no_other(tmp_path: Path) -> None:
    squares(tmp_path, (255,), count=12)
    saved(tmp_path, 0, Image.open(tmp_path / "masks" / "0.png").resize((50, 64), Image.BICUBIC))
    data = open_labelled(str(tmp_path))
    assert (data.classes, data.category_ids) == (("foreground",), (255,))
    assert drawn(data, 1).labels == (0,)
    with pytest.raises(MaskValueError, match=r"masks/0\.png has the value \d+, which no other"):
        data.read(0)


def test_binary_masks_of_sixteen_bits(tmp_path: Path) -> None:
    data = made(tmp_path, HALF.astype(np.uint16) * 65_535)
    assert drawn(data).labels == (0,)
    assert torch.equal(drawn(data).ids[0], torch.from_numpy(HALF).short())


def test_soft_edges_whose_white_is_not_quite_255(tmp_path: Path) -> None:
    grey = np.full((40, 40), 252, dtype=np.uint8)
    grey[:, :20] = 0
    grey[:, 20] = 6 * np.arange(40)
    for number in range(3):
        put_image(tmp_path / "images" / f"{number}.png", (40, 40))
        put_mask(tmp_path / "masks" / f"{number}.png", grey)
    data = open_labelled(str(tmp_path))
    assert len(data.classes) == 1


@pytest.mark.parametrize("names", ["", "background\nroad"])
def test_foreground_written_in_two_ways(tmp_path: Path, names: str) -> None:
    for number in range(8):
        put_image(tmp_path / "images" / f"{number}.png", (8, 8))
        white = 255 if number % 2 else 1
        put_mask(tmp_path / "masks" / f"{number}.png", HALF.astype(np.uint8) * white)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    with pytest.raises(DataError, match=r"masks have 0 and 1 \(masks/0\.png\), . have 0 and 255"):
        open_labelled(str(tmp_path))


def test_a_mask_of_ones_that_nobody_looked_at(tmp_path: Path) -> None:
    for number in range(40):
        put_image(tmp_path / "images" / f"{number:02}.png", (8, 8))
        put_mask(tmp_path / "masks" / f"{number:02}.png", HALF.astype(np.uint8) * 255)
    (tmp_path / "classes.txt").write_text("background\nroad")
    put_mask(tmp_path / "masks" / "01.png", HALF.astype(np.uint8))
    data = open_labelled(str(tmp_path))
    with pytest.raises(BadSampleError, match="has 1 for foreground, the others 255; write 255"):
        data.read(1)


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_to_learn_is_named(tmp_path: Path, value: int) -> None:
    """Also where a file names classes, and only few masks are looked at for their kind."""
    plain = np.full((8, 8), value, dtype=np.uint8)
    (tmp_path / "classes.txt").write_text("background\ncrack\nroot")
    with pytest.raises(DataError, match="every mask is empty or void: no pixel of crack, root"):
        made(tmp_path, plain)
    for number in range(3, 60):
        put_image(tmp_path / "images" / f"{number}.png", (8, 8))
        put_mask(tmp_path / "masks" / f"{number}.png", plain)
    put_mask(tmp_path / "masks" / "7.png", plain * 0 + 1)
    assert open_labelled(str(tmp_path)).classes == ("crack", "root")
    (tmp_path / "classes.txt").unlink()
    put_mask(tmp_path / "masks" / "7.png", plain)
    with pytest.raises(DataError, match="is empty" if not value else "a class from void"):
        open_labelled(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "the file is empty"), (b"hello", "no mask that can be read .of no known format")],
)
def test_no_image_at_all(data: bytes, said: str) -> None:
    with pytest.raises(BadSampleError, match=said):
        mask_values(data)


def test_a_damaged_list_of_names_is_not_passed_over(tmp_path: Path) -> None:
    squares(tmp_path, (1, 2))
    (tmp_path / "settings.yaml").write_text("seed: [1, [2")
    assert open_labelled(str(tmp_path)).classes == ("class 1", "class 2")
    (tmp_path / "data.yaml").write_text("names: [a, [b")
    with pytest.raises(DataError, match=r"data\.yaml: not YAML"):
        open_labelled(str(tmp_path))
