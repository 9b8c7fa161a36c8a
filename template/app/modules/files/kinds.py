"""What the types of files look like from inside: their magic numbers, and the endings of names that go with them.

A claim is verified here, and nothing is guessed. Nothing is unpacked either: an archive is stored as it came.
"""

import re
from typing import NamedTuple

# As much of the beginning as is looked at.
HEAD_BYTES = 65_536
# What texts have no use for, and what is binary nearly always has: control characters but for white space.
_binary = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]").search
_OFFICE = rb"PK\x03\x04.{26}(\[Content_Types\]\.xml|_rels/|docProps/|customXml/|"


class Kind(NamedTuple):
    """A type that can be told from its content, which matches `begins` or, without one, is a text.

    Browsers show what is `inline`: of these types, none can hold a script that they would run.
    """

    endings: str
    begins: bytes | None
    inline: bool = False


KINDS = {
    "image/png": Kind("png", rb"\x89PNG\r\n\x1a\n", inline=True),
    "image/jpeg": Kind("jpg jpeg jpe jfif", rb"\xff\xd8\xff", inline=True),
    "image/gif": Kind("gif", rb"GIF8[79]a", inline=True),
    "image/webp": Kind("webp", rb"RIFF.{4}WEBPVP8", inline=True),
    "image/avif": Kind("avif", rb"\x00\x00.{2}ftypavi[fs]", inline=True),
    "application/pdf": Kind("pdf", rb"%PDF-[12]\.[0-9]"),
    "application/zip": Kind("zip", rb"PK(\x03\x04|\x05\x06)"),
    "application/gzip": Kind("gz tgz", rb"\x1f\x8b\x08"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Kind("docx", _OFFICE + rb"word/)"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": Kind("xlsx", _OFFICE + rb"xl/)"),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": Kind("pptx", _OFFICE + rb"ppt/)"),
    "audio/mpeg": Kind("mp3", rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", inline=True),
    "audio/wav": Kind("wav", rb"RIFF.{4}WAVE", inline=True),
    "audio/ogg": Kind("ogg oga opus", rb"OggS\x00", inline=True),
    "video/mp4": Kind("mp4 m4v", rb"\x00\x00.{2}ftyp(isom|iso[2-9]|mp4[12]|avc1|M4V |dash|MSNV|3gp[4-6])", inline=True),
    "video/webm": Kind("webm", rb"\x1a\x45\xdf\xa3.{1,60}?webm", inline=True),
    "text/plain": Kind("txt text log", None, inline=True),
    "text/csv": Kind("csv", None),
    "text/markdown": Kind("md markdown", None),
    "application/json": Kind("json", None),
}


def looks_like(content_type: str, head: bytes) -> bool:
    """Tell whether a content begins as one of its type does. Of a type that is not known here, any does."""
    kind = KINDS.get(content_type)
    if kind is None:
        return True
    if kind.begins is not None:
        return re.match(kind.begins, head, re.DOTALL) is not None
    return _binary(head) is None and _is_utf8(head)


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The last character may have been cut through.
        return len(head) == HEAD_BYTES and error.start > len(head) - 4 and error.reason == "unexpected end of data"
    return True


def may_be_called(name: str, content_type: str) -> bool:
    """Tell whether a name has no ending, or one of its type. Of a type that is not known here, any will do."""
    kind, (_, dot, ending) = KINDS.get(content_type), name.rpartition(".")
    return kind is None or not dot or ending.lower() in kind.endings.split()


def may_be_shown(content_type: str) -> bool:
    """Tell whether a browser may show such a file. HTML, SVG, PDF and whatever is not known are only ever saved."""
    kind = KINDS.get(content_type)
    return kind is not None and kind.inline
