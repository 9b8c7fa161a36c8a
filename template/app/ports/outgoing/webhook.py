"""Webhooks that this service sends: signed as Standard Webhooks says, to where the address leads and nowhere else."""

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.settings import CoreSettings, SecretURL, load
from app.ports.jobs.tasks import GiveUp, Retry
from app.ports.outgoing.addresses import is_public
from app.ports.outgoing.settings import OutgoingSettings

if TYPE_CHECKING:
    from httpx2 import AsyncClient

LONGEST_PAUSE = timedelta(hours=1)
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told, and the secret that both know."""

    url: SecretURL
    secret: SecretStr


async def send(receiver: Receiver, event: str, data: Mapping[str, Any], *, id: str, at: datetime) -> None:
    """Send an event, from a task: raises Retry when it was not taken, and GiveUp when it never will be.

    The id stays the same however often it is sent, so that the receiver can tell; `at` is when the event happened.
    """
    settings = load(OutgoingSettings)
    body = json.dumps({"type": event, "timestamp": at.isoformat(), "data": data}, ensure_ascii=False).encode()
    try:
        async with asyncio.timeout(settings.outgoing_timeout_seconds):
            status, after = await _post(receiver, id, body, settings)
    except TimeoutError:
        raise Retry("The receiver of the webhook did not answer in time.") from None
    except OSError:
        raise Retry("The receiver of the webhook cannot be reached.") from None
    if status == 410:
        raise GiveUp("The receiver of the webhook has gone for good: it answers 410.")
    if not 200 <= status < 300:
        raise Retry(f"The receiver of the webhook answers {status}.", after=after)
    log.info("webhook sent", webhook=id, type=event)


async def _post(receiver: Receiver, id: str, body: bytes, settings: OutgoingSettings) -> tuple[int, timedelta | None]:
    from httpx2 import URL, AsyncClient, ConnectError, TransportError

    url = URL(receiver.url.get_secret_value())
    headers = {"host": url.netloc.decode(), "content-type": "application/json", "user-agent": "webhooks"}
    headers |= _signature(receiver.secret, id, body)
    # Neither a redirect nor a proxy of the environment decides where a message goes, nor who looks the address up.
    async with AsyncClient(timeout=settings.outgoing_timeout_seconds, follow_redirects=False, trust_env=False) as http:
        failed: Exception = OSError("there is no address")
        for address in await _addresses(receiver.url, settings):
            try:
                return await _post_to(http, url.copy_with(host=address), headers, body, name=url.host)
            except ConnectError as error:
                failed = error
            except TransportError as error:
                raise OSError(type(error).__name__) from error
        raise OSError("no address answers") from failed


async def _post_to(
    http: "AsyncClient", url: Any, headers: Mapping[str, str], body: bytes, *, name: str
) -> tuple[int, timedelta | None]:
    """Post to an address, as the host of a name, which the certificate has to hold. The answer's body is not read."""
    extensions = {"sni_hostname": name}
    async with http.stream("POST", url, content=body, headers=headers, extensions=extensions) as answer:
        asked = answer.headers.get("retry-after", "")
        after = min(timedelta(seconds=int(asked)), LONGEST_PAUSE) if asked.isdecimal() and len(asked) < 9 else None
        return answer.status_code, after


def _signature(secret: SecretStr, id: str, body: bytes) -> dict[str, str]:
    """Sign what is sent, as of now: receivers refuse what was signed minutes ago."""
    from standardwebhooks import Webhook

    now = clock.now()
    signature = Webhook(secret.get_secret_value()).sign(id, now, body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


async def _addresses(url: SecretURL, settings: OutgoingSettings) -> list[str]:
    """Look a host up once, and look at what was found: asked again, the name might lead elsewhere."""
    parts = urlsplit(url.get_secret_value())
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    guarded = load(CoreSettings).production and not settings.outgoing_allow_private
    if guarded and not all(map(is_public, addresses)):
        raise GiveUp(
            "The receiver of the webhook is in a private network. If that is meant, set OUTGOING_ALLOW_PRIVATE=true."
        )
    return addresses
