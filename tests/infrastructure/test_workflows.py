"""The template's own pipelines: they have few rights, fixed actions, and call what there is."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run
from test_ci import PINNED, TOOLS, check

WORKFLOWS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / ".github" / "workflows").iterdir())


@pytest.mark.parametrize("path", WORKFLOWS)
def test_github_takes_a_workflow_with_few_rights_and_fixed_actions(path: str) -> None:
    check("github-workflows", path, ROOT)
    text = (ROOT / path).read_text("utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert "cancel-in-progress" in workflow["concurrency"]
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    used = re.findall(r"uses: (.+)", text)
    assert used
    assert [one for one in used if not PINNED.fullmatch(one)] == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = [word for line in re.findall(r"run: make (.+)", text) for word in line.partition(" ARGS=")[0].split()]
    assert set(called) <= targets


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    # Outside of a repository zizmor looks at what it is given and at nothing above it.
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    run(TOOLS / "zizmor", "--offline", "--quiet", "--no-progress", ".github", cwd=tmp_path)
