"""What a key looks like: a prefix that scanners of secrets know, 256 random bits, and a checksum of all before it.

Both ideas are GitHub's ("Behind GitHub's new authentication token formats", 2021): what was cut short or mistyped is
told from a key without asking the database, and so is what only looks like one.
"""

import re
import secrets
import string
import zlib
from hashlib import sha256

ALPHABET = string.digits + string.ascii_letters
# The least with 256 bits, and the most that a CRC-32 can need.
SECRET_CHARACTERS, CHECKSUM_CHARACTERS = 43, 6
PREFIX = r"[a-z][a-z0-9]{1,15}"
# Of any length: what was cut short is told as that.
_is_shaped = re.compile(PREFIX + r"_[0-9A-Za-z]*").fullmatch


def new_key(prefix: str) -> str:
    """Draw a key."""
    begun = f"{prefix}_{''.join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARACTERS))}"
    return begun + _checksum(begun)


def is_shaped(text: str) -> bool:
    """Tell whether a text has the look of a key, whole or not. No token of a provider has: those have dots."""
    return _is_shaped(text) is not None


def is_whole(key: str) -> bool:
    """Tell whether what has the look of a key is one to the last character."""
    return _checksum(key[:-CHECKSUM_CHARACTERS]) == key[-CHECKSUM_CHARACTERS:]


def hint_of(key: str) -> str:
    """Return what is shown of a key, so that its owner knows which it is: 24 of its 256 bits."""
    prefix, _, secret = key.partition("_")
    return f"{prefix}_{secret[:4]}"


def hash_of(key: str) -> str:
    """Hash a key. What has 256 random bits needs no slow hash, and to look it up tells nothing about others."""
    return sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
