"""Run the setup of the service that Copier has just rendered into the current directory.

The steps belong to the service (`scripts/setup.py`, which `make setup` runs as well). Copier removes a new destination
when a task fails, and a service that could not be installed is still worth keeping. So a failure is only passed on when
Copier was told not to clean up; otherwise setup has left `.setup-left`, of which the message after the copy makes
Copier's exit status.
"""

import shutil
import subprocess
import sys
from pathlib import Path

NEWER = [f"python3.{minor}" for minor in range(20, 10, -1)]


def find_python() -> str:
    """Return a Python that the service supports: Copier itself may run on an older one."""
    if sys.version_info >= (3, 11):  # noqa: UP036
        return sys.executable
    return next(filter(None, map(shutil.which, NEWER)), sys.executable)


def main(cleanup_on_error: str = "True") -> int:
    """Run the setup, and say whether Copier should know of its failure."""
    done = subprocess.run([find_python(), str(Path("scripts", "setup.py"))], check=False)
    return done.returncode if cleanup_on_error == "False" else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
