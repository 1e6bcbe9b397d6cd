from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pooch
import pytest

from vitrail.data import download
from vitrail.data.download import PUBLISHED, Published, locate
from vitrail.errors import DataError

NAMES = tuple(PUBLISHED["fashion-mnist"].files)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "server"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode())
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VITRAIL_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "vitrail"


def publish(monkeypatch: pytest.MonkeyPatch, url: str, *, damaged: bool = False) -> None:
    files = {
        name: hashlib.md5(b"other" if damaged else name.encode()).hexdigest() for name in NAMES
    }
    monkeypatch.setitem(download.PUBLISHED, "fashion-mnist", Published(url, files))


def test_downloads_once(
    server: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, server)
    assert locate("fashion-mnist") == cache / "fashion-mnist"
    assert sorted(path.name for path in (cache / "fashion-mnist").iterdir()) == sorted(NAMES)
    publish(monkeypatch, "http://127.0.0.1:9/")  # nobody answers there
    assert locate("fashion-mnist") == cache / "fashion-mnist"


def test_a_wrong_checksum_is_an_error(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, server, damaged=True)
    with pytest.raises(DataError, match="cannot be downloaded"):
        locate("fashion-mnist")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_offline_says_what_to_put_where(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/")
    with pytest.raises(DataError) as caught:
        locate("fashion-mnist")
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in NAMES)
    assert str(cache / "fashion-mnist") in message
    assert "VITRAIL_DATA" in message
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=str(tmp_path / "mine" / "fashion-mnist")):
        locate("fashion-mnist")


@pytest.mark.parametrize("below", ["fashion-mnist", "."])
def test_what_lies_below_the_data_folder_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    folder = tmp_path / "mine" / below
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name.removesuffix(".gz")).write_bytes(b"")
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path / "mine"))
    assert locate("fashion-mnist").resolve() == folder.resolve()


def test_cifar_packed_or_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"")
    assert locate("cifar10") == tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    (tmp_path / "cifar10" / "cifar-10-batches-bin").mkdir()
    assert locate("cifar10") == tmp_path / "cifar10" / "cifar-10-batches-bin"
