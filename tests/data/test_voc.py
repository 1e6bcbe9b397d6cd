from __future__ import annotations

from pathlib import Path

import pytest

from boxed import SCENES, Scene, ids_of, put_image, write_voc
from vitrail.data.boxes import BoxFiles
from vitrail.data.open import open_source
from vitrail.data.storage import Folder
from vitrail.data.voc import detect_voc, parse_xml
from vitrail.errors import BadSampleError, DataError
from vitrail.types import Boxes, Sample

BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotation [
  <!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
]>
<annotation><object><name>&c;</name></object></annotation>"""


def opened(root: Path) -> BoxFiles:
    data = detect_voc(Folder(root))
    assert data is not None
    return data


def tiny(root: Path) -> Path:
    write_voc(root, SCENES, ids_of(("cat", "dog", "ant hill"), "from 0"))
    return root


def edit(root: Path, stem: str, old: str, new: str) -> None:
    file = root / "Annotations" / f"{stem}.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def read(data: BoxFiles, file: str) -> Sample:
    return data.read([Path(name).name for name in data.ids].index(file))


def test_corners_are_taken_as_written(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    edit(root, "one", "<xmin>3</xmin>", "<xmin> 1 </xmin>")
    target = read(opened(root), "one.png").target
    assert isinstance(target, Boxes)
    assert target.items[0].corners == (1, 4, 20, 30), "no offset, whoever wrote it"


def test_difficult_objects_are_crowds_and_parts_are_none(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    edit(root, "one", "<name>cat</name>", f"<name>cat</name><difficult>1</difficult>{part}")
    data = opened(root)
    target = read(data, "one.png").target
    assert isinstance(target, Boxes)
    assert [box.crowd for box in target.items] == [True, False]
    assert data.classes == ("ant hill", "cat", "dog")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<xmin>3</xmin>", "<xmin>20</xmin>", "object 1: the box of 'cat' is empty"),
        ("<xmin>3</xmin>", "<xmin>21</xmin>", "object 1: the box of 'cat' is inverted"),
        ("<xmin>3</xmin>", "<xmin>left</xmin>", "no finite number"),
        ("<xmin>3</xmin>", "", "no finite number"),
        ("<name>cat</name>", "", "object 1: without a name"),
        ("bndbox>", "polygon>", "the XML is damaged"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, old: str, new: str, reason: str) -> None:
    root = tiny(tmp_path)
    edit(root, "one", old, new)
    data = opened(root)
    if "damaged" in reason:
        with pytest.raises(BadSampleError, match=r"Annotations/one\.xml: the XML is damaged"):
            read(data, "one.png")
    else:
        (label,) = data.dropped
        assert label.id == "JPEGImages/one.png"
        assert label.reason.startswith("Annotations/one.xml, ")
        assert reason in label.reason


def test_an_object_without_a_box(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    edit(root, "one", "<object><name>cat", "<object><name>owl</name></object><object><name>cat")
    data = opened(root)
    assert [label.reason for label in data.dropped] == [
        "Annotations/one.xml, object 1: 'owl' without a bndbox"
    ]
    assert "owl" not in data.classes


def test_entities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSampleError, match="DOCTYPE"):
        parse_xml(BOMB.encode())
    with pytest.raises(BadSampleError, match="DOCTYPE"):
        parse_xml(BOMB.replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16"))
    outside = b'<!DOCTYPE a SYSTEM "file:///etc/hostname"><annotation/>'
    with pytest.raises(BadSampleError, match="DOCTYPE"):
        parse_xml(outside)
    root = tiny(tmp_path)
    (root / "Annotations" / "one.xml").write_text(BOMB)
    data = opened(root)
    assert len(data) == 4
    with pytest.raises(BadSampleError, match=r"Annotations/one\.xml: .*DOCTYPE"):
        read(data, "one.png")


@pytest.mark.parametrize("data", [b"", b"<a>", b"\xff\xfe\x00", b'<?xml encoding="no"?><a/>'])
def test_damaged_xml(data: bytes) -> None:
    with pytest.raises(BadSampleError, match="the XML is damaged"):
        parse_xml(data)


def test_sizes(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    edit(root, "one", "<height>40</height>", "<height>0</height>")
    edit(root, "two", "<height>33</height>", "<height>34</height>")
    data = opened(root)
    sizes = {
        Path(n).stem: t.size
        for n, t in zip(data.ids, data.targets, strict=True)
        if isinstance(t, Boxes)
    }
    assert sizes["one"] == (40, 60), "from the header"
    assert sizes["two"] == (34, 21), "as annotated"
    target = read(data, "two.png").target
    assert isinstance(target, Boxes)
    assert target.size == (33, 21)


def test_lists_of_splits(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("one\ntwo 1\n\n")
    (lists / "val.txt").write_text("four\ngone\n")
    (lists / "trainval.txt").write_text("one\ntwo\nfour\n")
    (lists / "cat_train.txt").write_text("empty\n")
    data = opened(root)
    parts = {
        name: [Path(data.ids[i]).stem for i in places] for name, places in data.published.items()
    }
    assert parts == {"val": ["four"], "train": ["one", "two"]}
    assert data.reason.endswith("splits from ImageSets/Main; 1 images of no split were left out")
    assert [label.id for label in data.unmatched] == ["gone"]
    (lists / "train.txt").unlink()
    assert opened(root).published.keys() == {"train", "val"}, "trainval without val"
    assert len(opened(root).published["train"]) == 2


def test_files_beside_each_other(tmp_path: Path) -> None:
    """As Roboflow writes them, with the same names in both splits."""
    for split, width in (("train", 5), ("valid", 6)):
        write_voc(tmp_path / "made", [Scene("1.png", (20, 30), [("cat", (1, 1, width, 9))])], {})
        (tmp_path / split).mkdir()
        (tmp_path / "made/Annotations/1.xml").rename(tmp_path / split / "1.xml")
        (tmp_path / "made/JPEGImages/1.png").rename(tmp_path / split / "1.png")
        (tmp_path / "made/Annotations").rmdir()
    (tmp_path / "pom.xml").write_text("<project/>")
    data = opened(tmp_path)
    assert data.published == {"train": [0], "val": [1]}
    assert [
        read.target.items[0].corners[2]
        for i in (0, 1)
        if isinstance((read := data.read(i)).target, Boxes)
    ] == [5, 6]


def test_images_are_found_by_the_name_of_the_label(tmp_path: Path) -> None:
    root = tiny(tmp_path)
    put_image(root / "SegmentationClass" / "one.png", SCENES[0])  # masks have the same names
    edit(root, "one", "one.png", "1234.jpg")
    (root / "JPEGImages" / "two.png").rename(root / "JPEGImages" / "renamed.png")
    edit(root, "two", "two.png", "renamed.png")
    (root / "JPEGImages" / "four.png").unlink()
    put_image(root / "JPEGImages" / "more.png", SCENES[0])
    data = opened(root)
    assert set(data.ids) == {
        *(f"JPEGImages/{name}.png" for name in ("one", "renamed", "empty")),
        "Annotations/four.png",  # nowhere
    }
    assert data.unlabelled == ("JPEGImages/more.png",)
    with pytest.raises(BadSampleError, match="missing"):
        read(data, "four.png")


def test_no_boxes_at_all(tmp_path: Path) -> None:
    assert detect_voc(Folder(tmp_path)) is None
    write_voc(tmp_path, [SCENES[2]], {})
    with pytest.raises(DataError, match="no box in 1 images; label some objects"):
        opened(tmp_path)


def test_blood_cells(shared_data: Path) -> None:
    source = open_source(str(shared_data / "bccd"))
    assert source.published == ("train", "val", "test")
    sizes = {name: len(part) for name, part in source.splits.items()}
    assert sizes == {"train": 205, "val": 87, "test": 72}
    dropped = [label.reason for part in source.splits.values() for label in part.dropped]
    assert len(dropped) == 2
    assert all("is empty" in reason for reason in dropped)
    counts = dict.fromkeys(("Platelets", "RBC", "WBC"), 0)
    for part in source.splits.values():
        for target in part.targets:
            assert isinstance(target, Boxes)
            for box in target.items:
                counts[part.classes[box.label]] += 1
    assert counts == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
