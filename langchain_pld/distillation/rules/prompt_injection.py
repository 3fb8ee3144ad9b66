"""Prompt injection in drafted rules: instructions to a model, disguised text, addresses, code, answer formats.

A condition ends up in a system prompt, so it may only describe texts. The screen is strict: a refused draft costs one
example, an instruction that gets through costs the guard. It reads a text as it is and with look-alike letters folded.
Repetitions that could backtrack are bounded, so that time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from langchain_pld.student.sanitize import clean_text, skeleton

__all__ = ["contains_instruction", "find_injection", "mentions_models"]


def find_injection(text: str, *, labels: Sequence[str] = (), about_models: bool = False) -> str | None:
    """Why a text is unfit for a system prompt, as the end of a sentence that begins "a condition that"; or `None`.

    Args:
        text: A condition or a cue.
        labels: Label names; telling the reader to answer with one is an instruction.
        about_models: Whether the task is about texts that address a model, so that a condition may report that ("asks
            the model to ignore its rules").
    """
    visible = clean_text(text)
    for reason, pattern in _NOT_PROSE.items():
        if pattern.search(visible):
            return reason
    for view in _views(visible):
        for reason, pattern in _INSTRUCTIONS.items():
            for match in pattern.finditer(view):
                reportable = about_models or reason == _ADDRESSES_READER
                if not (reportable and _REPORTED.search(view, max(0, match.start() - 120), match.start())):
                    return reason
        if labels and _answer_with(labels).search(view):
            return _DICTATES
    return None


@lru_cache(maxsize=256)  # called again for each condition and cue drafted from the text
def contains_instruction(text: str) -> bool:
    """Whether a text tries to steer a model; unlike a condition, it may contain links, code and "you must"."""
    visible = clean_text(text)
    return bool(_NOT_PROSE[_DISGUISED].search(visible)) or any(
        pattern.search(view)
        for view in _views(visible)
        for reason, pattern in _INSTRUCTIONS.items()
        if reason != _ADDRESSES_READER
    )


def mentions_models(text: str) -> bool:
    """Whether a task's wording says that its texts address a model."""
    return _MODELS.search(text) is not None


def _views(visible: str) -> set[str]:
    return {" ".join(view.split()) for view in (visible.casefold(), skeleton(visible))}


def _answer_with(labels: Sequence[str]) -> re.Pattern[str]:
    names = "|".join(re.escape(skeleton(label)) for label in labels)
    return re.compile(rf"{_ANSWER}(?:\W+\w+){{0,3}}?\W+(?:{names})\b")


_INSTRUCTS = "holds an instruction to the model"
_ADDRESSES_READER = "addresses its reader"
_DICTATES = "tells the reader what to answer"
_RULES = "speaks of rules and answers instead of texts"
_FORM = "speaks of the form of the answer, which the compiled prompt decides"
_DISGUISED = "is disguised or encoded"

_MODELS = re.compile(
    r"jailbreak|prompts?\b|injection|chatbot|\bassistants?\b|\bLLMs?\b|\bAI\b|language model", re.IGNORECASE
)
_REPORTED = re.compile(
    r"\b(?:ask|tell|order|trie|try|want|instruct|urge|demand|attempt|request|command|seek|say|claim|state|warn|insist"
    r"|suggest|promise)(?:s|ed|ing)?\b[^,.;:!?]{0,60}$"
)

_NOT_PROSE = {
    "holds a web or e-mail address": re.compile(
        r"\w://|\bwww\.|(?<!\w)@\w\w|[\w.+-]{1,64}@[\w-]{1,64}\.\w|[\[(]\s?(?:dot|at)\s?[\])]|\b\d{1,3}(?:\.\d{1,3}){3}\b"
        r"|\b[\w-]{1,64}\.(?:com|org|net|io|ai|gov|edu|info|biz|co|app|dev|xyz|ru|cn|de|fr|uk|eu)\b(?!\.?\w)",
        re.IGNORECASE,
    ),
    "holds code or markup": re.compile(
        r"[<>{}|\\`\u2039\u203a]|\]\(|==|= ?>|\w\(\)|[a-z]\.[a-z]{1,40}\(|&#?\w{1,10};|(?:%[0-9A-Fa-f]{2}){2}"
        r"|[\[(]/?(?:INST|SYS)"
    ),
    # Encoded text, digits for letters, spaced letters, phonetic alphabets, boxed letters.
    _DISGUISED: re.compile(
        r"[A-Za-z0-9+/=]{32}|(?:[A-Za-z]\d){2}|(?:\b\w\b[\s._*-]{1,3}){4}\w\b"
        r"|[\u0250-\u02af\u1d00-\u1dbf\ua720-\ua7ff\U0001f100-\U0001f1ff]"
    ),
}
"""Reason to pattern, on the cleaned text."""

# The Latin-script languages most likely in a draft; `Screen.scripts` covers other scripts.
_OVERRIDE = (
    r"(?:\b(?:ignor\w*|disregard|forget|overrid\w*|bypass|stop following|do(?: not|n't) (?:follow|obey)|no longer"
    r"|vergiss|missachte\w*|oublie\w*|olvid\w*|esqueca|dimentica)\b)"
)
_OVERRIDDEN = (
    r"(?:\b(?:rules?|instruct\w*|above|previous|prior|earlier|prompts?|polic(?:y|ies)|guidelines?|everything|directions"
    r"|regeln?|anweisung\w*|vorherig\w*|regles?|consignes?|precedent\w*|reglas?|instruc\w*|anterior\w*|regole"
    r"|istruzioni)\b)"
)
_ANSWER = (
    r"(?<!to )(?<!not )\b(?:answer|respond|reply|output|return|say|choose|pick|select|assign|give|label|classify|mark"
    r"|tag|flag|route|antworte)\b"
)
_INSTRUCTIONS = {
    _INSTRUCTS: re.compile(
        rf"{_OVERRIDE}.{{0,40}}?{_OVERRIDDEN}|{_OVERRIDDEN}.{{0,25}}?{_OVERRIDE}"
        r"|\b(?:system|hidden|secret) prompt\b|\b(?:developer|debug|god|admin) mode\b|\bjailbreak"
        r"|(?:^|\W)(?:system|assistant|developer|human|user)\s?:|##\s?\w|\bnew (?:instruction|rule|task)s?\b"
    ),
    _ADDRESSES_READER: re.compile(
        r"\bfrom now on\b|\byou (?:are|must|should|shall|will|have to|need to|ought to|can) "
        r"|\bas an? (?:ai|language model|assistant)\b|\b(?:act|pretend|behave) (?:as|to be|like)\b"
    ),
    _RULES: re.compile(
        r"\b(?:the|this|each|every|any|your|all) (?:rule|condition|prompt|answer|label|verdict|output)s?\b.{0,30}"
        r"\b(?:must|should|shall|has to|have to|needs? to|will|always|contains?|includes?|is|be)\b"
        r"|(?<!to )\b(?:include|add|insert|append|repeat|copy|mention)\b.{0,20}"
        r"\b(?:phrase|words?|sentence|line|string|code|token)\b"
    ),
    _FORM: re.compile(
        r"\b(?:answer|respond|reply|output|return|print|write|format)\w{0,3}\b.{0,30}\b(?:json|xml|yaml|markdown|html"
        r"|format|(?:one|single) (?:word|letter)|upper ?case|lower ?case|capitals|label only|only the label)\b"
        r"|(?<!to )\b(?:answer|respond|reply|output) (?:only|always|just|exactly|with|in)\b"
    ),
    _DICTATES: re.compile(
        r"\b(?:always|never|simply|instead),? (?:answer|respond|reply|output|return|label|classify|approve|mark)\b"
        r"|(?<!to )(?<!not )\b(?:classify|label|mark|treat|flag|approve|allow|accept|permit|block) "
        r"(?:it|this|that|these|them|all|any|every\w*|the (?:text|message|input|note|post|request)s?)\b"
        r"|\b(?:correct|right|final|true) (?:answer|label|verdict)\b.{0,15}\bis\b"
    ),
}
"""Reason to pattern, on lower-case views."""
