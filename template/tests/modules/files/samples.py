"""Files that are what they say, and some that are not."""

import io
import struct
import zipfile
import zlib


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def archive(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as writing:
        for name, content in files.items():
            writing.writestr(name, content)
    return made.getvalue()


HTML = b"<!DOCTYPE html><html><script>alert(document.cookie)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PNG = b"\x89PNG\r\n\x1a\n" + b"".join(
    (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(bytes(4))),
        chunk(b"IEND", b""),
    )
)
OFFICE = "application/vnd.openxmlformats-officedocument"
ZIP = archive(**{"a.txt": b"a"})
GOOD = {
    "image/png": ("a.png", PNG),
    "image/jpeg": ("a.JPG", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01" + bytes(40)),
    "image/gif": ("a.gif", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"),
    "image/webp": ("a.webp", b"RIFF\x24\x00\x00\x00WEBPVP8L" + bytes(24)),
    "image/avif": ("a.avif", b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00avifmif1miaf" + bytes(8)),
    "application/pdf": ("a.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\nendobj\n%%EOF\n"),
    "application/zip": ("a.zip", ZIP),
    "application/gzip": ("a.tar.gz", b"\x1f\x8b\x08\x00" + bytes(16)),
    f"{OFFICE}.wordprocessingml.document": (
        "a.docx",
        archive(**{"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<w/>"}),
    ),
    f"{OFFICE}.spreadsheetml.sheet": ("a.xlsx", archive(**{"_rels/.rels": b"<R/>", "xl/workbook.xml": b"<w/>"})),
    f"{OFFICE}.presentationml.presentation": ("a.pptx", archive(**{"ppt/presentation.xml": b"<p/>"})),
    "audio/mpeg": ("a.mp3", b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(40)),
    "audio/wav": ("a.wav", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24)),
    "audio/ogg": ("a.ogg", b"OggS\x00\x02" + bytes(40)),
    "video/mp4": ("a.mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41" + bytes(16)),
    "video/webm": ("a.webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x84webm" + bytes(16)),
    "text/plain": ("a.txt", "Größe 日本語\r\n\tx\x1b[0m".encode()),
    "text/csv": ("a.csv", b"a,b\n1,2\n"),
    "text/markdown": ("README.md", b"# A <b>title</b>\n"),
    "application/json": ("a.json", b'{"a": 1}'),
}
# What begins as one thing and goes on as another. Each is taken for the first, and served as nothing else.
POLYGLOTS = {
    "gif and script": ("image/gif", "a.gif", b"GIF89a/*" + bytes(8) + b"*/=1;alert(1)" + HTML),
    "jpeg and archive": ("image/jpeg", "a.jpg", b"\xff\xd8\xff\xe1\x00\x08Exif\x00\x00" + HTML + archive(a=b"a")),
    "pdf and html": ("application/pdf", "a.pdf", b"%PDF-1.7\n" + HTML),
    "png and php": ("image/png", "a.png", PNG + b"<?php system($_GET['c']); ?>"),
    "text and html": ("text/plain", "a.txt", HTML),
}
# Ten megabytes of zeros in ten kilobytes, and forty times that.
BOMB = archive(**{f"{number}.bin": bytes(10_000_000) for number in range(2)})
WRONG = {
    "html as png": ("image/png", HTML),
    "svg as png": ("image/png", SVG),
    "html as pdf": ("application/pdf", b" \n" + HTML),
    "program as png": ("image/png", b"MZ" + bytes(60)),
    "program as text": ("text/plain", b"\x7fELF\x02\x01\x01" + bytes(60)),
    "signature too late": ("image/png", b"\n" + PNG),
    "half a signature": ("image/png", PNG[:4]),
    "nothing as png": ("image/png", b""),
    "archive as document": (f"{OFFICE}.wordprocessingml.document", ZIP),
    "sound as picture": ("image/webp", b"RIFF\x24\x00\x00\x00WAVEfmt "),
    "film as picture": ("image/avif", b"\x00\x00\x00\x20ftypisom" + bytes(16)),
    "latin-1 as text": ("text/plain", "Größe".encode("latin-1")),
    "utf-16 as text": ("text/plain", "Größe".encode("utf-16")),
    "null in text": ("text/csv", b"a,b\x00\n"),
}
