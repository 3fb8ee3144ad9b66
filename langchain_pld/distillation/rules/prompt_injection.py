"""Planted instructions: what a text about texts does not hold, but a text that wants to steer a model does.

Strict, since a refused draft costs one example and a planted instruction costs the guard. Read in several ways: as it
is, with look-alikes folded, with digits as the letters that they resemble, reversed, and in ROT13. The repetitions in
the patterns are bounded, so that no text makes them slow.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator, Sequence

from langchain_pld.student.sanitize import clean_text, skeleton

__all__ = ["mentions_models", "planted", "steers"]


def planted(text: str, *, labels: Sequence[str] = (), about_models: bool = False) -> str | None:
    """Whether a text holds instructions, disguises, addresses, code or rules about the form of the answer.

    Args:
        text: A condition, a cue, or the text that one is drafted from.
        labels: Label names; telling the reader to answer with one is an instruction.
        about_models: Whether a condition may report that a text addresses a model ("asks the model to ignore its
            rules"), because that is what the task is about.

    Returns:
        The reason, as the end of a sentence that begins with "a condition that", or `None`.
    """
    shown = clean_text(text)
    for pattern, reason in _NO_PROSE:
        if pattern.search(shown):
            return reason
    for view in _views(shown):
        for pattern, reason, may_report in _INSTRUCTIONS:
            for match in pattern.finditer(view):
                reports = (may_report or about_models) and _REPORTED.search(
                    view, max(0, match.start() - 120), match.start()
                )
                if not reports:
                    return reason
        if labels and _answer_with(labels).search(view):
            return _ANSWERS
    return _DISGUISED if _hides_an_override(shown) else None


def steers(text: str) -> bool:
    """Whether a text tries to steer whoever reads it: less than `planted` objects to, since any text may say "you"."""
    shown = clean_text(text)
    return (
        any(
            pattern.search(view) for view in _views(shown) for pattern, _, may_report in _INSTRUCTIONS if not may_report
        )
        or any(pattern.search(shown) for pattern, reason in _NO_PROSE if reason == _DISGUISED)
        or _hides_an_override(shown)
    )


def mentions_models(text: str) -> bool:
    """Whether a task's own words say that its texts address a model."""
    return _MODELS.search(text) is not None


def _views(shown: str) -> Iterator[str]:
    plain = skeleton(shown)
    lenient = _LEET_WORD.sub(lambda match: match.group().translate(_LEET), plain)
    for view in dict.fromkeys((shown.casefold(), plain, lenient)):
        yield " ".join(view.split())


def _hides_an_override(shown: str) -> bool:
    plain = skeleton(shown)
    return bool(_OVERRIDE.search(codecs.encode(plain, "rot13")) or _OVERRIDE.search(plain[::-1]))


def _answer_with(labels: Sequence[str]) -> re.Pattern[str]:
    names = "|".join(re.escape(skeleton(label)) for label in labels)
    return re.compile(rf"{_ANSWER_VERB}(?:\W+\w+){{0,3}}?\W+(?:{names})\b")


def _any(*parts: str) -> str:
    return "(?:" + "|".join(parts) + ")"


def _either(parts: str) -> str:
    return _any(*unicodedata.normalize("NFKC", parts).split())


_INSTRUCTION = "holds an instruction to the model"
_DISGUISED = "is disguised or encoded"
_ADDRESS = "holds a web or e-mail address"
_CODE = "holds code or markup"
_FORM = "speaks of the form of the answer, which the compiled prompt decides"
_ANSWERS = "tells the reader what to answer"
_RULES = "speaks of rules and answers instead of texts"

_MODELS = re.compile(
    r"jailbreak|\bprompts?\b|injection|chatbot|\bassistants?\b|\bLLMs?\b|\bAI\b|language model", re.IGNORECASE
)
_LEET = str.maketrans("013457@$!", "oieastasi")
_LEET_WORD = re.compile(r"(?=[a-z013457@$!]{0,30}[a-z])(?=[a-z013457@$!]{0,30}[013457@$!])[a-z013457@$!]{3,60}")
_REPORTED = re.compile(
    r"\b(?:ask|tell|order|trie|try|want|instruct|urge|demand|attempt|request|command|seek|say|claim|state|warn|insist"
    r"|suggest|promise)(?:s|ed|ing)?\b[^,.;:!?]{0,60}$"
)

_DOMAINS = _either("com org net io ai gov edu info biz co me app dev xyz ru cn de fr uk eu in br")

_NO_PROSE: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            _any(
                r"\b\w{2,6}://",
                r"\bwww\.",
                r"\bhxxps?\b",
                r"[\w.+-]{1,64}@[\w-]{1,64}\.\w",
                r"(?<!\w)@\w\w",
                r"[\[(]\s?(?:dot|at)\s?[\])]",
                rf"\b[\w-]{{1,64}}\.{_DOMAINS}\b(?!\.?\w)",
                r"\b[\w-]{1,64}\.[\w-]{1,64}(?:\.[\w-]{1,64}){0,4}/\w",
                r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
            ),
            re.IGNORECASE,
        ),
        _ADDRESS,
    ),
    (
        re.compile(
            _any(
                r"[<>{}|\\`\u2039\u203a]",
                r"\]\(",
                r"=>",
                r"==",
                r"\w\(\)",
                r"\b(?:eval|exec|system)\(",
                r"\bimport \w{1,40}(?:\.\w|;| as )",
                r"\bdef \w{1,40}\(",
                r"\bSELECT\b.{1,200}\bFROM\b",
                r"\bDROP TABLE\b",
                r"\brm -rf\b",
                r"\bsudo ",
                r"&#?\w{1,10};",
                r"(?:%[0-9A-Fa-f]{2}){2}",
                r"[\[(]/?(?:INST|SYS)",
            )
        ),
        _CODE,
    ),
    (
        re.compile(
            _any(
                # Base64, hexadecimal, and what else is too long or too mixed to be a word.
                r"(?<![\w+/-])[\w+/-]{12,400}={1,2}(?!\w)",
                r"\b(?=[a-fA-F]{0,20}\d)[0-9a-fA-F]{12}",
                r"[A-Za-z0-9+/]{32}",
                r"\b\w{0,20}[a-z][A-Z]\w{0,20}[a-z][A-Z]",
                r"\b(?=\w{0,20}\d[A-Za-z])(?=\w{0,20}[A-Z])(?=\w{0,20}[a-z])\w{8}",
                # Morse code, spaced letters, letters of phonetic alphabets and in boxes.
                r"(?:[.\u2022-]{1,5}\s{1,3}){5}",
                r"(?:\b\w\b[\s._*-]{1,3}){4}\w\b",
                r"[\u0250-\u02af\u1d00-\u1dbf\ua720-\ua7ff\U0001f100-\U0001f1ff]",
            )
        ),
        _DISGUISED,
    ),
)
"""What is no plain prose, on the cleaned text."""

_VERBS = _either(
    r"""ignor\w* disregard\w* forget\w* overrid\w* bypass\w* neglect\w* stop\sfollowing do(?:\snot|n't)\sfollow
    do(?:\snot|n't)\sobey vergiss\w* vergessen missachte\w* oublie\w* olvid\w* esque[cç]\w* dimentica\w* negeer\w*
    zignoruj\w* zapomnij yok\s?say\w* görmezden gormezden игнорир\w* забуд\w* 忽略 无视 忘记 無視 忘れ 무시 잊 تجاهل انس
    अनदेखा नज़रअंदाज़ भूल"""
)
_OBJECTS = _either(
    r"""rules? instructions? above previous\w* prior earlier prompts? polic(?:y|ies) guidelines? everything directions
    regeln? anweisung\w* vorherig\w* regles? règles? consignes? reglas? instrucciones anterior\w* regras?
    instruc\w+ instruções regole istruzioni instructies regels zasad\w* instrukcj\w* talimat\w* kural\w* правил\w*
    инструкц\w* указани\w* 规则 規則 指令 指示 提示 ルール 命令 지시 규칙 تعليمات القواعد निर्देश नियम"""
)
# No word boundaries: some of these languages write no spaces.
_OVERRIDE = re.compile(rf"{_VERBS}.{{0,40}}?{_OBJECTS}|{_OBJECTS}.{{0,25}}?{_VERBS}", re.DOTALL)
_ANSWER_VERB = (
    r"(?<!to )(?<!not )\b"
    + _either("answer respond reply output return say choose pick select assign give label classify mark tag flag")
    + r"\b"
)

_INSTRUCTIONS: tuple[tuple[re.Pattern[str], str, bool], ...] = (
    (_OVERRIDE, _INSTRUCTION, False),
    (
        re.compile(
            _any(
                r"\b(?:system|hidden|secret) prompt\b",
                r"\b(?:developer|debug|god|admin) mode\b",
                r"\bjailbr[eo]ak",
                r"(?:^|\W)(?:system|assistant|developer|human|user)\s?:",
                r"##\s?\w",
                r"\bnew (?:instruction|rule|task)s?\b",
                r"\b(?:reveal|print|show|repeat|leak)\b.{0,30}\b(?:prompt|instructions)\b",
                r"\b(?:rules?|instructions?|restrictions?) (?:above |below )?(?:no longer|does not|do not|don't) apply",
            )
        ),
        _INSTRUCTION,
        False,
    ),
    (
        re.compile(
            _any(
                r"\bfrom now on\b",
                r"\byou (?:are|must|should|shall|will|have to|need to|ought to|can) ",
                r"\bas an? (?:ai|language model|assistant)\b",
                r"\b(?:act|pretend|behave) (?:as|to be|like)\b",
                r"\bpay no (?:attention|heed)\b",
                r"\bplease\b.{0,20}\b(?:note|label|answer|classify|approve)\b",
            )
        ),
        _INSTRUCTION,
        True,
    ),
    (
        re.compile(
            _any(
                r"\b(?:the|this|each|every|any|your|all) (?:rule|condition|prompt|answer|label|verdict|output)s?\b"
                r".{0,30}\b(?:must|should|shall|has to|have to|needs? to|will|always|contains?|includes?|is|be)\b",
                r"(?<!to )\b(?:include|add|insert|append|repeat|copy|mention)\b.{0,20}"
                r"\b(?:phrase|words?|sentence|line|string|code|token)\b",
            )
        ),
        _RULES,
        False,
    ),
    (
        re.compile(
            _any(
                r"\b(?:answer|respond|reply|output|return|print|write|format)\w*\b.{0,30}"
                r"\b(?:json|xml|yaml|markdown|html|format|(?:one|single) (?:word|letter)|upper ?case|lower ?case"
                r"|capitals|label only|only the label|full sentences?)\b",
                r"(?<!to )\b(?:answer|respond|reply|output) (?:only|always|just|exactly|with|in)\b",
            )
        ),
        _FORM,
        False,
    ),
    (
        re.compile(
            _any(
                r"\b(?:always|never|simply|instead),? "
                r"(?:answer|respond|reply|output|return|label|classify|approve|mark)\b",
                r"(?<!to )(?<!not )\b(?:classify|label|mark|treat|flag|approve|allow|accept|permit|block) "
                r"(?:it|this|that|these|them|all|any|every\w*|the (?:text|message|input|note|post|request)s?)\b",
                r"\b(?:the|correct|right|final|true) (?:answer|label|verdict)\b.{0,15}\bis\b",
            )
        ),
        _ANSWERS,
        False,
    ),
)
"""Pattern, reason, and whether a condition may report it as what a text says; on views in lower case."""
