"""A browser at a service with local accounts: what it does with cookies and passkeys, and not what we think it does."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Copy, free_port, run, unavailable
from treatment import served
from workshop import modules

NAME = "auth_provider-local"
PACKAGE = "playwright-core@1.65.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EMAIL, PASSWORD = "root@example.com", "three plain words, and a lamp"
pytestmark = [pytest.mark.service, pytest.mark.xdist_group(NAME)]


def test_a_browser_keeps_the_cookies_and_signs_in_with_a_passkey(
    services: Callable[[str], Copy], tmp_path: Path
) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), "")
    if not browser:
        unavailable("a browser (chromium)")
    if not shutil.which("openssl"):
        unavailable("openssl")
    service, port = services(NAME).folder, free_port()
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    env = os.environ | {
        "PUBLIC_URL": f"https://localhost:{port}",
        "DATABASE_URL": f"sqlite:///{tmp_path}/browser.db",
        "AUTH_ADMIN_MFA": "true",
    }
    run(service / ".venv/bin/alembic", "upgrade", "head", cwd=service, env=env)
    make = [str(service / ".venv/bin/app"), "users", "create-admin", EMAIL]
    subprocess.run(make, cwd=service, env=env, input=f"{PASSWORD}\n{PASSWORD}\n", check=True, text=True)
    with served(service, env) as (base, _):
        visit = ["node", str(Path(__file__).with_name("browser.cjs")), base, str(port), key, certificate, browser]
        node = os.environ | {"NODE_PATH": str(modules(PACKAGE))}
        done = subprocess.run(
            [*visit, EMAIL, PASSWORD], env=node, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["said"] == [
        "POST public/auth/login 200",
        "GET admin/users 403 admin_withheld",
        "POST app/auth/passkeys/options 200",
        "POST app/auth/passkeys 201",
        "POST public/auth/refresh 200",
        "GET admin/users 200",
        "POST public/auth/logout 204",
        "GET app/users/me 401 unauthorized",
        "POST public/auth/login 202",
        "POST public/auth/second-factor 200",
        "GET admin/users 200",
        "POST public/auth/logout 204",
        "POST public/auth/passkey-options 200",
        "POST public/auth/passkey 200",
        "GET admin/users 200",
    ]
    assert found["readable"] == ""
    kept = {(it["name"], it["path"], it["secure"], it["httpOnly"], it["sameSite"]) for it in found["cookies"]}
    assert kept == {(name, "/", True, True, "Strict") for name in ("__Host-access", "__Host-refresh")}
