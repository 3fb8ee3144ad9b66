"""Reading model file headers, whole, damaged and invented."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_pld.errors import ModelSetupError
from langchain_pld.models.gguf import read_gguf_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*pairs: tuple[str, bytes]) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(text(key) + value for key, value in pairs)


ARCHITECTURE = ("general.architecture", struct.pack("<I", 8) + text("llama"))
TOKENS = ("tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, 2) + text("<s>") + text("a"))
SCORES = ("tokenizer.ggml.scores", struct.pack("<IIQ2f", 9, 6, 2, 0.5, -1.0))
CONTEXT = ("llama.context_length", struct.pack("<II", 4, 4096))
KIND = ("general.file_type", struct.pack("<II", 4, 15))
WHOLE = header(ARCHITECTURE, TOKENS, SCORES, CONTEXT, KIND)


def test_architecture_context_and_quantisation(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(WHOLE + b"tensors follow")

    found = read_gguf_header(path)

    assert (found.architecture, found.context_length, found.quantization) == ("llama", 4096, "Q4_K_M")


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("qwen-q4_k_m.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("tiny-IQ3_XXS.gguf", "IQ3_XXS"),
        ("tiny.f16.gguf", "F16"),
        ("model.gguf", "unknown"),
    ],
)
def test_quantisation_from_the_name_where_the_file_does_not_say(tmp_path: Path, name: str, quantization: str) -> None:
    path = tmp_path / name
    path.write_bytes(header(ARCHITECTURE))

    found = read_gguf_header(path)

    assert (found.quantization, found.context_length) == (quantization, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelSetupError, match=r"cannot read the model file .*gone\.gguf: No such file"):
        read_gguf_header(tmp_path / "gone.gguf")


@given(cut=st.integers(0, len(WHOLE) - 1), place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_is_an_error_of_ours_or_harmless(tmp_path: Path, cut: int, place: int, byte: int) -> None:
    path = tmp_path / "model.gguf"
    changed = bytearray(WHOLE)
    changed[place] = byte
    for content, certain in ((WHOLE[:cut], True), (bytes(changed), False)):
        path.write_bytes(content)
        try:
            found = read_gguf_header(path)
        except ModelSetupError as error:
            assert "not a readable GGUF file" in str(error)
        else:
            assert not certain
            assert found.quantization
