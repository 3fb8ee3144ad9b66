"""The real small model for these tests too."""

from tests.models.conftest import small_model

__all__ = ["small_model"]
