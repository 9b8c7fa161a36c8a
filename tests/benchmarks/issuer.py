"""Be a provider of identity for a service, with its own test code: `python issuer.py ISSUER-PORT`, in its folder.

One line of JSON is printed: the address, the audience, a token that is good for an hour, and the public key. It serves
until its input ends.
"""

import json
import sys
import time

from cryptography.hazmat.primitives.serialization import (  # type: ignore[import-not-found, unused-ignore]
    Encoding,
    PublicFormat,
)

sys.path.insert(0, ".")
from tests.oidc import AUDIENCE, OidcProvider  # type: ignore[import-not-found, unused-ignore]

with OidcProvider() as issuer:
    algorithm, key = issuer.keys["first"]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    token = issuer.token(exp=int(time.time()) + 3600, email="ada@example.com", email_verified=True, name="Ada")
    print(json.dumps({"url": issuer.url, "audience": AUDIENCE, "token": token, "key": public}), flush=True)
    sys.stdin.read()
