"""A provider of identity on this machine: its own keys, tokens to order, and a count of who asks."""

import base64
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from app.ports.identity.provider import ProviderVerifier

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey


def new_key(algorithm: str) -> PrivateKey:
    return generate_rsa(65537, 2048) if algorithm[0] in "RP" else generate_ec(SECP256R1())


def published(key: PrivateKey, **more: str) -> dict[str, Any]:
    if isinstance(key, RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | more
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | more


class Issuer:
    """Serves while it is entered, or between `start` and `stop`, always on the same port.

    A subclass is one provider, as tests know it that do not ask which one there is.
    """

    PRODUCTION: ClassVar[dict[str, str]]
    # Whether its tokens say that an address is the caller's.
    VERIFIES: ClassVar[bool] = True
    # Where its keys are.
    KEYS: ClassVar[str]
    # How the names of its settings begin.
    PREFIX: ClassVar[str]

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, PrivateKey]] = {}
        self.asked: Counter[str] = Counter()
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.delay = 0.0
        # Seconds before each byte of an answer.
        self.drip = 0.0
        self.port = 0
        self.rotate("first", "RS256")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rotate(self, kid: str, algorithm: str = "RS256") -> None:
        """Sign with a new key from now on, and publish no other."""
        self.keys = {kid: (algorithm, new_key(algorithm))}

    def jwks(self) -> dict[str, Any]:
        return {"keys": [published(key, kid=kid, alg=alg, use="sig") for kid, (alg, key) in self.keys.items()]}

    def page(self, path: str) -> tuple[int, bytes]:
        if path in self.pages:
            return self.pages[path]
        documents = self.documents()
        return (200, json.dumps(documents[path]).encode()) if path in documents else (404, b"")

    def documents(self) -> dict[str, Any]:
        """Say what is served where."""
        return {self.KEYS: self.jwks()}

    def person(self, name: str) -> str:
        """Return what somebody is called in tokens."""
        return name

    def claims(self) -> dict[str, Any]:
        """Return what good tokens say beside who they are for, and how long."""
        return {}

    def token(self, *, headers: Mapping[str, Any] | None = None, without: str = "", **claims: Any) -> str:
        """Sign a good token, or one with other claims, other headers, or without a claim."""
        kid, (algorithm, key) = next(reversed(self.keys.items()))
        now = int(time.time())
        said = {"iss": self.url, "sub": self.person("ada"), "iat": now, "exp": now + 300, **self.claims(), **claims}
        said.pop(without, None)
        return jwt.encode(said, key, algorithm, {"kid": kid, **(headers or {})})

    def start(self) -> Self:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                time.sleep(issuer.delay)
                status, body = issuer.page(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for part in [bytes([byte]) for byte in body] if issuer.drip else [body]:
                    time.sleep(issuer.drip)
                    self.wfile.write(part)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def verifier(self, **settings: Any) -> ProviderVerifier:
        """Make a verifier with settings by their whole names."""
        raise NotImplementedError

    def new_verifier(self, **settings: Any) -> ProviderVerifier:
        """Make a verifier, with settings that all providers have."""
        return self.verifier(**{f"{self.PREFIX}_{name}": value for name, value in settings.items()})

    @asynccontextmanager
    async def verifying(self, app: FastAPI | None = None) -> AsyncIterator[ProviderVerifier]:
        """Make a verifier, and let an application use it for a while."""
        verifier = self.new_verifier()
        before = app.state.verifier if app else None
        if app:
            app.state.verifier = verifier
        yield verifier
        if app:
            app.state.verifier = before
        await verifier.keys.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the service needs to take this provider's tokens."""
        raise NotImplementedError

    def sign_admin_in(self) -> str:
        """Return a token of an admin, for such a process."""
        return self.token(sub=self.person("admin"), roles=["admin"])

    async def sign_in(self, app: FastAPI, sub: str = "ada", **claims: Any) -> str:
        """Return a token of somebody."""
        return self.token(sub=self.person(sub), **claims)

    def forge(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> list[str]:
        """Sign claims with keys that are not ours, or with our public one as if it were a secret."""
        stranger = new_key("RS256")
        theirs = published(stranger, kid="first")
        pem = self.keys["first"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        parts = (json.dumps(part).encode() for part in ({**header, "alg": "HS256"}, claims))
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
        return [
            jwt.encode({**claims}, stranger, "RS256", {"kid": "first"}),
            jwt.encode({**claims}, stranger, "RS256", {"kid": "first", "jwk": theirs}),
            jwt.encode({**claims}, stranger, "RS256", {"kid": "first", "jku": f"{self.url}/evil", "x5u": self.url}),
            jwt.encode({**claims}, new_key("ES256"), "ES256", {"kid": "first"}),
            f"{signed.decode()}.{signature.decode()}",
        ]
