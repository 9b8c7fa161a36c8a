from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from app.kit.settings import SecretURL
from app.ports.jobs.tasks import GiveUp, Retry
from app.ports.outgoing.addresses import is_public
from app.ports.outgoing.settings import WebhookURL
from app.ports.outgoing.webhook import Receiver, send
from tests.ports.outgoing.receiver import SECRET, Server, receiving

Configure = Callable[..., None]
AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
STRICT = {"environment": "production", "secret_key": "a secret of these tests alone, and of no service"}
READ = TypeAdapter(WebhookURL)


@pytest.fixture
async def server(configure: Configure) -> AsyncIterator[Server]:
    async with receiving() as server:
        yield server


async def tell(url: str, id: str = "msg_1") -> None:
    await send(Receiver(SecretURL(url), SecretStr(SECRET)), "thing.made", {"text": "Grüße"}, id=id, at=AT)


async def test_who_is_told_can_verify_it(server: Server) -> None:
    await tell(server.url)
    assert server.events == [
        {"type": "thing.made", "timestamp": "2026-11-28T12:00:00+00:00", "data": {"text": "Grüße"}}
    ]
    assert (server.ids, server.hosts) == (["msg_1"], [server.url.split("/")[2]])


@pytest.mark.parametrize("answer", ["500 Oops", "404 Not Found", "401 Unauthorized", "302 Found\r\nLocation: /other"])
async def test_what_is_not_taken_is_sent_again_under_its_id(server: Server, answer: str) -> None:
    server.answers = [answer]
    with pytest.raises(Retry, match=f"answers {answer[:3]}"):
        await tell(server.url)
    assert server.events == []
    await tell(server.url)
    assert server.ids == ["msg_1", "msg_1"]
    assert len(server.events) == 1


async def test_a_receiver_says_when_to_come_again_but_not_for_ever(server: Server) -> None:
    pauses = []
    for asked in ("7", "99999999", "9" * 400, "-5", "soon"):
        server.answers = [f"429 Slow\r\nRetry-After: {asked}"]
        with pytest.raises(Retry) as caught:
            await tell(server.url)
        pauses.append(caught.value.after)
    assert pauses == [timedelta(seconds=7), timedelta(hours=1), None, None, None]


async def test_who_has_gone_is_told_nothing_more(server: Server) -> None:
    server.answers = ["410 Gone"]
    with pytest.raises(GiveUp, match="410"):
        await tell(server.url)


async def test_who_is_silent_or_away_is_tried_again(server: Server, configure: Configure) -> None:
    configure(outgoing_timeout_seconds="0.2")
    server.answers = ["silence"]
    with pytest.raises(Retry, match="did not answer in time"):
        await tell(server.url)
    # On a busy machine it may not even have been asked.
    server.answers.clear()
    configure(outgoing_timeout_seconds="30")
    await server.stop()
    with pytest.raises(Retry, match="cannot be reached"):
        await tell(server.url)
    await server.start()
    await tell(server.url)
    assert len(server.events) == 1


async def test_no_proxy_of_the_environment_sees_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await tell(server.url)
    assert len(server.events) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "127.1"])
async def test_production_sends_nothing_behind_the_wall(server: Server, configure: Configure, host: str) -> None:
    configure(**STRICT)
    with pytest.raises((GiveUp, Retry), match=r"private network|cannot be reached"):
        await tell(server.url.replace("127.0.0.1", host))
    assert server.ids == []


async def test_production_sends_next_door_when_that_is_meant(server: Server, configure: Configure) -> None:
    configure(**STRICT, outgoing_allow_private="true")
    await tell(server.url)
    assert len(server.events) == 1


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_what_belongs_to_somebody_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_what_belongs_to_everybody_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org",
        "https://",
        "https://user:secret@example.org/",
        "file:///etc/passwd",
        "https://example.org/#there",
        "https://example.org:0/",
        "https://example.org/\r\nHost: x",
        "https://exämple.org",
        "https://example.org:99999/",
        "javascript:alert(1)",
        "https://[::1",
        "https://example..org/",
        f"https://{'x' * 64}.example.org/",
        f"https://example.org/{'x' * 2000}",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="starts with https"):
        READ.validate_python(url)


def test_production_tells_nobody_on_the_way(configure: Configure) -> None:
    assert READ.validate_python("http://example.org/hook").get_secret_value() == "http://example.org/hook"
    configure(**STRICT)
    assert READ.validate_python("https://example.org/hook").get_secret_value() == "https://example.org/hook"
    with pytest.raises(ValidationError, match="https:// only"):
        READ.validate_python("http://example.org/hook")
