"""Reading the header of a GGUF model file: architecture, trained context and quantisation.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the key-value part is read, not the tensors.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from langchain_pld.errors import ModelSetupError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["GGUFHeader", "read_gguf_header"]


@dataclass(frozen=True, kw_only=True)
class GGUFHeader:
    """What the package needs to know about a model file before it is loaded."""

    architecture: str
    """As llama.cpp names it, for instance `qwen2`."""
    context_length: int | None
    """Context that the model was trained with, tokens; None where the file does not say."""
    quantization: str
    """For instance `Q4_K_M`; `unknown` where neither the file nor its name says."""


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read the header of `path`.

    Raises:
        ModelSetupError: If the file cannot be read or is no GGUF file.
    """
    try:
        with path.open("rb") as file:
            values = _key_values(file)
    except OSError as error:
        msg = f"cannot read the model file {path}: {error.strerror or error}"
        raise ModelSetupError(msg) from error
    except (struct.error, UnicodeDecodeError, KeyError, _DamagedError) as error:
        msg = f"{path} is not a readable GGUF file; llama.cpp loads GGUF files only"
        raise ModelSetupError(msg) from error
    architecture = values.get("general.architecture", "unknown")
    context = values.get(f"{architecture}.context_length")
    kind = values.get("general.file_type")
    return GGUFHeader(
        architecture=str(architecture),
        context_length=context if isinstance(context, int) else None,
        quantization=_FILE_TYPES.get(kind if isinstance(kind, int) else -1) or _from_name(path.name),
    )


class _DamagedError(Exception):
    """The bytes do not follow the format."""


_Value = str | int | float | bool | None

# GGUF value type -> struct code.
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9
# A header string or array beyond this is damage, and reading it would only eat memory.
_MOST_BYTES: Final = 1 << 28

# llama.cpp's llama_ftype, which `general.file_type` holds.
_FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


def _key_values(file: BinaryIO) -> dict[str, _Value]:
    magic, version, _tensors, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version < 2:
        raise _DamagedError
    values: dict[str, _Value] = {}
    for _ in range(count):
        key = _string(file).decode()
        values[key] = _value(file, _scalar(file, "I"))
    return values


def _value(file: BinaryIO, kind: int) -> _Value:
    if kind == _STRING:
        # Free text such as a chat template need not be valid UTF-8 to be skipped over.
        return _string(file).decode(errors="replace")
    if kind == _ARRAY:
        item, length = _scalar(file, "I"), _scalar(file, "Q")
        if length > _MOST_BYTES:
            raise _DamagedError
        if item == _STRING:
            for _ in range(length):
                _string(file)
        else:
            file.seek(length * struct.calcsize(_SCALARS[item]), 1)
        return None
    value: _Value = _scalar(file, _SCALARS[kind])
    return value


def _string(file: BinaryIO) -> bytes:
    length = _scalar(file, "Q")
    if length > _MOST_BYTES:
        raise _DamagedError
    data = file.read(length)
    if len(data) != length:
        raise _DamagedError
    return data


def _scalar(file: BinaryIO, code: str) -> int:
    value: int
    (value,) = struct.unpack(f"<{code}", file.read(struct.calcsize(code)))
    return value


def _from_name(name: str) -> str:
    found = re.search(r"(?<![A-Za-z0-9])(I?Q[1-8](?:_[A-Z0-9]+)*|BF16|F16|F32)(?![A-Za-z0-9])", name, re.IGNORECASE)
    return found.group(1).upper() if found else "unknown"
