"""Published data sets by name: looked for on this machine, else fetched with a checksum."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitrail.errors import DataError


@dataclass(frozen=True, slots=True)
class Published:
    """Where a data set is published.

    Attributes:
        url: Folder of the files on the publisher's server, with a `/` at the end.
        files: MD5 of each file.
        unpacked: A folder that stands for the files, where it lies unpacked.
        archive: Whether the one file is an archive to be read in place.
    """

    url: str
    files: dict[str, str]
    unpacked: str = ""
    archive: bool = False


PUBLISHED: dict[str, Published] = {
    "fashion-mnist": Published(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Published(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        unpacked="cifar-10-batches-bin",
        archive=True,
    ),
}
"""The data sets known by name."""


def locate(name: str) -> Path:
    """Folder or archive of a published data set.

    It is looked for in `$VITRAIL_DATA/<name>` and `$VITRAIL_DATA`, then in the cache of this
    user; else it is downloaded there, and each file must have the published checksum.

    Raises:
        DataError: it is not here and cannot be fetched; the message says what to put where.
    """
    import pooch  # pyright: ignore[reportMissingTypeStubs]

    published = PUBLISHED[name]
    given = os.environ.get("VITRAIL_DATA")
    cache = Path(pooch.os_cache("vitrail")) / name
    places = [Path(given) / name, Path(given)] if given else []
    for place in (*places, cache):
        found = _find(published, place)
        if found is not None:
            return found
    pooch.get_logger().setLevel("WARNING")  # a library prints nothing
    try:
        for file, checksum in published.files.items():
            pooch.retrieve(  # pyright: ignore[reportUnknownMemberType]
                published.url + file, f"md5:{checksum}", file, cache
            )
    except Exception as error:
        wanted = " ".join(published.files)
        folder = Path(given) / name if given else cache
        raise DataError(
            f"{name}: cannot be downloaded ({type(error).__name__}); put {wanted} from "
            f"{published.url} into {folder}"
            + ("" if given else ", or into a folder that VITRAIL_DATA names")
        ) from error
    found = _find(published, cache)
    assert found is not None, "all files were just written"
    return found


def _find(published: Published, place: Path) -> Path | None:
    if published.unpacked and (place / published.unpacked).is_dir():
        return place / published.unpacked
    found: list[Path] = []
    for file in published.files:
        candidates = (place / file, place / file.removesuffix(".gz"))
        there = [path for path in candidates if path.is_file()]
        if not there:
            return None
        found.append(there[0])
    return found[0] if published.archive else place
