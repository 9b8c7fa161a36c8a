from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from jinja2 import UndefinedError
from pydantic import ValidationError
from typer.testing import CliRunner

from app.installed import TITLE
from app.kit.settings import SettingsError, load
from app.ports.email.adapters import PROVIDERS
from app.ports.email.commands import commands
from app.ports.email.console import ConsoleEmail
from app.ports.email.email import EmailSettings
from app.ports.email.message import MOST_ATTACHED_BYTES, Attachment, Email, EmailFailed, Mailbox, Message, masked
from app.ports.email.module import ProviderCheck, check, email, lifespan
from app.ports.email.templates import MailTemplates
from tests.ports.email.contract import HOSTILE, SENDER, Contract, Seen

Configure = Callable[..., None]
GOOD: dict[str, Any] = {"to": "ada@example.com", "subject": "Hi", "text": "Hi\n"}
FILE: dict[str, Any] = {"name": "a.pdf", "content_type": "application/pdf", "content": b"%PDF"}


class TestConsole(Contract):
    @pytest.fixture
    def email(self) -> Email:
        return ConsoleEmail(SENDER, timeout=1)

    @pytest.fixture
    def seen(self, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[Seen]]:
        def seen() -> list[Seen]:
            lines = [line.removeprefix("  |")[1:] for line in capsys.readouterr().out.splitlines() if line]
            if not lines:
                return []
            told = dict(line.split(": ", 1) for line in lines[:3])
            people = {str(one): one for one in (SENDER, *(case.to for case in (*HOSTILE.values(), Message(**GOOD))))}
            return [Seen(people[told["To"]], told["Subject"], "\n".join([*lines[4:], ""]), people[told["From"]])]

        return seen

    async def test_files_are_named(self, email: Email, capsys: pytest.CaptureFixture[str]) -> None:
        await email.send(Message(**GOOD, attachments=[FILE]))
        assert "  | Attached: a.pdf (application/pdf, 4 bytes)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        *({"name": it} for it in ("../a.pdf", "a/b", "a\\b", ".ssh", "", "C:a.pdf", 'a"b.pdf', "x" * 201)),
        *({"content_type": it} for it in ("message/rfc822", "multipart/mixed", "pdf", "text/html; charset=x", "A/B")),
        {"content": "YWJj"},
        {"content": bytes(MOST_ATTACHED_BYTES + 1)},
    ],
)
def test_a_file_that_no_mail_should_have_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Message(**GOOD, attachments=[FILE | wrong])


def test_files_are_counted_and_weighed_together() -> None:
    half = FILE | {"content": bytes(MOST_ATTACHED_BYTES // 2 + 1)}
    assert Message(**GOOD, attachments=[half]).attachments
    for files in ([half, half], [FILE] * 21):
        with pytest.raises(ValidationError) as caught:
            Message(**GOOD, attachments=files)
        assert "%PDF" not in str(caught.value)


@pytest.mark.parametrize("junk", ["\r\nBcc: eve@x.net", "\n", "\r", "\x00", "\x1b[2J", "\u2028", "\x85", "\ud800"])
@pytest.mark.parametrize("field", ["to", "name", "reply_to", "subject", "header", "header name", "file", "type"])
def test_no_field_can_hold_a_second_line(field: str, junk: str) -> None:
    values: dict[str, dict[str, Any]] = {
        "to": {"to": f"ada@example.com{junk}"},
        "name": {"to": {"address": "ada@example.com", "name": f"Ada{junk}x"}},
        "reply_to": {"reply_to": f"{junk}help@example.com"},
        "subject": {"subject": f"Hi{junk}there"},
        "header": {"headers": {"References": f"<x@example.com>{junk}"}},
        "header name": {"headers": {f"References{junk}": "<x@example.com>"}},
        "file": {"attachments": [FILE | {"name": f"a{junk}.pdf"}]},
        "type": {"attachments": [FILE | {"content_type": f"application/pdf{junk}"}]},
    }
    with pytest.raises(ValidationError) as caught:
        Message(**GOOD | values[field])
    assert "ada@" not in str(caught.value)


@pytest.mark.parametrize("part", ["text", "html"])
@pytest.mark.parametrize("junk", ["\x00", "\x1b[2J", "\x9b", "\ud800"])
def test_a_text_holds_nothing_that_a_terminal_would_obey(part: str, junk: str) -> None:
    with pytest.raises(ValidationError):
        Message(**GOOD | {part: f"Hi{junk}\n"})


@pytest.mark.parametrize(
    "name", ["Bcc", "bcc", "To", "From", "Subject", "Content-Type", "Content-Disposition", "X-SMTPAPI", "Received", ""]
)
def test_no_header_chooses_recipients_or_parts(name: str) -> None:
    with pytest.raises(ValidationError):
        Message(**GOOD, headers={name: "attachment; filename=x.exe"})


@pytest.mark.parametrize("field", ["bcc", "cc", "attachments", "sender"])
def test_there_is_no_field_for_others(field: str) -> None:
    with pytest.raises(ValidationError):
        Message(**GOOD, **{field: "eve@example.net"})


@pytest.mark.parametrize(
    "address",
    [
        *("", "ada", "ada@", "@example.com", "ada@example", "a b@example.com", "ada@example.com, eve@example.net"),
        *("Ada <ada@example.com>", "<ada@example.com>", "ada@example.com> SIZE=1", '"a b"@example.com'),
        *("root@localhost", "ada@[127.0.0.1]", "jörg@example.com", "ada@exa mple.com", f"{'a' * 65}@example.com"),
        *("=?utf-8?q?ada?=@example.com", "=?utf-8?b?YWRh@example.com"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        Mailbox(address=address)


def test_a_mail_is_not_shown_where_it_is_logged_by_mistake() -> None:
    message = Message(**GOOD | {"text": "https://example.com/reset?token=hunter2"}, html="<a>hunter2</a>")
    assert "hunter2" not in repr(message)
    assert masked("550 <ada.l@example.com>: no (eve@x.de)") == "550 <a***@example.com>: no (e***@x.de)"


@pytest.fixture
def templates(tmp_path: Path) -> MailTemplates:
    (tmp_path / "welcome.txt").write_text(
        '{% extends "layout.txt" %}\n{% block subject %}Welcome,\n{{ name }}{% endblock %}\n'
        "{% block body %}\nHello {{ name }}: {{ link }}\n{% endblock %}\n"
    )
    (tmp_path / "welcome.html").write_text(
        '{% extends "layout.html" %}\n{% block body %}\n<a href="{{ link }}">{{ name }}</a>\n{% endblock %}\n'
    )
    return MailTemplates("welcoming", tmp_path)


def test_values_are_data_in_every_part(templates: MailTemplates) -> None:
    name = '{{ 7 * 7 }}{% include "layout.txt" %}<script>alert(1)</script>\r\nBcc: eve@example.net'
    message = templates.compose("welcome", to="ada@example.com", name=name, link='x" onclick="alert(1)')
    assert message.subject == "Welcome, " + " ".join(name.split())
    assert "Hello {{ 7 * 7 }}" in message.text
    assert message.html is not None
    assert "{{ 7 * 7 }}" in message.html
    assert "&lt;script&gt;" in message.html
    assert "<script" not in message.html
    assert ' onclick="' not in message.html


def test_parts_say_who_sends_and_stay_narrow(templates: MailTemplates, configure: Configure) -> None:
    configure(email_from="shop@example.org", email_from_name="Shop & Co")
    message = templates.compose("welcome", to="ada@example.com", name="Ada", link="x")
    assert message.text.endswith("\n-- \nShop & Co\n")
    assert message.html is not None
    assert "<title>Welcome, Ada</title>" in message.html
    assert "Shop &amp; Co" in message.html
    assert 'name="viewport"' in message.html
    assert "<style" not in message.html


def test_files_go_with_what_is_composed(templates: MailTemplates) -> None:
    file = Attachment(**FILE)
    message = templates.compose("welcome", to="ada@example.com", name="Ada", link="x", attachments=[file])
    assert message.attachments == (file,)


def test_the_service_is_named_where_the_settings_name_nobody(templates: MailTemplates, configure: Configure) -> None:
    configure(email_from="shop@example.org")
    assert load(EmailSettings).sender.name == TITLE
    message = templates.compose("welcome", to="ada@example.com", name="Ada", link="x")
    assert message.text.endswith(f"\n-- \n{TITLE}\n")


def test_a_value_that_is_missing_is_an_error_and_a_name_in_a_preview(templates: MailTemplates) -> None:
    with pytest.raises(UndefinedError, match="link"):
        templates.compose("welcome", to="ada@example.com", name="Ada")
    preview = templates.preview("welcome", {"name": "Ada"})
    assert preview.subject == "Welcome, Ada"
    assert "Hello Ada: {link}" in preview.text


def test_every_mail_of_this_service_can_be_previewed(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["preview", "--folder", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    for module, known in MailTemplates.known.items():
        for name in known.names if known.folder.is_dir() else ():
            assert (tmp_path / module / f"{name}.html").read_text().lower().startswith("<!doctype html>")
            assert (tmp_path / module / f"{name}.txt").read_text().startswith("Subject: ")
    unknown = CliRunner().invoke(commands, ["preview", "no/where"])
    assert (unknown.exit_code, "There are email/test" in unknown.output) == (1, True)


def test_the_test_mail_is_written_to_the_console() -> None:
    done = CliRunner().invoke(commands, ["test", "ada@example.com"], catch_exceptions=False)
    assert (done.exit_code, "To: ada@example.com" in done.output) == (0, True)
    assert "Nothing was sent" in done.output
    refused = CliRunner().invoke(commands, ["test", "ada"])
    assert (refused.exit_code, "ada is no e-mail address." in refused.output) == (1, True)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "console"])
def test_a_provider_without_its_settings_is_refused(configure: Configure, provider: str) -> None:
    configure(email_provider=provider)
    with pytest.raises(SettingsError, match=rf"(HOST|API_KEY): {provider} needs .*\nEMAIL_FROM: {provider} needs"):
        load(EmailSettings)


def test_production_sends_or_says_that_it_does_not(configure: Configure) -> None:
    configure(environment="production", secret_key="a secret of these tests alone, and of no service")
    with pytest.raises(SettingsError, match="EMAIL_PROVIDER: the console sends nothing"):
        load(EmailSettings)
    configure(email_console_in_production="true")
    assert load(EmailSettings).email_provider == "console"
    configure(email_provider="pigeon")
    with pytest.raises(SettingsError, match="EMAIL_PROVIDER: is none of console"):
        load(EmailSettings)


async def test_the_check_is_part_of_readiness_and_asks_the_provider_now_and_then() -> None:
    class Counting(ConsoleEmail):
        asked = 0

        async def look(self) -> str:
            self.asked += 1
            if self.asked == 2:
                raise EmailFailed("away")
            return "here"

    provider = Counting(SENDER, timeout=1)
    ask = ProviderCheck(provider)
    assert {await ask() for _ in range(9)} == {"here"}
    ask.forget()
    for _ in range(9):
        with pytest.raises(EmailFailed, match="away"):
            await ask()
    assert provider.asked == 2
    assert [one.critical for one in email.health_checks] == [False]
    async with lifespan(app := FastAPI()):
        assert "console" in (await check(app) or "")
