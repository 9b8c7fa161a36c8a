"""Whatever is answered, what is rendered is whole: its files parse, are formatted, and show no template."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import COMBINATIONS, contents, files, render, run
from formats import parse, shows_jinja

each_combination = pytest.mark.parametrize("name", COMBINATIONS)
Rendered = Callable[[str], Path]


@each_combination
def test_every_file_parses(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    for path in files(service):
        parse(service / path)


@each_combination
def test_no_jinja_is_left(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    for path in files(service):
        assert ".jinja" not in path
        assert "{{" in path or not shows_jinja(path, (service / path).read_text("utf-8")), path


@each_combination
def test_formatter_and_linter_find_nothing(rendered: Rendered, tmp_path: Path, name: str) -> None:
    service = shutil.copytree(rendered(name), tmp_path / "service")
    run("ruff", "format", "--no-cache", "--check", ".", cwd=service)
    run("ruff", "check", "--no-cache", ".", cwd=service)


@each_combination
def test_no_folder_is_empty(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    assert [path for path in service.rglob("*") if path.is_dir() and not any(path.iterdir())] == []


def test_rendering_again_gives_the_same_bytes(rendered: Rendered, template: Path, tmp_path: Path) -> None:
    again = render(template, tmp_path / "service", COMBINATIONS["all-lists"])
    assert contents(again) == contents(rendered("all-lists"))


def test_the_answers_file_gives_the_same_service(rendered: Rendered, template: Path, tmp_path: Path) -> None:
    service = rendered("all-lists")
    recorded = yaml.safe_load((service / ".copier-answers.yml").read_text("utf-8"))
    answers = {key: value for key, value in recorded.items() if key[0] != "_"}
    assert contents(render(template, tmp_path / "service", answers)) == contents(service)


def test_files_of_others_in_the_destination_stay(template: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine", "utf-8")
    (tmp_path / ".env").write_text("SECRET_KEY=mine\n", "utf-8")
    render(template, tmp_path)
    assert (tmp_path / "notes" / "mine.txt").read_text("utf-8") == "mine"
    assert (tmp_path / ".env").read_text("utf-8") == "SECRET_KEY=mine\n"
    assert (tmp_path / "pyproject.toml").exists()


def test_the_licence_is_the_one_that_was_chosen(rendered: Rendered) -> None:
    first_lines = {
        "preset-minimal": "MIT License",
        "license-Apache-2.0": "Apache License",
        "license-BSD-3-Clause": "BSD 3-Clause License",
        "license-Proprietary": "Copyright (c) My Service authors. All rights reserved.",
    }
    for name, line in first_lines.items():
        assert (rendered(name) / "LICENSE").read_text("utf-8").split("\n\n")[0].strip().splitlines()[0] == line
