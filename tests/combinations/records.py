"""What passed, kept by content: a service whose files, tools and treatment are the same passes again.

`build/combinations/` holds one small JSON file for each service that went through everything.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "build" / "combinations"
# Beside its own files, what makes a service and what it goes through.
MEANS = ("hooks/post_copy.py", "tests/conftest.py", "tests/treatment.py", "requirements.txt")


def digest(tree: Mapping[str, bytes]) -> str:
    """Return what a service is known by: all that its result depends on."""
    whole = hashlib.sha256(sys.version.encode())
    for name in MEANS:
        whole.update((ROOT / name).read_bytes())
    for path in sorted(tree):
        whole.update(f"\0{path}\0{len(tree[path])}\0".encode())
        whole.update(tree[path])
    return whole.hexdigest()[:32]


def passed(key: str) -> dict[str, Any] | None:
    """Return the record of a service that passed."""
    path = RECORDS / f"{key}.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else None


def note(key: str, record: Mapping[str, Any]) -> None:
    """Keep that a service passed; a reader sees all of it or nothing."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    draft = RECORDS / f"{key}.draft"
    draft.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
    draft.replace(RECORDS / f"{key}.json")
