"""An authenticator in software, and the browser before it (WebAuthn, level 3): what a security key would answer."""

import hashlib
import json
import secrets
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

PRESENT, VERIFIED, HAS_KEY = 0x01, 0x04, 0x40


class Authenticator:
    """Makes one passkey, and signs with it. Every part of an answer can be another than it should be."""

    def __init__(self, origin: str = "http://localhost:8000", *, verifies: bool = True) -> None:
        self.origin, self.flags = origin, PRESENT | (VERIFIED if verifies else 0)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = secrets.token_bytes(32)
        self.owner = b""
        self.count = 0

    def create(self, options: dict[str, Any], **other: Any) -> dict[str, Any]:
        """Answer navigator.credentials.create()."""
        self.owner = base64url_to_bytes(options["user"]["id"])
        id = other.get("id", self.id)
        numbers = self.key.public_key().public_numbers()
        key = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + len(id).to_bytes(2, "big") + id + cbor2.dumps(key)
        data = self._data(options["rp"]["id"], attested, **other)
        client = self._client("webauthn.create", options, **other)
        response = {
            "clientDataJSON": bytes_to_base64url(client),
            "attestationObject": bytes_to_base64url(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
            "transports": ["internal", "hybrid", "of another world"],
        }
        return _credential(id, response)

    def get(self, options: dict[str, Any], **other: Any) -> dict[str, Any]:
        """Answer navigator.credentials.get()."""
        self.count += 1
        data = self._data(options["rpId"], b"", **other)
        client = self._client("webauthn.get", options, **other)
        key = other.get("key", self.key)
        signature = key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        response = {
            "clientDataJSON": bytes_to_base64url(client),
            "authenticatorData": bytes_to_base64url(data),
            "signature": bytes_to_base64url(signature),
            "userHandle": bytes_to_base64url(other.get("owner", self.owner)),
        }
        return _credential(other.get("id", self.id), response)

    def _data(self, domain: str, attested: bytes, /, **other: Any) -> bytes:
        flags = other.get("flags", self.flags) | (HAS_KEY if attested else 0)
        count = int(other.get("count", self.count)).to_bytes(4, "big")
        domain = str(other.get("domain", domain))
        return hashlib.sha256(domain.encode()).digest() + bytes([flags]) + count + attested

    def _client(self, kind: str, options: dict[str, Any], /, **other: Any) -> bytes:
        said = {
            "type": other.get("kind", kind),
            "challenge": other.get("challenge", options["challenge"]),
            "origin": other.get("origin", self.origin),
            "crossOrigin": False,
        }
        return json.dumps(said).encode()


def _credential(id: bytes, response: dict[str, Any]) -> dict[str, Any]:
    name = bytes_to_base64url(id)
    return {"id": name, "rawId": name, "type": "public-key", "response": response}
