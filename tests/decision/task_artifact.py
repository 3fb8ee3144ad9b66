"""An artifact around any task."""

from langchain_pld import DistilledPrompt, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint


def artifact_of(task: Task) -> DistilledPrompt:
    """A distilled prompt without calibration, measured with the fake student."""
    return DistilledPrompt(
        task=task,
        system_prompt="The distilled prompt.",
        answer=AnswerFormat.words(task),
        calibration=Calibration.identity(task.label_names),
        student=ModelFingerprint(spec="fake-chat:fake"),
    )
