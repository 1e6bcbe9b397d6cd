"""Where files lie: a folder or an archive, read in place and never unpacked to the disk.

Names that leave the archive (`..`, absolute ones) and links inside it are refused, and so is an
archive that promises more data than its size can hold.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vitrail.config import nearest
from vitrail.errors import BadSampleError, DataError

MEMBER_LIMIT = 2 * 1024**3
"""Largest single file that is read, in bytes."""

TOTAL_LIMIT = 4 * 1024**3
"""Largest unpacked size of a compressed tar, which is held in memory."""

ARCHIVE_SUFFIXES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst"),
)

_DEFLATE_LIMIT = 1032
"""No deflate stream grows by more than this factor (zlib's technical details)."""

_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

Stream = gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File

_COMPRESSIONS: dict[bytes, Callable[[Path], Stream]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
_ZSTD = b"\x28\xb5\x2f\xfd"


class Storage(ABC):
    """Files under relative names.

    Attributes:
        location: The folder or the archive.
    """

    location: Path

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Sorted relative POSIX paths of all regular files that are no junk."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Bytes of one file as it is read; 0 if there is no such file."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The whole of one file.

        Raises:
            BadSampleError: it is missing, damaged, too large or may not be read.
        """


class Folder(Storage):
    """A folder on the disk; links in it are followed, each folder once."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self._paths: tuple[str, ...] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Sorted relative POSIX paths; the folder is listed when this is first asked for."""
        if self._paths is None:
            try:
                self._paths = tuple(sorted(_walk(self.location, "", set())))
            except OSError as error:
                raise DataError(f"{self.location}: cannot list it ({error.strerror})") from error
        return self._paths

    def size(self, path: str) -> int:
        """Bytes on the disk."""
        try:
            return (self.location / path).stat().st_size
        except (OSError, ValueError):
            return 0

    def read(self, path: str) -> bytes:
        """Read the file."""
        place = self.location / path
        try:
            status = place.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BadSampleError("not a regular file")
            _check_member(status.st_size)
            return place.read_bytes()
        except FileNotFoundError as error:
            raise BadSampleError("the file is missing") from error
        except OSError as error:
            raise BadSampleError(f"the file cannot be read ({error.strerror})") from error
        except BadSampleError:
            raise
        except ValueError as error:
            raise BadSampleError("the file name is not usable") from error


class Zip(Storage):
    """A zip archive.

    Each process opens it for itself (a forked worker would share the file position), threads
    share it: `zipfile` guards its reads with a lock.
    """

    def __init__(self, location: Path) -> None:
        self.location = location
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            members = [member for member in self._zip().infolist() if not member.is_dir()]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise _damaged(location, error) from error
        if sum(member.file_size for member in members) > max(
            _DEFLATE_LIMIT * location.stat().st_size, MEMBER_LIMIT
        ):
            raise DataError(f"{location}: promises more data than it can hold (a zip bomb)")
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _not_regular(location, member.filename)
            name = _checked_name(location, member.filename.replace("\\", "/"))
            self._members[name] = member
        self._paths = tuple(sorted(name for name in self._members if not _is_junk(name)))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    @property
    def paths(self) -> tuple[str, ...]:
        """Sorted names of the members."""
        return self._paths

    def size(self, path: str) -> int:
        """Unpacked size as the archive states it."""
        member = self._members.get(path)
        return member.file_size if member else 0

    def read(self, path: str) -> bytes:
        """Unpack one member; its length and checksum must be as stated."""
        member = self._members.get(path)
        if member is None:
            raise BadSampleError("the file is missing from the archive")
        _check_member(member.file_size)
        if member.flag_bits & 1:
            raise BadSampleError("the archive is locked with a password: unpack it first")
        try:
            return self._zip().read(member)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as error:
            raise BadSampleError(f"damaged in the archive ({error})") from error
        except (zlib.error, lzma.LZMAError) as error:
            raise BadSampleError(f"damaged in the archive ({error})") from error

    def _zip(self) -> zipfile.ZipFile:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            # Two threads may both open it; one of the two handles is then closed unused.
            opened = self._opened = (os.getpid(), zipfile.ZipFile(self.location))
        return opened[1]


class _Descriptor:
    """An open file, closed with its owner."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


class Tar(Storage):
    """A plain tar archive: the places of its members are listed once, then read directly."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self._members: dict[str, tuple[int, int]] = {}
        length = location.stat().st_size
        try:
            with tarfile.open(location, "r:") as archive:
                for name, member in _tar_members(location, archive):
                    if member.offset_data + member.size > length:
                        raise DataError(f"{location}: the archive is cut off: copy it again")
                    self._members[name] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise _damaged(location, error) from error
        self._paths = tuple(sorted(self._members))
        self._file = _Descriptor(location)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._file = _Descriptor(self.location)

    @property
    def paths(self) -> tuple[str, ...]:
        """Sorted names of the members."""
        return self._paths

    def size(self, path: str) -> int:
        """Size of one member."""
        return self._members.get(path, (0, 0))[1]

    def read(self, path: str) -> bytes:
        """Read one member; needs no shared file position, so threads and forks are safe."""
        if path not in self._members:
            raise BadSampleError("the file is missing from the archive")
        offset, size = self._members[path]
        _check_member(size)
        data = os.pread(self._file.number, size, offset)
        if len(data) != size:
            raise BadSampleError("cut off in the archive")
        return data


class CompressedTar(Storage):
    """A compressed tar, unpacked into memory in one pass (at most `TOTAL_LIMIT` bytes)."""

    def __init__(self, location: Path, opener: Callable[[Path], Stream]) -> None:
        self.location = location
        self._data: dict[str, bytes] = {}
        try:
            with opener(location) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                total = 0
                for name, member in _tar_members(location, archive):
                    total += member.size
                    if total > TOTAL_LIMIT:
                        raise DataError(
                            f"{location}: more than {TOTAL_LIMIT / 1024**3:.3g} GiB unpacked; "
                            "unpack it into a folder and give that"
                        )
                    content = archive.extractfile(member)
                    assert content is not None, "links were refused above"
                    self._data[name] = content.read()
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _damaged(location, error) from error
        self._paths = tuple(sorted(self._data))

    @property
    def paths(self) -> tuple[str, ...]:
        """Sorted names of the members."""
        return self._paths

    def size(self, path: str) -> int:
        """Size of one member."""
        return len(self._data.get(path, b""))

    def read(self, path: str) -> bytes:
        """Hand out one member."""
        try:
            return self._data[path]
        except KeyError:
            raise BadSampleError("the file is missing from the archive") from None


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive (`.zip`, `.tar`, `.tar.xz`, ...)."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def missing(path: Path, words: Iterable[str] = ()) -> DataError:
    """The error for a path that is not there; it offers the nearest names that are.

    Args:
        path: What was given.
        words: Names that would have been accepted besides files.
    """
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    known = list(words)
    hint = nearest(path.name, [*names, *known]) or "; check the path"
    if known:
        hint += f"; built in: {', '.join(known)}"
    return DataError(f"{path}: no such file or folder{hint}")


def open_storage(path: Path) -> Storage:
    """Open a folder, a zip, or a tar (plain, gz, xz, bz2), told by its first bytes.

    Raises:
        DataError: there is nothing there, it is damaged, or it is neither folder nor archive.
    """
    if path.is_dir():
        return Folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Zip(path)
    if head.startswith(_ZSTD):
        raise DataError(f"{path}: zst is not read: unpack it into a folder and give that")
    for magic, opener in _COMPRESSIONS.items():
        if head.startswith(magic):
            return CompressedTar(path, opener)
    if head[257:262] == b"ustar" or is_archive(path):
        return Tar(path)
    raise DataError(f"{path}: neither a folder nor an archive (zip, tar, tar.gz, tar.xz, tar.bz2)")


def _walk(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in seen:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_junk_part(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", {*seen, place})
            elif entry.is_file():
                yield prefix + entry.name


def _tar_members(location: Path, archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for member in archive:
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise _not_regular(location, member.name)
        name = _checked_name(location, member.name)
        if not _is_junk(name):
            _check_archived(location, member)
            yield name, member


def _check_archived(location: Path, member: tarfile.TarInfo) -> None:
    if member.size > MEMBER_LIMIT:
        raise DataError(
            f"{location}: '{member.name}' has more than {MEMBER_LIMIT / 1024**3:.3g} GiB; "
            "leave it out of the archive"
        )


def _checked_name(location: Path, name: str) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{location}: '{name}' leads out of the archive; pack it again without")
    return str(pure)


def _check_member(size: int) -> None:
    if size > MEMBER_LIMIT:
        raise BadSampleError(f"the file is too large ({size:,} bytes)")


def _is_junk_part(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _is_junk(path: str) -> bool:
    return any(_is_junk_part(part) for part in path.split("/"))


def _not_regular(location: Path, name: str) -> DataError:
    return DataError(
        f"{location}: '{name}' is a link or a special file; pack the archive with the files"
    )


def _damaged(location: Path, error: Exception) -> DataError:
    text = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{location}: the archive is damaged ({text}): copy it again or unpack it")
