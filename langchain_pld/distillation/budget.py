"""The budget of a run: what it may spend at most."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Budget"]


class Budget(BaseModel):
    """Limits of a run; `None` is no limit. Teacher and student count together.

    A run that reaches one of them asks no further, and ends with the best prompt so far and the finish reason
    `budget`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int | None = Field(default=None, ge=0)
    """Model calls; answers from the cache are none."""
    tokens: int | None = Field(default=None, ge=0)
    """Prompt and generated tokens together."""
    usd: float | None = Field(default=None, ge=0)
    """US dollars, by published prices or the user's. A model that costs nothing is asked on when they are spent."""
    minutes: float | None = Field(default=None, ge=0)
    """Minutes of work; the time between being stopped and being resumed does not count."""

    def describe(self) -> str:
        """The limits in a few words."""
        limits = [
            f"{self.calls} calls" if self.calls is not None else "",
            f"{self.tokens} tokens" if self.tokens is not None else "",
            f"{self.usd:g} USD" if self.usd is not None else "",
            f"{self.minutes:g} minutes" if self.minutes is not None else "",
        ]
        return ", ".join(filter(None, limits)) or "no limit"
