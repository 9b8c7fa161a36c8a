"""Local accounts, for tests: tokens to order, and people who are signed in without a password."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar, Self
from uuid import NAMESPACE_URL, UUID, uuid5

import jwt
from fastapi import FastAPI
from sqlmodel import select

from app.kit import clock
from app.kit.settings import load
from app.main import create_app, lifespan
from app.modules.accounts.models import LoginSession
from app.modules.users.models import User
from app.ports.identity.local import AccessTokens, LocalSettings, signing_key, subject_of

SECRET = "a secret of these tests alone, and of no service"


class LocalProvider:
    """The provider, as tests know it that do not ask which one there is."""

    PRODUCTION: ClassVar = {"PUBLIC_URL": "https://app.example.com", "EMAIL_CONSOLE_IN_PRODUCTION": "true"}
    environment: ClassVar = {"SECRET_KEY": SECRET}

    def __init__(self) -> None:
        self.access_tokens = AccessTokens(signing_key(SECRET), load(LocalSettings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @asynccontextmanager
    async def verifying(self, app: FastAPI | None = None) -> AsyncIterator[AccessTokens]:
        """Let an application use this verifier for a while."""
        before = app.state.verifier if app else None
        if app:
            app.state.verifier = self.access_tokens
        yield self.access_tokens
        if app:
            app.state.verifier = before

    def token(self, *, headers: Mapping[str, Any] | None = None, without: str = "", **claims: Any) -> str:
        """Sign a good token, or one with other claims, other headers, or without a claim."""
        good = self.access_tokens.issue(user_id=id_of("ada"), session_id=id_of("a session that is not there"))
        said = {**jwt.decode(good, options={"verify_signature": False}), **claims}
        said.pop(without, None)
        return jwt.encode(said, self.access_tokens.key, "HS256", {"typ": "at+jwt", **(headers or {})})

    async def sign_in(self, app: FastAPI, *, sub: str, **claims: Any) -> str:
        """Begin a session for somebody, who is made when they are not there, and return their access token."""
        user_id = claims.pop("user", id_of(sub))
        fields = {"email": claims.get("email"), "email_verified": claims.get("email_verified", False)}
        async with app.state.database.session() as session:
            user = (await session.exec(select(User).where(User.subject == subject_of(user_id)))).one_or_none()
            if user is None:
                user = User(id=user_id, subject=subject_of(user_id), display_name=claims.get("name"), **fields)
                session.add(user)
                await session.flush()
            expires = clock.now() + timedelta(days=1)
            opened = LoginSession(user_id=user.id, last_used_at=clock.now(), expires_at=expires)
            session.add(opened)
        return self.token(**{**claims, "sub": str(user_id), "sid": str(opened.id)})

    def sign_admin_in(self) -> str:
        """Return a token of an admin, for a process of the service that has this environment."""

        async def sign_in() -> str:
            app = create_app()
            async with lifespan(app), self.verifying(app):
                token = await self.sign_in(app, sub="admin", email="admin@example.com")
                async with app.state.database.session() as session:
                    user = (await session.exec(select(User).where(User.id == id_of("admin")))).one()
                    user.role = "admin"
                    session.add(user)
                return token

        return asyncio.run(sign_in())

    def forge(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> list[str]:
        """Sign claims with secrets that are not the one, and in ways that are not the one."""
        signed = [
            (SECRET, {}),
            ("", {}),
            ("secret", {}),
            (signing_key("another secret"), {}),
            (self.access_tokens.issuer, {}),
            (self.access_tokens.key.key, {"typ": "JWT"}),
            (self.access_tokens.key.key, {"kid": "x"}),
        ]
        return [
            *(sign({**header, **more}, claims, secret, "sha256") for secret, more in signed),
            sign({**header, "alg": "HS512"}, claims, self.access_tokens.key.key, "sha512"),
            sign(header, {**claims, "sid": "x"}, self.access_tokens.key.key, "sha256"),
            sign(header, {**claims, "sub": "admin"}, self.access_tokens.key.key, "sha256"),
        ]


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], secret: str | bytes, digest: str) -> str:
    """Sign a token by hand, with secrets that a library would refuse."""
    parts = (json.dumps(part).encode() for part in (header, claims))
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    key = secret.encode() if isinstance(secret, str) else secret
    return (signed + b"." + base64.urlsafe_b64encode(hmac.digest(key, signed, digest)).rstrip(b"=")).decode()


def id_of(name: str) -> UUID:
    """Return the id that somebody has in these tests."""
    return uuid5(NAMESPACE_URL, name)
