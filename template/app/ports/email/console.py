"""The console: writes mails to the terminal, where a developer finds the links in them. Nothing is sent."""

import sys

from app.ports.email.message import Email, Message


class ConsoleEmail(Email):
    """Writes the text part to standard output, past the logs, which would mask the tokens in links."""

    async def hand_over(self, message: Message) -> None:
        """Write one mail."""
        head = [f"From: {self.sender}", f"To: {message.to}", f"Subject: {message.subject}"]
        if message.reply_to:
            head.append(f"Reply-To: {message.reply_to}")
        head += [f"Attached: {it.name} ({it.content_type}, {len(it.content):,} bytes)" for it in message.attachments]
        lines = [*head, "", *message.text.splitlines()]
        print("\n".join(["", *(f"  | {line}".rstrip() for line in lines), ""]), file=sys.stdout, flush=True)  # noqa: T201

    async def look(self) -> str:
        """Say where mails go."""
        return "the console: mails are written to the terminal and not sent"
