from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mask_formats import SCENES, pieces, put_image, put_mask, target, write_indices, write_instances
from vitrail.data import segments as module
from vitrail.data.dataset import Subset
from vitrail.data.open import open_labelled
from vitrail.data.segments import MOST_LAYERS, MaskFiles, Piece, hashed, stack
from vitrail.errors import BadSampleError, DataError

SIZE = (6, 7)

Rectangles = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(1, 6), st.integers(1, 7)),
    max_size=8,
)


def rectangle(top: int, left: int, rows: int, columns: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


@given(Rectangles)
def test_every_piece_keeps_its_pixels(rectangles: list[tuple[int, int, int, int]]) -> None:
    masks = [rectangle(*corners) for corners in rectangles]
    found = stack([Piece(mask, place) for place, mask in enumerate(masks)], SIZE)
    assert found.labels == tuple(range(len(masks)))
    assert found.crowds == ()
    for mask, piece in zip(masks, pieces(found), strict=True):
        assert (mask == piece).all()
    deepest = sum(masks).max() if masks else 1
    assert found.ids.shape[0] >= max(deepest, 1)
    for layer in found.ids[1:]:
        assert layer.any(), "no layer is there for nothing"


def test_the_first_layer_without_overlap() -> None:
    corners = [(0, 0, 2, 2), (1, 1, 2, 2), (4, 4, 1, 1), (0, 0, 3, 3)]
    found = stack((Piece(rectangle(*c), 0) for c in corners), SIZE)
    layers = [np.unique(layer.numpy()).tolist() for layer in found.ids]
    assert layers == [[0, 1, 3], [0, 2], [0, 4]]


def test_crowds_and_pieces_without_pixels() -> None:
    empty = np.zeros(SIZE, dtype=bool)
    found = stack([Piece(empty, 5), Piece(rectangle(0, 0, 1, 1), 3, crowd=True)], SIZE)
    assert (found.labels, found.crowds) == ((3,), (True,))
    assert found.ids.dtype == torch.int16
    nothing = stack([], SIZE)
    assert nothing.ids.shape == (1, *SIZE)
    assert not nothing.ids.any()


def test_too_many_above_one_another() -> None:
    whole = rectangle(0, 0, 6, 7)
    stack([Piece(whole, 0)] * MOST_LAYERS, SIZE)
    with pytest.raises(BadSampleError, match="above one another: take some out"):
        stack([Piece(whole, 0)] * (MOST_LAYERS + 1), SIZE)


def test_hashes_tell_where_a_part_ends() -> None:
    assert hashed("ab", "c") != hashed("a", "bc")
    assert hashed("ab") == hashed(b"ab")


def test_targets_are_drawn_when_asked_for(tmp_path: Path) -> None:
    write_indices(tmp_path)
    data = open_labelled(str(tmp_path))
    (tmp_path / "masks" / "four.png").unlink()
    assert len(data.targets) == 4
    with pytest.raises(BadSampleError, match=r"masks/four\.png: the file is missing"):
        data.targets[0]
    with pytest.raises(BadSampleError, match=r"masks/four\.png: the file is missing"):
        data.read(0)
    with pytest.raises(IndexError):
        data.targets[4]
    some = data.targets[1:]
    assert len(some) == 3
    part = Subset(data, [2, 1])
    assert part.targets[1] is not None
    assert (target(part, "one").ids == target(data, "one").ids).all()


def test_what_is_costly_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_instances(tmp_path)
    data = open_labelled(str(tmp_path))
    assert isinstance(data, MaskFiles)
    first = data.draw(0)
    for path in (tmp_path / "four" / "masks").iterdir():
        path.unlink()
    again = data.draw(0)
    assert again.labels == first.labels
    assert torch.equal(again.ids, first.ids)
    again.ids.zero_()
    assert data.draw(0).ids.any(), "nobody changes what is kept"
    copy = pickle.loads(pickle.dumps(data))
    with pytest.raises(BadSampleError, match="missing"):
        copy.draw(0)
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    write_instances(tmp_path / "again")
    small = open_labelled(str(tmp_path / "again"))
    small.targets[0]
    for path in (tmp_path / "again" / "four" / "masks").iterdir():
        path.unlink()
    with pytest.raises(BadSampleError, match="missing"):
        small.targets[0]


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    write_indices(tmp_path)
    put_mask(tmp_path / "masks" / "one.png", np.ones((24, 31), dtype=np.uint8))
    put_mask(tmp_path / "masks" / "two.png", np.ones((33, 20), dtype=np.uint8))
    data = open_labelled(str(tmp_path))
    places = {Path(name).stem: place for place, name in enumerate(data.ids)}
    with pytest.raises(BadSampleError, match="has 30 x 24 pixels, its mask 31 x 24; give both"):
        data.read(places["one"])
    with pytest.raises(
        BadSampleError, match=r"33 x 20 pixels, its mask 20 x 33: .* rotation; turn"
    ):
        data.read(places["two"])
    assert data.read(places["three"]).target is not None


def test_a_mask_lies_on_the_upright_image(tmp_path: Path) -> None:
    """A camera's rotation is undone; a mask drawn before that is refused."""
    put_image(tmp_path / "images" / "1.jpg", (20, 30))
    image = Image.open(tmp_path / "images" / "1.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "images" / "1.jpg", exif=exif)
    upright = np.zeros((30, 20), dtype=np.uint8)
    upright[:4] = 255
    put_mask(tmp_path / "masks" / "1.png", upright)
    sample = open_labelled(str(tmp_path)).read(0)
    assert sample.image.shape == (3, 30, 20)
    put_mask(tmp_path / "masks" / "1.png", upright.T)
    with pytest.raises(BadSampleError, match="before the camera's rotation"):
        open_labelled(str(tmp_path)).read(0)


def test_images_of_no_split_are_counted(tmp_path: Path) -> None:
    for scene, split in zip(SCENES, ("train/", "train/", "val/", ""), strict=True):
        put_image(tmp_path / "images" / f"{split}{scene.stem}.png", scene.size)
        put_mask(tmp_path / "masks" / f"{split}{scene.stem}.png", scene.values())
    data = open_labelled(str(tmp_path))
    assert isinstance(data, MaskFiles)
    assert data.published == {"train": [0, 1], "val": [2]}
    assert data.reason.endswith("1 images of no split were left out")


def test_nothing_to_learn(tmp_path: Path) -> None:
    write_indices(tmp_path)
    for scene in SCENES:
        put_mask(tmp_path / "masks" / f"{scene.stem}.png", np.zeros(scene.size, dtype=np.uint8))
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DataError, match="every mask is empty: no value but 0 in 4 files"):
        open_labelled(str(tmp_path))
    (tmp_path / "classes.json").write_text('["background"]')
    with pytest.raises(DataError, match="empty or void: no pixel of a class in 4 files"):
        open_labelled(str(tmp_path))
