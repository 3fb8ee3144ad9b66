"""What a longer prompt costs a student: `python -m tests.benchmarks.prompt_cost`.

Milliseconds a text on the embedded model, median over the same texts, for four prompts: zero-shot, distilled (eight
rules of about the length that distilling gives), eight labelled examples, and chain of thought (a sentence about each
label, asked for behind the text, since a small model forgets such a wish from the system prompt; the tokens that it
wrote are told). Warm: the system prompt lies in the prefix cache, as in production. Cold: it was never seen before.
Prompts alternate text by text, so that what else the machine does hits all alike; each has a slot of the cache of its
own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from langchain_core.messages import HumanMessage
from rich.console import Console

from langchain_pld import Task, read_examples
from langchain_pld.answer import AnswerFormat
from langchain_pld.models.catalogue import DEFAULT_MODEL
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import chat, compile_prompt
from langchain_pld.student.providers import profile_of
from langchain_pld.student.sanitize import clean_text
from tests.benchmarks._report import table

EXAMPLE = Path(__file__).parents[2] / "langchain_pld" / "example_data" / "shop_inbox"
CONDITIONS = (
    "If the text names a client together with an amount of money or the length of a contract",
    "If the text asks somebody to work in the evening, at the weekend or on a holiday",
    "If the text criticises the work of a colleague and names the next step",
    "If the text tells of somebody's illness, injury or visit to a doctor",
    "If the text reports something broken in the building that could hurt somebody",
    "If the text offers food, drinks or things to share to whoever comes first",
    "If the text complains about a tool or a program and about nobody",
    "If the text thanks or praises somebody for work that is done",
)
THINKING = (
    "Reason first, step by step: say what the text is about; then, for each label on a line of its own, why it fits or "
    'does not fit. Then write the label in a last line that begins with "Label:".'
)
THINKING_TOKENS = 200


def prompts(task: Task, shots: list[tuple[str, str]]) -> dict[str, str]:
    """Name to system prompt."""
    answer = AnswerFormat.words(task)
    rules = [
        Rule.merged(task.label_names[n % len(task.labels)], condition, ()) for n, condition in enumerate(CONDITIONS)
    ]
    zero_shot = compile_prompt(task, (), answer)
    shown = "\n".join(f"<<<\n{text}\n>>>\n{label}" for text, label in shots)
    return {
        "zero-shot": zero_shot,
        "distilled": compile_prompt(task, rules, answer),
        "8-shot": f"{zero_shot}\n\nExamples:\n{shown}",
        "chain of thought": zero_shot.rsplit("\n\nAnswer with", 1)[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--texts", type=int, default=20)
    options = parser.parse_args()

    task = Task.from_yaml(EXAMPLE / "task.yaml")
    train = read_examples(EXAMPLE / "train.jsonl", task)
    texts = [str(row.input) for row in read_examples(EXAMPLE / "test.jsonl", task)]
    model = EmbeddedChatModel(model=options.model, slots=4)
    scoring = profile_of(model).bind(AnswerFormat.words(task), "logprobs", timeout_s=300)
    thinking = model.bind(max_tokens=THINKING_TOKENS, temperature=0.0, opening="<<<\n")
    systems = prompts(task, [(str(row.input), str(row.label)) for row in train[:8]])

    written: dict[str, list[int]] = {name: [] for name in systems}

    def ask(name: str, system: str, text: str) -> float:
        messages = chat(system, clean_text(text))
        call = scoring.invoke
        if name == "chain of thought":
            call = thinking.invoke
            messages[-1] = HumanMessage(f"{messages[-1].text}\n\n{THINKING}")
        started = time.perf_counter()
        answer = call(messages)
        seconds = time.perf_counter() - started
        written[name].append(answer.usage_metadata["output_tokens"])
        return seconds * 1000

    model.get_token_ids("loads the model")
    cold: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(2):
        for name, system in systems.items():
            # Another first word makes another prompt, of which nothing is cached.
            cold[name].append(ask(name, f"Notice {number} for {name}. {system}", texts[number]))
    for name, system in systems.items():
        ask(name, system, texts[-1])
    warm: dict[str, list[float]] = {name: [] for name in systems}
    for text in texts[: options.texts]:
        for name, system in systems.items():
            warm[name].append(ask(name, system, text))

    title = f"Milliseconds a text, {options.model}, {options.texts} texts warm and 2 cold, medians"
    columns = ("prompt", "system prompt, tokens", "answer, tokens", "cold", "warm")
    shown = table(title, columns, text=("prompt",))
    medians = {name: statistics.median(times) for name, times in warm.items()}
    for name, system in systems.items():
        length = str(model.get_num_tokens(system))
        answered = f"{statistics.median(written[name]):.0f}"
        shown.add_row(name, length, answered, f"{statistics.median(cold[name]):.0f}", f"{medians[name]:.0f}")
    Console().print(shown)
    print(
        json.dumps(
            {
                "distilled_over_zero_shot_warm": round(medians["distilled"] / medians["zero-shot"], 3),
                "cot_over_distilled": round(medians["chain of thought"] / medians["distilled"], 2),
                "model": options.model,
                "texts": options.texts,
            }
        )
    )


if __name__ == "__main__":
    main()
