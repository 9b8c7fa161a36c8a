"""How a client uploads and downloads with the links that it is given."""

from collections.abc import Callable
from urllib.parse import urlsplit

from httpx2 import AsyncClient, Response

from app.ports.storage.storage import Upload


def unchanged(text: str) -> str:
    return text


async def send(
    client: AsyncClient,
    upload: Upload,
    content: bytes,
    *,
    headers: dict[str, str | None] | None = None,
    rewrite: Callable[[str], str] = unchanged,
) -> Response:
    """Send the request of an upload; `headers` replace its own, and `rewrite` changes its URL and its fields."""
    merged = {**upload.headers, **(headers or {})}
    sent = {name: value for name, value in merged.items() if value is not None}
    url, fields = rewrite(upload.url), {name: rewrite(value) for name, value in upload.fields.items()}
    if not upload.fields:
        return await client.request(upload.method, url, content=content, headers=sent)
    kind = sent.pop("Content-Type", None) or "application/octet-stream"
    return await client.request(
        upload.method, url, data=fields, files={"file": (urlsplit(url).path, content, kind)}, headers=sent
    )
