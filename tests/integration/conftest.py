"""The real small model, and one task with three teams that fakes and files share."""

from tests.models.conftest import small_model

__all__ = ["small_model"]
