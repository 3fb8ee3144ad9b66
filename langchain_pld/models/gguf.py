"""Reading the header of a GGUF model file: architecture, trained context and quantisation.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the key-value part is read, not the tensors.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from langchain_pld.errors import ModelSetupError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["GGUFHeader", "read_gguf_header"]


@dataclass(frozen=True, kw_only=True)
class GGUFHeader:
    """What the package needs to know about a model file before loading it."""

    architecture: str
    """llama.cpp's name for it, e.g. `qwen2`."""
    context_length: int | None
    """Trained context, in tokens; None if the file does not say."""
    quantization: str
    """E.g. `Q4_K_M`; `unknown` if neither the file nor its name says."""


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read the header of `path`.

    Raises:
        ModelSetupError: The file cannot be read or is not a GGUF file.
    """
    try:
        with path.open("rb") as file:
            values = _key_values(file)
    except OSError as error:
        raise ModelSetupError(f"cannot read the model file {path}: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, RecursionError) as error:
        raise ModelSetupError(f"{path} is not a readable GGUF file; llama.cpp loads GGUF files only") from error
    architecture = values.get("general.architecture", "unknown")
    context = values.get(f"{architecture}.context_length")
    kind = values.get("general.file_type")
    return GGUFHeader(
        architecture=str(architecture),
        context_length=context if isinstance(context, int) else None,
        quantization=_FILE_TYPES.get(kind if isinstance(kind, int) else -1) or _from_name(path.name),
    )


_Value = str | int | float | bool | None

# GGUF value type -> struct code.
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9
# A longer header string is damage, and reading it would only waste memory.
_MOST_BYTES: Final = 1 << 28

# llama.cpp's llama_ftype, the value of `general.file_type`.
_FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


def _key_values(file: BinaryIO) -> dict[str, _Value]:
    magic, version, _tensors, count = _unpack(file, "4sIQQ")
    if magic != b"GGUF" or version < 2:
        raise ValueError(magic)
    values: dict[str, _Value] = {}
    for _ in range(count):
        key = str(_value(file, _STRING))
        values[key] = _value(file, *_unpack(file, "I"))
        # The vocabulary is long and usually comes last.
        if {"general.file_type", f"{values.get('general.architecture')}.context_length"} <= values.keys():
            break
    return values


def _value(file: BinaryIO, kind: int) -> _Value:
    """Read one value; an array is only skipped."""
    if kind == _ARRAY:
        item, length = _unpack(file, "IQ")
        for _ in range(length):
            _value(file, item)
        return None
    if kind == _STRING:
        (length,) = _unpack(file, "Q")
        if length > _MOST_BYTES or len(data := file.read(length)) < length:
            raise ValueError(length)
        # Free text such as a chat template may be invalid UTF-8.
        return data.decode(errors="replace")
    value: _Value = _unpack(file, _SCALARS[kind])[0]
    return value


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _from_name(name: str) -> str:
    found = re.search(r"(?<![A-Za-z0-9])(I?Q[1-8](?:_[A-Z0-9]+)*|BF16|F16|F32)(?![A-Za-z0-9])", name, re.IGNORECASE)
    return found.group(1).upper() if found else "unknown"
