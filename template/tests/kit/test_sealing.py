from uuid import UUID

import pytest

from app.kit.sealing import Sealing, SealingSettings
from app.kit.settings import forget, load

OWNER, OTHER = UUID(int=1), UUID(int=2)


def test_what_is_sealed_opens_for_its_owner_and_purpose_with_its_secret() -> None:
    ours = Sealing(["ours"], b"letters")
    sealed = ours.seal(b"text", OWNER)
    assert ours.unseal(sealed, OWNER) == b"text"
    assert ours.seal(b"text", OWNER) != sealed
    assert b"text" not in sealed
    assert ours.unseal(sealed, OTHER) is None
    assert Sealing(["ours"], b"parcels").unseal(sealed, OWNER) is None
    assert Sealing(["another"], b"letters").unseal(sealed, OWNER) is None
    assert Sealing(["another", "ours"], b"letters").unseal(sealed, OWNER) == b"text"
    assert ours.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), OWNER) is None
    assert ours.unseal(b"", OWNER) is None


def test_earlier_secrets_are_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "now")
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", " before, long ago,")
    forget()
    try:
        assert load(SealingSettings).secrets == ["now", "before", "long ago"]
        assert "before" not in str(load(SealingSettings))
    finally:
        monkeypatch.undo()
        forget()
