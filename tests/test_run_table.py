"""The table [tool.devserver.run], and every way in which it can be wrong."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from devserver.cli import explain_config
from devserver.config import Config, resolve
from devserver.errors import UsageError
from devserver.run_table import Companion


def read(folder: Path, *lines: str) -> Config:
    """The configuration in a folder whose pyproject.toml has these lines."""
    (folder / "pyproject.toml").write_text("\n".join(lines), encoding="utf-8")
    return resolve({}, {}, folder)


def test_the_short_form_is_a_command_for_the_shell(tmp_path: Path) -> None:
    config = read(tmp_path, "[tool.devserver]", "port = 1", "[tool.devserver.run]", 'vite = "npm run dev"')
    here = str(tmp_path)
    assert config.programs == (Companion(name="vite", command="npm run dev", cwd=here, root=here),)
    assert config.bind.port == 1


def test_a_command_of_several_lines_is_shown_by_its_first(tmp_path: Path) -> None:
    lines = ["[tool.devserver.run]", 'one = """\ntrue\n"""', 'two = """\ntrue\nfalse\n"""']
    assert [each.shown for each in read(tmp_path, *lines).programs] == ["true", "true …"]


def test_every_key(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "[tool.devserver.run.jobs]",
        'command = ["celery", "-A", "shop", "worker"]',
        'cwd = "back"',
        'env = { LEVEL = "info" }',
        'start = "serving"',
        "restart = true",
        'watch = ["jobs/**/*.py"]',
        "once = true",
        "grace = 20",
        "[tool.devserver.run.db]",
        'command = "docker compose up --wait"',
        'watch = "compose.yaml"',
    )
    jobs, db = config.programs
    assert jobs == Companion(
        name="jobs",
        command=("celery", "-A", "shop", "worker"),
        cwd=str(tmp_path / "back"),
        env=(("LEVEL", "info"),),
        start="serving",
        restart=True,
        watch=("jobs/**/*.py",),
        once=True,
        grace=20.0,
        root=str(tmp_path),
    )
    assert (db.name, db.watch) == ("db", ("compose.yaml",))
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["run = true"], "run must be a table; write [tool.devserver.run]"),
        (["[tool.devserver.run.vite]", "cwd = '.'"], "run.vite]: command is missing"),
        (["[tool.devserver.run]", "vite = 3"], "vite] command = 3: must be text for the shell, or a list"),
        (["[tool.devserver.run]", "vite = []"], "vite] command = []: must be text for the shell"),
        (["[tool.devserver.run]", "vite = ['a', 1]"], "must be text for the shell, or a list"),
        (["[tool.devserver.run]", "vite = ' '"], "must be text for the shell, or a list"),
        (["[tool.devserver.run]", "'a b' = 'x'"], "a b: a name has up to 32 letters, digits, - and _"),
        (["[tool.devserver.run.a]", "comand = 'x'"], "run.a] comand: unknown key; did you mean command?"),
        (["[tool.devserver.run.a]", "port = 1"], "run.a] port: unknown key; the keys are command, cwd, env"),
        (["[tool.devserver.run.a]", "cwd = 1"], "cwd = 1: must be text"),
        (["[tool.devserver.run.a]", "env = 'x'"], 'env = "x": must be a table of text'),
        (["[tool.devserver.run.a]", "env = { A = 1 }"], 'A must be text; write A = "…"'),
        (["[tool.devserver.run.a]", "start = 'after'"], 'start = "after": must be "before"'),
        (["[tool.devserver.run.a]", "once = 'yes'"], 'once = "yes": must be true or false'),
        (["[tool.devserver.run.a]", "watch = [1]"], "watch = [1]: must be a list of patterns"),
        (["[tool.devserver.run.a]", "grace = -1"], "grace = -1: must be a number of seconds, from 0 to 3600"),
    ],
)
def test_an_error_names_file_table_and_key(tmp_path: Path, lines: list[str], message: str) -> None:
    head = [] if lines[0].startswith("[") else ["[tool.devserver]"]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, *head, *lines)
    assert str(caught.value).startswith(str(tmp_path / "pyproject.toml"))
    assert message in str(caught.value)


def test_explain_config_has_companions_and_no_secrets(tmp_path: Path) -> None:
    lines = [
        "[tool.devserver.run.jobs]",
        'command = ["rq", "worker"]',
        "env = { KEY = 'k3y' }",
        "once = true",
    ]
    text = explain_config(read(tmp_path, *lines))
    told = f"companion jobs: command = rq worker; cwd = {tmp_path}; env KEY = (not shown); once = true"
    assert told in text.splitlines()
    assert "k3y" not in text


def test_the_tables_of_the_documentation_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "companions.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    found = [each.name for block in blocks for each in read(tmp_path, block).programs]
    assert found == ["vite", "css", "celery", "db", "migrate", "worker"]
    keys = re.findall(r"^\| `(\w+)` \| ", page, re.MULTILINE)
    assert {*keys} >= {each.name for each in fields(Companion)} - {"name", "root"}
