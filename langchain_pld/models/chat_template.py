"""From chat turns to token ids, so that no text of a message can forge a role boundary.

The model's chat template is rendered with a placeholder for each content. The template's own text is tokenized with
control tokens, each content as plain text, whatever it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from langchain_pld.models.errors import BadCallError

__all__ = ["ChatTemplate", "ChatTurn", "TokenPrompt"]


class ChatTurn(NamedTuple):
    """One message: its role (`system`, `user` or `assistant`) and content."""

    role: str
    content: str


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt in tokens, split where requests begin to differ."""

    prefix: tuple[int, ...]
    """Everything before the content of the last message, and that content's opening."""
    tail: tuple[int, ...]
    """The rest of that content, and what the template puts after it."""


class ChatTemplate:
    """The chat template and tokenizer of a loaded model.

    Args:
        render: Renders messages (`role` and `content` each) with the model's template, including the opening of the
            answer.
        tokenize: Text to token ids. The first flag says whether to recognise control tokens in the text, the second
            whether to put the model's start token in front.
    """

    def __init__(
        self, render: Callable[[list[dict[str, str]]], str], tokenize: Callable[[str, bool, bool], list[int]]
    ) -> None:
        self._render = render
        self._tokenize = tokenize
        self._skeleton = lru_cache(maxsize=64)(self._read_skeleton)
        # Long system prompts recur with each request; the last message rarely does.
        self._cached_tokens = lru_cache(maxsize=64)(self._content_tokens)

    def prompt(self, turns: Sequence[ChatTurn], opening: str = "") -> TokenPrompt:
        """Render `turns` into tokens.

        Args:
            turns: The messages, oldest first.
            opening: Counts as prefix if the last content begins with it.

        Raises:
            BadCallError: There are no turns, the template refuses this order of roles or leaves out a message, or a
                content has a control token.
        """
        if not turns:
            raise BadCallError("there is no message to answer")
        skeleton = self._skeleton(tuple(turn.role for turn in turns))
        cut = skeleton.contents.index(len(turns) - 1)
        prefix: list[int] = list(skeleton.frames[0])
        tail: list[int] = []
        for position, turn in enumerate(skeleton.contents):
            if position < cut:
                prefix += self._cached_tokens(turns[turn].content, skeleton.control)
                prefix += skeleton.frames[position + 1]
            else:
                content = turns[turn].content
                if position == cut and opening and content.startswith(opening):
                    prefix += self._cached_tokens(opening, skeleton.control)
                    content = content.removeprefix(opening)
                tail += self._content_tokens(content, skeleton.control)
                tail += skeleton.frames[position + 1]
        return TokenPrompt(tuple(prefix), tuple(tail))

    def _read_skeleton(self, roles: tuple[str, ...]) -> _Skeleton:
        rendered = self._render(
            [{"role": role, "content": _PLACEHOLDER.format(number)} for number, role in enumerate(roles)]
        )
        pieces = _PLACEHOLDER_PATTERN.split(rendered)
        texts, contents = pieces[::2], tuple(int(number) for number in pieces[1::2])
        if missing := set(range(len(roles))) - set(contents):
            msg = f"the model's chat template leaves out the {roles[min(missing)]} message; use other roles"
            raise BadCallError(msg)
        frames = tuple(tuple(self._tokenize(text, True, number == 0)) for number, text in enumerate(texts))
        plain = {token for text in texts for token in self._tokenize(text, False, False)}
        return _Skeleton(frames, contents, frozenset(token for frame in frames for token in frame) - plain)

    def _content_tokens(self, text: str, control: frozenset[int]) -> tuple[int, ...]:
        tokens = tuple(self._tokenize(text, False, False)) if text else ()
        # Some model files list control tokens as ordinary ones, which are recognised in any text.
        if not control.isdisjoint(tokens):
            raise BadCallError("a message holds text that this model reads as a role boundary; it was not sent")
        return tokens


_PLACEHOLDER: Final = "@@pld-content-{}@@"
_PLACEHOLDER_PATTERN: Final = re.compile(r"@@pld-content-(\d+)@@")


class _Skeleton(NamedTuple):
    frames: tuple[tuple[int, ...], ...]
    """What the template writes before, between and after the contents."""
    contents: tuple[int, ...]
    """Numbers of the messages, in the order of their contents between the frames."""
    control: frozenset[int]
    """Tokens of the frames that plain text cannot produce."""
