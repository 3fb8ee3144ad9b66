"""The first tokens of the answer words in a student's tokenizer, and whether they tell the words apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from langchain_core.messages import AIMessage

from langchain_pld.answer import AnswerFormat
from langchain_pld.student.label_words import SHORTEST_PREFIX, LabelWords
from langchain_pld.student.token_logprobs import token_logprobs
from langchain_pld.task import WRAPPING

__all__ = ["first_tokens_differ", "with_first_tokens", "with_written_tokens"]

Tokenizer = Callable[[str], Sequence[int]]


def with_first_tokens(answer: AnswerFormat, token_ids: Tokenizer) -> AnswerFormat:
    """Add the first tokens of the codes in the student's tokenizer.

    A tokenizer may cut "hateful" into "h" and "ateful". "h" could begin any word; it counts for its label only once it
    is known to be how the student begins that code and no other.
    """
    spaces = ("", " ")
    found = {label: [_first_token(code, token_ids, one) for one in spaces] for label, code in answer.codes.items()}
    return _with_telling_tokens(answer, found)


def with_written_tokens(answer: AnswerFormat, written: Mapping[str, AIMessage]) -> AnswerFormat:
    """Like `with_first_tokens`, but without a tokenizer: learned from what the student wrote.

    Args:
        answer: The codes.
        written: Label to the student's answer, with log-probabilities, to a request to write the label's code. Answers
            that do not begin like the code are ignored.
    """
    found = {}
    for label, message in written.items():
        tokens = token_logprobs(message)
        start = tokens[0].token.strip(WRAPPING) if tokens else ""
        if not start or not answer.codes[label].startswith(start):
            return answer
        found[label] = [start]
    return _with_telling_tokens(answer, found)


def first_tokens_differ(answer: AnswerFormat, token_ids: Tokenizer | None = None) -> bool:
    """Whether the first token that the student writes tells the codes apart.

    Args:
        answer: The codes.
        token_ids: The student's tokenizer, if available. The first token of each code, with and without a leading
            space, must then be unique and be read as its label. Otherwise the first three characters must differ, and
            no code may begin another.
    """
    if token_ids is None:
        starts = [code.casefold()[:SHORTEST_PREFIX] for code in answer.codes.values()]
        return not any(one.startswith(two) for i, one in enumerate(starts) for j, two in enumerate(starts) if i != j)
    words = LabelWords.of(with_first_tokens(answer, token_ids))
    for space in ("", " "):
        alone = token_ids(space)[:1] if space else []
        for label, code in answer.codes.items():
            first = token_ids(space + code)[:1]
            if first and first == alone:  # the space is a token of its own
                continue
            text = _first_token(code, token_ids, space)
            if text is None or words.match(text)[0] != label:
                return False
    return True


def _with_telling_tokens(answer: AnswerFormat, found: Mapping[str, Iterable[str | None]]) -> AnswerFormat:
    """Keep only first tokens that are unique to one label and ambiguous by their letters."""
    starts = {label: {(text or "").strip(WRAPPING) for text in texts} - {""} for label, texts in found.items()}
    owners, words = Counter(start for own in starts.values() for start in own), LabelWords(answer.codes)

    def tells(start: str) -> bool:
        return owners[start] == 1 and (len(start) < SHORTEST_PREFIX or words.nests(start))

    telling = {label: tuple(sorted(filter(tells, own))) for label, own in starts.items()}
    return answer.model_copy(update={"first_tokens": {label: own for label, own in telling.items() if own}})


def _first_token(code: str, token_ids: Tokenizer, space: str) -> str | None:
    """The text of the code's first token, including the space: the shortest prefix that is this one token."""
    first = list(token_ids(space + code)[:1])
    beginnings = (space + code[:length] for length in range(1, len(code) + 1))
    return next((text for text in beginnings if first and list(token_ids(text)) == first), None)
