"""Write the exact versions: of a service to extensions/pins.yml, of these tools to requirements.txt.

A service's versions are resolved for every platform and every Python that it supports. What a module adds is what its
resolution has beside the base, found under the base's versions, so that any selection is a union that fits.
"""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import copier
import yaml

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Written by `make pins`: what a service without any choice installs, and what each module adds to that.\n"


def resolve(folder: Path, constraints: list[str]) -> list[str]:
    """Return the newest versions that fit the project in a folder and its development tools."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        options = ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate", "--constraint", file.name]
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", *options, "--group", "dev"]
        project = ["pyproject.toml"] if "[project]" in (folder / "pyproject.toml").read_text("utf-8") else []
        done = subprocess.run([*command, *project], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return sorted(line.strip() for line in done.stdout.splitlines() if "==" in line)


def resolve_service(answers: dict[str, str | list[str]], constraints: list[str]) -> list[str]:
    """Return the versions of a service with these answers."""
    with tempfile.TemporaryDirectory() as folder:
        copier.run_copy(
            str(ROOT), folder, data=answers, defaults=True, quiet=True, skip_tasks=True, overwrite=True, vcs_ref="HEAD"
        )
        return resolve(Path(folder), constraints)


def offered(question: object) -> list[str]:
    """Return the values of a question whose choices have labels."""
    choices = question.get("choices") if isinstance(question, dict) else None
    return list(choices.values()) if isinstance(choices, dict) else []


def main() -> None:
    """Resolve the base, then every choice on its own."""
    warnings.simplefilter("ignore", copier.errors.DirtyLocalWarning)
    questions = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    lists = {name: offered(question) for name, question in questions.items() if "multiselect" in question}
    engines = {
        name: [choice for choice in offered(question) if choice != "none"]
        for name, question in questions.items()
        if "none" in offered(question)
    }
    nothing: dict[str, str | list[str]] = {**{name: [] for name in lists}, **dict.fromkeys(engines, "none")}
    pins = {"base": resolve_service(nothing, [])}
    for name, choices in (engines | lists).items():
        for choice in choices:
            answers = {**nothing, name: [choice] if name in lists else choice}
            added = sorted(set(resolve_service(answers, pins["base"])) - set(pins["base"]))
            if added:
                pins[choice] = added
    text = yaml.safe_dump(pins, sort_keys=False, width=200)
    (ROOT / "extensions" / "pins.yml").write_text(HEADER + text, "utf-8")
    (ROOT / "requirements.txt").write_text("\n".join([*resolve(ROOT, []), ""]), "utf-8")


if __name__ == "__main__":
    main()
