"""Tokens a second of the embedded model: `python -m tests.benchmarks.embedded_speed`.

How fast it reads a text that it has not seen before, and how fast it writes; the median of five calls each. Last line:
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

from langchain_core.messages import AIMessage

from langchain_pld.models.catalogue import DEFAULT_MODEL
from langchain_pld.models.embedded import EmbeddedChatModel

ROUNDS = 5
WORDS = 90


def seconds(call: Callable[[], AIMessage]) -> tuple[float, AIMessage]:
    """How long a call takes, and its answer."""
    started = time.perf_counter()
    answer = call()
    return time.perf_counter() - started, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    reader = EmbeddedChatModel(model=options.model, max_tokens=1)
    writer = EmbeddedChatModel(model=options.model, max_tokens=120)
    reader.load()
    read, written = [], []
    for number in range(ROUNDS):
        text = f"{number} " + " ".join(f"word{place} thing" for place in range(WORDS))
        took, _ = seconds(lambda: reader.invoke(text))  # noqa: B023
        read.append(reader.get_num_tokens(text) / took)
        took, answer = seconds(lambda: writer.invoke(f"Tell me {number + 3} things about rivers."))  # noqa: B023
        assert answer.usage_metadata is not None
        written.append(answer.usage_metadata["output_tokens"] / took)
    print(json.dumps({"model": options.model, "read": round(median(read)), "written": round(median(written))}))


if __name__ == "__main__":
    main()
