"""People with accounts."""

from tests.modules.accounts.conftest import person, postman

__all__ = ["person", "postman"]
