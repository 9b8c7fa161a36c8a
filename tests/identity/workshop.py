"""What the tests with providers share. The providers come from npm: each in one version, in a folder of its own."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from conftest import ROOT, Copy, unavailable

NPM = ROOT / "build" / "npm"
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def modules(*packages: str) -> Path:
    """Return the folder of modules with some packages, which npm fetches when they are not there yet."""
    folder = NPM / "+".join(packages)
    made = folder / "node_modules"
    if not made.is_dir():
        if not shutil.which("npm"):
            unavailable("npm")
        # Another worker may want the same at the same moment: it finds all of it or nothing.
        draft = NPM / f"draft-{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(draft), *packages]
        # npm trusts what the system trusts, as pip and git do.
        trust = {"NODE_EXTRA_CA_CERTS": str(SYSTEM_CERTIFICATES)} if SYSTEM_CERTIFICATES.exists() else {}
        done = subprocess.run(
            install, cwd=draft, env=trust | os.environ, capture_output=True, text=True, timeout=300, check=False
        )
        with suppress(OSError):
            if done.returncode == 0:
                draft.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)
        if not made.is_dir():
            unavailable(f"{', '.join(packages)}: {done.stderr[-300:]}")
    return made


@contextmanager
def started(script: str, modules: Path, *arguments: str) -> Iterator[str]:
    """Run a script of this folder until the block ends; what it prints first says where it serves."""
    process = subprocess.Popen(
        ["node", str(Path(__file__).with_name(script)), *arguments],
        env=os.environ | {"NODE_PATH": str(modules)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said, f"{script} ended at once"
        yield said
    finally:
        process.kill()
        process.communicate(timeout=10)


def ask(url: str, token: str = "", method: str = "GET", **body: Any) -> tuple[int, Any]:
    """Return the status and what a route answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx2.request(method, url, headers=headers, json=body or None, timeout=20)
    return answer.status_code, answer.json()


def doctor(service: Copy, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Let a service say how it is."""
    return subprocess.run(
        [service.folder / ".venv/bin/app", "doctor"],
        cwd=service.folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
