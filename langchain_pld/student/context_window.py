"""The student's context window: which texts fit, and how to split those that do not."""

from __future__ import annotations

from functools import cached_property

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.errors import InputError
from langchain_pld.student.chunks import RESERVED_TOKENS, LongInput, chunk_spans, estimated_tokens
from langchain_pld.student.failures import failure_of, passes_through
from langchain_pld.student.providers import ModelProfile
from langchain_pld.student.sanitize import CleanText
from langchain_pld.student.two_stage import last_line
from langchain_pld.verdict import Failure

__all__ = ["ContextWindow"]


class ContextWindow:
    """What fits into one request next to an artifact's prompt."""

    def __init__(self, artifact: DistilledPrompt, profile: ModelProfile, long_input: LongInput) -> None:
        self._artifact = artifact
        self._profile = profile
        self._long_input = long_input
        needed = estimated_tokens(artifact.system_prompt) + RESERVED_TOKENS
        self.length = profile.context_length(artifact.student.context_length, needed)
        """Tokens that fit into one request, if known without loading the model."""

    def surely_fits(self, text: CleanText) -> bool:
        """Whether a text certainly fits, without using a tokenizer."""
        # A token has at least one byte.
        return self.length is None or ("_room" in self.__dict__ and len(text.encode()) <= self._room)

    def split(self, text: CleanText) -> list[CleanText] | Failure:
        """The text in parts that fit, or why it cannot be read. May load the model for its tokenizer."""
        try:
            tokens, room = self._count(text), self._room
            if tokens <= room:
                return [text]
            if not self._long_input.in_chunks(self._artifact.task):
                message = (
                    f"the input has about {tokens} tokens, and the student's context of {self.length} "
                    f"leaves {max(room, 0)} for it; shorten it, or give the student a longer context"
                )
                return Failure(kind="input", message=message)
            spans = chunk_spans(text, room=room, count=self._count, overlap=self._long_input.overlap)
        except InputError as error:
            return Failure(kind="input", message=str(error))
        except Exception as error:  # loading the tokenizer may load the model
            if passes_through(error):
                raise
            return failure_of(error, self._profile.spec)
        most = self._long_input.max_chunks
        if len(spans) > most:
            return Failure(kind="input", message=f"the input needs {len(spans)} chunks, the limit is {most}")
        return [CleanText(text[start:end]) for start, end in spans]

    def _count(self, text: str) -> int:
        tokenizer = self._profile.tokenizer
        return estimated_tokens(text) if tokenizer is None else len(tokenizer(text))

    @cached_property
    def _room(self) -> int:
        """Tokens that the prompt leaves for the text. Loads an embedded model."""
        length = self.length or 0
        loaded = self._profile.loaded_context_length()
        length = length if loaded is None else min(length, loaded)
        prompt, answer = self._artifact.system_prompt, self._artifact.answer
        taken = RESERVED_TOKENS + answer.thinking_tokens + self._count(prompt)
        if answer.form == "two_stage":
            # A question repeats a group's line after the text; the last one has a label from each group.
            longest = {group: max(labels, key=len) for group, labels in answer.groups.items()}
            taken += max(self._count(line) for line in (*prompt.split("\n"), last_line(longest)))
        return length - taken
