"""An artifact with other rules: what was measured is dropped, or measured again."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from langchain_pld.artifact import Gate
from langchain_pld.distillation.search.rescoring import UNMEASURED, rescore, with_rules
from langchain_pld.rules import Rule
from tests.distillation.scenarios import PLAN, SETS, distil, rows, student, student_script

OTHER = (Rule.added("amber", "If the text speaks of an invoice", ()),)


async def test_other_rules_drop_all_that_was_measured() -> None:
    artifact = await distil(effort=PLAN.model_copy(update={"max_risk": 0.1}))
    changed = with_rules(artifact, OTHER)
    assert OTHER[0].condition in changed.system_prompt
    assert (changed.scores, changed.calibration.method, changed.review) == ((), "none", None)
    assert changed.gate == Gate(alpha=0.1)
    assert changed.parent == artifact.id
    assert changed.notes[0] == UNMEASURED
    assert changed.notes[1].startswith("before the review: ")
    assert with_rules(artifact, artifact.rules).scores == artifact.scores, "the same prompt keeps its scores"
    assert with_rules(artifact, artifact.rules, trusted=False).scores == ()


async def test_scored_again_the_first_note_compares_with_the_prompt_without_rules() -> None:
    validation = rows("validation", 100)
    artifact = with_rules(await distil(effort=PLAN.model_copy(update={"max_risk": 0.1})), OTHER)
    measured = await rescore(artifact, validation, student())
    assert "they are detectably better than before: against zero-shot macro-F1 on 100 validation" in measured.notes[0]
    assert UNMEASURED not in measured.notes
    assert {card.name for card in measured.scores} == {"zero-shot", "distilled"}
    assert measured.data["validation"].sha256 == validation.sha256
    assert measured.gate is not None
    assert measured.gate.threshold is not None


async def test_rules_that_make_it_worse_stay_and_the_note_says_so() -> None:
    def misled_by_rules(messages: list[BaseMessage]) -> AIMessage:
        swapped = "no" if "Rules" in str(messages[0].text) else "Rules"
        return student_script([SystemMessage(swapped), *messages[1:]])

    measured = await rescore(with_rules(await distil(), OTHER), SETS["validation"], student(misled_by_rules))
    assert measured.rules == OTHER
    assert "they are detectably worse than zero-shot" in measured.notes[0]


async def test_without_rules_the_plain_prompt_is_measured() -> None:
    measured = await rescore(with_rules(await distil(), ()), SETS["validation"], student())
    assert measured.notes[0] == "a person accepted none of the rules, so this prompt has none"
    assert {card.name for card in measured.scores} == {"zero-shot"}
