"""People with accounts, and the mails that they get."""

from tests.modules.accounts.conftest import person, postman

__all__ = ["person", "postman"]
