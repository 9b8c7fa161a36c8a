"""Mails from templates: for each one a text, which also holds the subject, and the same as HTML."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import (
    ChainableUndefined,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Undefined,
    select_autoescape,
)

from app.kit.settings import load
from app.ports.email.email import EmailSettings
from app.ports.email.message import Attachment, Mailbox, Message

LAYOUTS = Path(__file__).parent / "mails"


class MailTemplates:
    """The templates of one module: `<name>.txt` and `<name>.html` in its folder, on the layouts of this port."""

    known: ClassVar[dict[str, "MailTemplates"]] = {}

    def __init__(self, module: str, folder: Path) -> None:
        self.folder = folder
        self.known[module] = self

    def compose(
        self,
        name: str,
        /,
        *,
        to: Mailbox | str,
        reply_to: Mailbox | str | None = None,
        attachments: Sequence[Attachment] = (),
        **values: Any,
    ) -> Message:
        """Fill a template in. A value that it asks for and does not get is an error; none is read as a template."""
        return _message(_environment(self.folder, StrictUndefined), name, values, to, reply_to, attachments)

    def preview(self, name: str, values: dict[str, str]) -> Message:
        """Fill a template in for a look: a value that is not given stands there by its name."""
        return _message(_environment(self.folder, _Named), name, values, load(EmailSettings).email_from, None, ())

    @property
    def names(self) -> list[str]:
        """The names of the mails."""
        return sorted(path.stem for path in self.folder.glob("*.txt") if path.stem != "layout")


@cache
def _environment(folder: Path, undefined: type[Undefined]) -> Environment:
    return Environment(
        loader=ChoiceLoader([FileSystemLoader(folder), FileSystemLoader(LAYOUTS)]),
        autoescape=select_autoescape(["html"], default=False),
        undefined=undefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _message(
    environment: Environment,
    name: str,
    values: dict[str, Any],
    to: Mailbox | str,
    reply_to: Mailbox | str | None,
    attachments: Sequence[Attachment],
) -> Message:
    sender = load(EmailSettings).sender
    values = {"sender": sender.name or sender.address, **values}
    text = environment.get_template(f"{name}.txt")
    # On one line, whatever lines a value has.
    values["subject"] = " ".join("".join(text.blocks["subject"](text.new_context(values))).split())
    return Message.model_validate(
        {
            "to": to,
            "reply_to": reply_to,
            "attachments": tuple(attachments),
            "subject": values["subject"],
            "text": text.render(values).strip() + "\n",
            "html": environment.get_template(f"{name}.html").render(values),
        }
    )


class _Named(ChainableUndefined):
    """A value that a preview lacks, shown by its name."""

    def __str__(self) -> str:
        return "{" + str(self._undefined_name) + "}"

    def __bool__(self) -> bool:
        return True


mails = MailTemplates("email", LAYOUTS)
