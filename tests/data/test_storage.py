from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitrail.data import storage as module
from vitrail.data.storage import Storage, Tar, Zip, is_archive, missing, open_storage
from vitrail.errors import BadSampleError, DataError

FILES = {"a/1.bin": b"one" * 1000, "a/b/2.bin": os.urandom(5000), "3.bin": b""}
JUNK = {".DS_Store": b"x", "__MACOSX/a/1.bin": b"x", "a/Thumbs.db": b"x", ".git/config": b"x"}
KINDS = ["folder", "zip", "tar", "tar.gz", "tar.xz", "tar.bz2"]


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def make(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    path = folder / f"data.{kind}"
    if kind == "folder":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            archive.mkdir("empty")
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            for name, data in files.items():
                add(archive, f"./{name}", data)
    return path


def check(storage: Storage) -> bool:
    return all(storage.read(name) == data for name, data in FILES.items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_storage_holds_the_same_files(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind, FILES | JUNK)
    storage = open_storage(path)
    assert storage.location == path
    assert storage.paths == tuple(sorted(FILES))
    assert check(storage)
    assert [storage.size(name) for name in FILES] == [len(data) for data in FILES.values()]
    assert storage.size("no/such.file") == 0
    with pytest.raises(BadSampleError, match="missing"):
        storage.read("no/such.file")
    assert is_archive(path) == (kind != "folder")


@pytest.mark.parametrize("kind", KINDS)
def test_threads_forks_and_pickles_may_share_it(tmp_path: Path, kind: str) -> None:
    storage = open_storage(make(tmp_path, kind, FILES))
    assert check(storage)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: check(storage), range(40)))
    assert check(pickle.loads(pickle.dumps(storage)))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_forked_workers_do_not_disturb_each_other(tmp_path: Path, kind: str) -> None:
    storage = open_storage(make(tmp_path, kind, FILES))
    assert check(storage)
    context = multiprocessing.get_context("fork")

    def work() -> None:
        os._exit(0 if all(check(storage) for _ in range(200)) else 1)

    workers = [context.Process(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    good = all(check(storage) for _ in range(200))
    for worker in workers:
        worker.join()
    assert good
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


@pytest.mark.parametrize("name", ["../out.bin", "/etc/out.bin", "a/../../out.bin"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            add(archive, name, b"x")
    with pytest.raises(DataError, match="leads out"):
        open_storage(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("suffix", ["", "gz"])
def test_links_in_a_tar_are_refused(tmp_path: Path, kind: bytes, suffix: str) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, f"w:{suffix}") as archive:
        member = tarfile.TarInfo("a/link.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"a/link\.jpg' is a link"):
        open_storage(path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link.jpg")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="link"):
        open_storage(path)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_damaged_archives_are_one_line(tmp_path: Path, kind: str, damage: str) -> None:
    path = make(tmp_path, kind, {f"{i}.bin": os.urandom(3000) for i in range(9)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff" + os.urandom(4000))
    with pytest.raises(DataError) as caught:
        open_storage(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_member_of_a_zip_is_a_bad_sample(tmp_path: Path) -> None:
    path = make(tmp_path, "zip", FILES)
    data = bytearray(path.read_bytes())
    at = data.index(b"2.bin") + 200
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    storage = Zip(path)
    with pytest.raises(BadSampleError, match="damaged in the archive"):
        storage.read("a/b/2.bin")
    assert storage.read("a/1.bin") == FILES["a/1.bin"]


def test_a_zip_that_lies_about_sizes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, "zip", {"zeros.bin": bytes(10**6)})
    monkeypatch.setattr(module, "MEMBER_LIMIT", 10**5)
    with pytest.raises(BadSampleError, match="too large"):
        Zip(path).read("zeros.bin")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (3 * 10**9).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="bomb"):
        Zip(path)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (100).to_bytes(4, "little")  # fewer than there are
    path.write_bytes(bytes(data))
    with pytest.raises(BadSampleError, match="damaged"):
        Zip(path).read("zeros.bin")


def test_a_compressed_tar_above_the_limit_says_unpack_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOTAL_LIMIT", 6000)
    path = make(tmp_path, "tar.gz", FILES)
    with pytest.raises(DataError, match="unpack it into a folder"):
        open_storage(path)
    assert Tar(make(tmp_path, "tar", FILES)).paths  # read from the disk: no such limit


def test_a_locked_zip_is_a_bad_sample(tmp_path: Path) -> None:
    path = make(tmp_path, "zip", {"a.bin": b"abc"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BadSampleError, match="password"):
        Zip(path).read("a.bin")


def test_a_folder_follows_links_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.bin").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "broken").symlink_to(tmp_path / "nothing")
    assert open_storage(tmp_path / "data").paths == ("linked/x.bin",)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        open_storage(text)
    packed = tmp_path / "a.tar.zst"
    packed.write_bytes(b"\x28\xb5\x2f\xfd rest")
    with pytest.raises(DataError, match="unpack it"):
        open_storage(packed)
    folder = open_storage(tmp_path)
    for name in ("sub", "a\0b"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(BadSampleError):
            folder.read(name)


def test_missing_offers_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    assert "did you mean 'flowers'?" in str(missing(tmp_path / "flower"))
    assert "did you mean 'flowers'?" in str(missing(tmp_path / "flowrs" / "train" / "x"))
    assert "did you mean" not in str(missing(tmp_path / "zzz"))
