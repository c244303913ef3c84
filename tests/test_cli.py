"""The command line: what it collects, what it refuses, what it prints, how it ends."""

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import devserver
from devserver.cli import COMMAND, REFUSED, TITLES, find, main
from devserver.config import OPTIONS, SECTIONS, Config
from devserver.errors import BindError, TargetError
from devserver.options import Option
from tests.patience import DEADLINE

Run = Callable[..., Config]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without our variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DEVSERVER_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`main` with a composition root that serves nothing; returns what it was started with."""
    started: list[Config] = []
    root = types.ModuleType("devserver.launch")

    def record(config: Config, program: object, find: object) -> int:
        started.append(config)
        return 0

    root.start = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "devserver.launch", root)

    def start(*argv: str) -> Config:
        assert ends(*argv) == 0
        return started.pop()

    yield start
    assert not started


def ends(*argv: str) -> int | str | None:
    """The exit code of `main`."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


# Collecting


def test_nothing_given_is_all_defaults(run: Run) -> None:
    config = run()
    assert set(config.sources.values()) == {"default"}
    assert config.origin is not None
    assert config.origin.given == {}


def test_only_what_was_given_comes_from_the_command_line(run: Run) -> None:
    config = run("main:app", "--port", "9000", "--no-access-log", "--reload-include", "*.md")
    given = {name: source for name, source in config.sources.items() if source != "default"}
    assert given == {
        "target": "TARGET",
        "port": "--port",
        "access_log": "--access-log",
        "reload_include": "--reload-include",
    }
    assert (config.app.target, config.bind.port, config.log.access) == ("main:app", 9000, False)
    assert config.reload.include == ("*.md",)


def test_a_value_equal_to_the_default_still_counts_as_given(run: Run) -> None:
    config = run("--port=8000", "--no-reload")
    assert (config.sources["port"], config.sources["reload"]) == ("--port", "--reload")


SWITCHES = [option for option in OPTIONS.values() if option.kind.switch]


@pytest.mark.parametrize("option", SWITCHES, ids=lambda option: option.flag)
def test_every_switch_has_two_forms(run: Run, option: Option) -> None:
    flag, name = option.flag, option.name
    assert run(f"--{flag}").value(name) is True
    assert run(f"--no-{flag}").value(name) is False


def test_lists_are_given_by_repeating(run: Run, folder: Path) -> None:
    (folder / "a").mkdir()
    config = run("--header", "A: b, c", "--header", "D:e", "--reload-dir", "a", "--reload-dir", ".")
    assert config.http.headers == (("A", "b, c"), ("D", "e"))
    assert config.reload.dirs == (str(folder / "a"), str(folder))


def test_options_that_take_a_boolean_as_uvicorn_does(run: Run) -> None:
    assert run("--ws-per-message-deflate", "false").websocket.deflate is False


def test_reload_delay_is_accepted_and_ignored(run: Run) -> None:
    assert run("--reload-delay", "0.5") == run()


def test_a_target_may_stand_anywhere(run: Run) -> None:
    assert run("--reload", "main:app", "--port", "0").app.target == "main:app"


def test_file_and_environment_are_read(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pyproject.toml").write_text("[tool.devserver]\nport = 1\nbacklog = 1\n")
    monkeypatch.setenv("DEVSERVER_PORT", "2")
    config = run("--host", "::1")
    assert (config.bind.host, config.bind.port, config.bind.backlog) == ("::1", 2, 1)


# Ending


def test_the_exit_code_is_what_start_returned(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["devserver.launch"], "start", lambda config, program, find: 3)
    assert ends("main:app") == 3


def test_an_error_of_the_user_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(config: Config, program: object, find: object) -> int:
        raise BindError("port 8000 is taken by python (pid 7); use --port auto")

    monkeypatch.setattr(sys.modules["devserver.launch"], "start", start)
    assert ends("main:app") == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (
        "",
        "error: port 8000 is taken by python (pid 7); use --port auto\n",
    )


def test_an_error_of_ours_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(config: Config, program: object, find: object) -> int:
        raise EOFError

    monkeypatch.setattr(sys.modules["devserver.launch"], "start", start)
    with pytest.raises(EOFError):
        main(["main:app"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--port", "x"],
            "error: --port x: must be a whole number from 0 to 65535, or auto for the next free one",
        ),
        (["--reload-dir", "gone"], "error: --reload-dir gone: the folder "),
        (["--ws", "websockets"], "error: --ws websockets: must be auto, wsproto or none"),
        (["--relaod"], "--reload"),
        (["--port"], "requires an argument"),
        (["a:b", "c:d"], "unexpected extra argument"),
    ],
)
def test_usage_errors_end_with_2(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert ends(*argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("flag", REFUSED)
def test_what_others_have_and_we_lack_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    for argv in ([flag], [flag, "1"], [f"{flag}=1"], ["main:app", flag]):
        assert ends(*argv) == 2
        assert capsys.readouterr().err == f"error: {flag} is not supported: {REFUSED[flag]}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "app.py"], "there is no command 'run'; write devserver app.py --reload"),
        (["serve"], "there is no command 'serve'; write devserver TARGET --reload"),
        (
            ["dev", "main.py", "--port", "1"],
            "there is no command 'dev'; write devserver main.py --port 1 --reload",
        ),
        (["app.py", "8000"], "8000 after the target; for a port write --port 8000"),
        (
            ["flask", "run"],
            "flask is another program; instead of flask run write devserver app:app --reload",
        ),
        (
            ["manage.py", "runserver"],
            "manage.py is another program; instead of manage.py runserver write devserver --reload",
        ),
    ],
)
def test_what_other_programs_are_told_is_answered_with_the_right_form(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert ends(*argv) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_module_that_is_named_like_a_command_is_served(run: Run, folder: Path) -> None:
    (folder / "run.py").touch()
    assert run("run").app.target == "run"


@pytest.mark.parametrize(
    ("argv", "files", "found"),
    [
        (["app:app"], ["app.py"], "app:app"),
        (["app.py"], ["app.py"], "app.py"),
        (["sub/app:app"], ["sub/app.py"], "sub/app:app"),
        (["json"], [], "json"),
        (["pkg.main"], ["pkg/__init__.py"], "pkg.main"),
        ([], ["app.py"], "app:app"),
        ([], ["manage.py"], "manage.py"),
        (["--reload"], [], ""),
        (["gone:app", "--reload"], ["app.py"], ""),
        (["gone.py", "--reload"], ["app.py"], ""),
        (["gone:app"], ["app.py"], None),
        (["gone.py"], [], None),
        ([], [], None),
    ],
)
def test_what_will_be_served_is_found_before_it_is_promised(
    run: Run, folder: Path, argv: list[str], files: list[str], found: str | None
) -> None:
    """ "": there is nothing yet, and a save may bring it; None: there is nothing."""
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("app = object()\nos.environ['DJANGO_SETTINGS_MODULE'] = ''\n")
    config = run(*argv)
    if found is None:
        with pytest.raises(TargetError):
            find(config)
    else:
        assert find(config) == found


def test_nothing_is_both_refused_and_offered() -> None:
    flags = {f"--{option.flag}" for option in OPTIONS.values()}
    assert not flags & set(REFUSED)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
def test_a_working_directory_that_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert ends("main:app") == 2
    assert capsys.readouterr().err.startswith("error: the working directory has been deleted")
    monkeypatch.chdir(folder)


# Printing


def test_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--version") == 0
    assert capsys.readouterr().out == f"devserver {devserver.__version__}\n"


def test_explain_config_prints_and_starts_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--explain-config", "--port", "auto") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["port", "auto", "--port"] in [line.split() for line in lines]
    assert ["host", "localhost", "default"] in [line.split() for line in lines]


def test_explain_config_finds_errors_too(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--explain-config", "--port", "x") == 2
    assert capsys.readouterr().err.startswith("error: --port x")


def test_help_has_every_option_in_its_group(folder: Path) -> None:
    shown = CliRunner().invoke(COMMAND, ["--help"])
    assert shown.exit_code == 0
    assert all(len(line) <= 100 for line in shown.output.splitlines())
    group, groups = "", dict[str, str]()
    for line in shown.output.splitlines():
        if heading := re.fullmatch(r"(\w+):", line):
            group = heading[1]
        elif flag := re.match(r"  --([\w-]+)", line):
            groups[flag[1]] = group
    offered = {option.flag: TITLES[option.section] for option in OPTIONS.values() if option.name != "target"}
    others = dict.fromkeys(("reload-delay", "explain", "explain-config", "version"), "Other")
    assert groups == {**offered, **others}
    assert set(TITLES) == {*SECTIONS, ""}
    assert "TARGET is module:attribute" in shown.output


def test_explain_config_names_variables_that_are_misspelt(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVSERVER_RELOD", "1")
    assert ends("--explain-config") == 0
    said = "warning: DEVSERVER_RELOD is no option; did you mean DEVSERVER_RELOAD?\n"
    assert capsys.readouterr().err == said


def test_beside_a_manage_py_no_target_is_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "manage.py").write_text("")
    assert ends("runserver") == 2
    assert capsys.readouterr().err == "error: there is no command 'runserver'; write devserver --reload\n"


def test_help_has_each_default(folder: Path) -> None:
    shown = " ".join(CliRunner().invoke(COMMAND, ["--help"]).output.split())
    for text in (
        "[localhost]",
        "[8000]",
        "either parser. [65536]",
        "[info]",
        "[16777216]",
        "decides. [auto]",
    ):
        assert text in shown


@pytest.mark.unmeasured
def test_the_command_line_is_light() -> None:
    program = (
        "import sys, devserver.cli\n"
        "heavy = {'asyncio', 'h11', 'wsproto', 'watchfiles', 'uvloop', 'tomllib', 'devserver.run'}\n"
        "try: devserver.cli.main(['--help'])\n"
        "except SystemExit as end: print('ended', end.code, *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout.splitlines()[-1] == "ended 0"
