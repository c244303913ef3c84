"""Every source of options, their precedence and provenance, and every way to be wrong."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devserver.cli import explain_config
from devserver.config import OPTIONS, SECTIONS, App, Bind, Config, Http, resolve
from devserver.errors import UsageError
from devserver.options import misspelt
from tests.patience import DEADLINE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def project(folder: Path, *lines: str) -> str:
    """Write the options into a pyproject.toml; its path."""
    file = folder / "pyproject.toml"
    file.write_text("\n".join(["[project]", 'name = "x"', "[tool.devserver]", *lines]), encoding="utf-8")
    return str(file)


def refused(call: object, *arguments: object, **options: object) -> str:
    """The message of the UsageError that the call raises."""
    assert callable(call)
    with pytest.raises(UsageError) as caught:
        call(*arguments, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


# Declarations


def test_defaults_are_those_of_the_documentation(folder: Path) -> None:
    config = Config()
    assert (config.bind.host, config.bind.port, config.bind.backlog) == ("localhost", 8000, 2048)
    assert (config.http.keep_alive, config.http.header_timeout, config.http.graceful) == (75, 10, 3)
    assert (config.http.max_head, config.http.concurrency, config.http.headers) == (65536, None, ())
    assert (config.websocket.max_size, config.websocket.ping_interval) == (16 * 2**20, 20)
    assert (config.reload.enabled, config.reload.grace, config.reload.load_timeout) == (False, 1, 30)
    assert (config.reload.overlap, config.reload.error_page) == (True, "full")
    assert (config.log.level, config.log.access, config.log.colors) == ("info", True, None)
    assert (config.app.target, config.app.app_dir) == (None, str(folder))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_help_and_a_default_that_its_kind_accepts(name: str, folder: Path) -> None:
    option = OPTIONS[name]
    assert option.help.endswith(".")
    for value in option.default if isinstance(option.default, tuple) else [option.default]:
        if value is not None:
            assert option.kind.read(value, str(folder)) is not None


def test_names_are_derived_from_the_flag() -> None:
    option = OPTIONS["timeout_keep_alive"]
    assert (option.flag, option.label) == ("timeout-keep-alive", "--timeout-keep-alive")
    assert option.variable == "DEVSERVER_TIMEOUT_KEEP_ALIVE"
    assert (option.section, option.field) == ("http", "keep_alive")


def test_each_section_can_be_made_alone() -> None:
    assert Http(keep_alive=1.5) == dataclasses.replace(Http(), keep_alive=1.5)
    assert [section() for section in SECTIONS.values()]


def test_a_configuration_cannot_be_changed(folder: Path) -> None:
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.bind = Bind()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.bind.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.sources["port"] = "me"  # type: ignore[index]


# From Python


def test_python_takes_native_values_and_text(folder: Path) -> None:
    (folder / "src").mkdir()
    config = Config(
        "main:app", port="auto", reload=True, reload_dir="src", timeout_keep_alive=2, header=["A: b", "C:d"]
    )
    assert config.app.target == "main:app"
    assert config.bind.port is None
    assert config.reload.enabled is True
    assert config.reload.dirs == (str(folder / "src"),)
    assert config.http.keep_alive == 2.0
    assert config.http.headers == (("A", "b"), ("C", "d"))
    text: Any = {"port": "9000"}  # as from a variable
    assert Config(**text, reload_dir=Path("src")).reload.dirs == config.reload.dirs


def test_python_says_run_as_the_source_and_none_means_not_given(folder: Path) -> None:
    config = Config("main:app", port=1, uds=None)
    assert {name for name, source in config.sources.items() if source == "run()"} == {"target", "port"}
    assert config.sources["uds"] == "default"


def test_python_looks_at_neither_environment_nor_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(folder, "port = 1", "nonsense = 2")
    monkeypatch.setenv("DEVSERVER_PORT", "2")
    config = Config()
    assert (config.bind.port, config.file, config.origin) == (8000, None, None)
    assert config.reread() is config


def test_python_takes_an_application(folder: Path) -> None:
    application = object()
    assert Config(application).app.target is application


def test_an_application_cannot_be_reloaded(folder: Path) -> None:
    message = refused(Config, object(), reload=True)
    assert "import string" in message
    assert "run('module:app', reload=True)" in message


def test_python_is_told_near_misses(folder: Path) -> None:
    assert refused(Config, pot=1) == "pot: unknown option; did you mean port?"
    assert refused(Config, xyzzy=1) == "xyzzy: unknown option; devserver --help lists the options"


# Precedence and provenance


def test_command_line_wins_then_environment_then_file(folder: Path) -> None:
    file = project(folder, "port = 1", 'host = "file"', 'log-level = "debug"', "backlog = 5")
    environ = {"DEVSERVER_PORT": "2", "DEVSERVER_HOST": "environ", "DEVSERVER_LOG_LEVEL": "", "HOME": "/x"}
    config = resolve({"port": "3"}, environ, folder)
    assert (config.bind.port, config.bind.host, config.log.level) == (3, "environ", "debug")
    assert config.file == file
    assert config.sources["port"] == "--port"
    assert config.sources["host"] == "DEVSERVER_HOST"
    assert config.sources["log_level"] == file
    assert config.sources["reload"] == "default"
    assert set(config.sources) == set(OPTIONS)


def test_a_higher_source_replaces_a_list(folder: Path) -> None:
    project(folder, 'reload-include = ["*.html", "*.css"]')
    assert resolve({}, {}, folder).reload.include == ("*.html", "*.css")
    assert resolve({"reload_include": ("*.md",)}, {}, folder).reload.include == ("*.md",)


def test_a_switch_can_be_taken_back(folder: Path) -> None:
    project(folder, "reload = true")
    assert resolve({}, {}, folder).reload.enabled is True
    assert resolve({}, {"DEVSERVER_RELOAD": "0"}, folder).reload.enabled is False
    config = resolve({"reload": False}, {"DEVSERVER_RELOAD": "1"}, folder)
    assert (config.reload.enabled, config.sources["reload"]) == (False, "--reload")


def test_the_nearest_file_upwards_is_read_and_paths_are_relative_to_it(folder: Path) -> None:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    (folder / "src").mkdir()
    (folder / "src" / "main.py").touch()
    (folder / "x.env").touch()
    file = project(
        folder, 'app-dir = "src"', 'env-file = "x.env"', 'target = "src/main.py:app"', 'uds = "s.sock"'
    )
    config = resolve({"reload_dir": (".",)}, {"DEVSERVER_EVENTS": "log"}, inner)
    assert config.file == file
    assert config.app == App(
        target=f"{folder / 'src' / 'main.py'}:app",
        app_dir=str(folder / "src"),
        env_file=str(folder / "x.env"),
    )
    assert config.bind.uds == str(folder / "s.sock")
    assert config.reload.dirs == (str(inner),)
    assert config.log.events == str(inner / "log")


def test_the_application_folder_is_the_working_directory_by_default(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    project(folder, 'target = "main:app"')
    config = resolve({}, {}, inner)
    assert (config.app.app_dir, config.app.target) == (str(inner), "main:app")


@pytest.mark.parametrize("target", ["main", "main:app", "src/main.py:app", "src/main:app"])
def test_a_target_on_the_command_line_stays_as_written(folder: Path, target: str) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "main.py").touch()
    config = resolve({"target": target}, {}, folder)
    assert (config.app.target, config.sources["target"]) == (target, "TARGET")
    assert Config(Path("main.py")).app.target == "main.py"


@pytest.mark.parametrize(
    "target", ["src/main.py", "src/main.py:app", "src/main:a.b", "main.py:app", "src:app"]
)
def test_a_target_in_the_file_that_is_a_file_beside_it_becomes_absolute(folder: Path, target: str) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "main.py").touch()
    project(folder, f'target = "{target}"')
    there = target.startswith("src/main")  # the others are left to the search for the application
    found = resolve({}, {}, folder / "src").app.target
    assert found == (f"{folder}{os.sep}{target}" if there else target)


def test_a_path_may_begin_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    project(folder, 'app-dir = "~"')
    assert resolve({}, {}, folder).app.app_dir == str(home)


def test_a_file_without_our_table_is_not_even_parsed(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("this is [ no TOML")
    config = resolve({}, {}, folder)
    assert (config.bind.port, config.file) == (8000, str(folder / "pyproject.toml"))


def test_reread_sees_the_file_as_it_is_now(folder: Path) -> None:
    project(folder, "port = 1", "backlog = 1")
    config = resolve({"port": "7"}, {"DEVSERVER_HOST": "::1"}, folder)
    assert config.reread() == config
    project(folder, "port = 2", "backlog = 2")
    changed = config.reread()
    assert (changed.bind.port, changed.bind.host, changed.bind.backlog) == (7, "::1", 2)
    assert config.bind.backlog == 1
    (folder / "pyproject.toml").unlink()
    assert changed.reread().bind.backlog == 2048


# Keys, variables


@pytest.mark.parametrize("key", ["timeout-keep-alive", "timeout_keep_alive"])
def test_a_key_is_written_with_dashes_or_underscores(folder: Path, key: str) -> None:
    project(folder, f"{key} = 7")
    assert resolve({}, {}, folder).http.keep_alive == 7


def test_a_list_in_the_file_may_be_a_single_string(folder: Path) -> None:
    project(folder, 'reload-exclude = "*.log"', 'header = ["A: b", "C: d, e"]')
    config = resolve({}, {}, folder)
    assert config.reload.exclude == ("*.log",)
    assert config.http.headers == (("A", "b"), ("C", "d, e"))


def test_a_variable_that_is_nearly_one_of_ours_is_spoken_of() -> None:
    environ = {"DEVSERVER_PROT": "1", "DEVSERVER_PORT": "2", "DEVSERVER_THEME": "dark", "PROT": "3"}
    ours = {"DEVSERVER_RUN_MAIN": "true", "DEVSERVER_CONTROL": "4", "DEVSERVER_TREE": "5"}
    said = "DEVSERVER_PROT is no option; did you mean DEVSERVER_PORT?"
    assert misspelt(OPTIONS, {**environ, **ours}) == [said]


def test_lists_in_the_environment(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    environ = {
        "DEVSERVER_RELOAD_DIR": f"a{os.pathsep}b",
        "DEVSERVER_RELOAD_INCLUDE": "*.html, *.css,",
        "DEVSERVER_HEADER": "A: b, c\nD: e\n",
    }
    config = resolve({}, environ, folder)
    assert config.reload.dirs == (str(folder / "a"), str(folder / "b"))
    assert config.reload.include == ("*.html", "*.css")
    assert config.http.headers == (("A", "b, c"), ("D", "e"))


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on"])
def test_true_in_the_environment(folder: Path, text: str) -> None:
    assert resolve({}, {"DEVSERVER_RELOAD": text}, folder).reload.enabled is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off"])
def test_false_in_the_environment(folder: Path, text: str) -> None:
    assert resolve({}, {"DEVSERVER_ACCESS_LOG": text}, folder).log.access is False
    assert resolve({"ws_per_message_deflate": text}, {}, folder).websocket.deflate is False


# What the kinds make of a value

GOOD = [
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("port", "AUTO", None),
    ("host", "[::1]", "::1"),
    ("host", "fe80::1", "fe80::1"),
    ("log_level", "INFO", "info"),
    ("timeout_keep_alive", "0", 0.0),
    ("timeout_keep_alive", "1.5", 1.5),
    ("ws_ping_interval", "0", 0.0),
    ("root_path", "/api/", "/api"),
    ("root_path", "", ""),
    ("events", "fd:3", "fd:3"),
    ("fd", "0", 0),
    ("header", "X-A:b", (("X-A", "b"),)),
    ("header", "X-A:", (("X-A", ""),)),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_text_is_read(folder: Path, name: str, text: str, value: object) -> None:
    found = resolve({name: text}, {}, folder).value(name)
    assert found == value
    assert type(found) is type(value)


BAD = [
    ("port", "65536", "must be a whole number from 0 to 65535, or auto"),
    ("port", "-1", "must be a whole number from 0 to 65535, or auto"),
    ("port", "http", "must be a whole number from 0 to 65535, or auto"),
    ("host", "http://localhost", "must be a name or an address alone"),
    ("host", "localhost:8000", "the port is an option of its own"),
    ("fd", "-1", "must be a whole number from 0 to 2147483647"),
    ("backlog", "0", "must be a whole number from 1 to 2147483647"),
    ("backlog", "1.5", "must be a whole number from 1 "),
    ("h11_max_incomplete_event_size", "0", "must be a whole number from 1 up"),
    ("ws_max_size", "16M", "must be a whole number from 1 up"),
    ("limit_concurrency", "0", "must be a whole number from 1 up"),
    ("timeout_keep_alive", "-1", "must be a number of seconds, 0 or more"),
    ("timeout_header", "0", "must be a number of seconds, more than 0"),
    ("timeout_header", "soon", "must be a number of seconds, more than 0"),
    ("timeout_header", "nan", "must be a number of seconds, more than 0"),
    ("load_timeout", "inf", "must be a number of seconds, more than 0"),
    ("lifespan", "maybe", "must be auto, on or off"),
    ("ws", "websockets", "must be auto, wsproto or none"),
    ("ws_per_message_deflate", "maybe", "must be true or false"),
    ("root_path", "api", "must begin with a slash, as in /api"),
    ("events", "fd:x", "fd: and the number of an open descriptor"),
    ("events", "", "must be text that is not empty"),
    ("header", "no colon", 'must be a header line, as in "Cache-Control: no-store"'),
    ("header", "Bad name: x", "must be a header line"),
    ("header", "A: b\r\nC: d", "must be a header line"),
    ("header", "A: \u20ac", "must be a header line"),
    ("header", "Content-Length: 3", "the server sets it for each response"),
    ("reload_dir", "missing", "does not exist; correct the path or make the folder"),
    ("app_dir", "missing", "does not exist; correct the path or make the folder"),
    ("env_file", ".env", "does not exist; correct the path"),
    ("log_config", ".", "is a folder; correct the path"),
]


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_an_error_names_option_value_source_and_remedy(
    folder: Path, name: str, text: str, reason: str
) -> None:
    option = OPTIONS[name]
    by_flag = refused(resolve, {name: text}, {}, folder)
    assert by_flag.startswith(f"{option.label} {text}: ")
    assert reason in by_flag
    by_python = refused(Config, **{name: text})
    assert by_python.startswith(f"{name}={text!r}: ")
    assert reason in by_python
    if text and "\n" not in text:  # an empty one is not set, and a line end separates items of a list
        by_variable = refused(resolve, {}, {option.variable: text}, folder)
        assert by_variable == by_flag.replace(f"{option.label} ", f"{option.variable}=", 1)


@pytest.mark.parametrize("value", [True, 1.5, [1]])
def test_python_types_that_are_no_number(folder: Path, value: object) -> None:
    assert "must be a whole number" in refused(Config, backlog=value)
    assert "must be a number" in refused(Config, timeout_header=True)


def test_a_reload_dir_that_is_a_file(folder: Path) -> None:
    (folder / "file").touch()
    message = refused(resolve, {"reload_dir": (".", "file")}, {}, folder)
    assert message.startswith(f"--reload-dir file: the folder {folder / 'file'} is not a folder")


def test_an_empty_target_is_refused(folder: Path) -> None:
    assert "must be module:attribute" in refused(resolve, {"target": ""}, {}, folder)


def test_a_unix_socket_and_a_descriptor_exclude_each_other(folder: Path) -> None:
    message = refused(resolve, {"uds": "x"}, {"DEVSERVER_FD": "3"}, folder)
    assert message == "uds (from --uds) and fd (from DEVSERVER_FD) exclude each other: give one of them"


def test_an_addition_to_nothing_is_refused(folder: Path) -> None:
    message = refused(resolve, {"limit_max_requests_jitter": 5}, {}, folder)
    assert message.endswith("says nothing by itself: give --limit-max-requests, too")
    resolve({"limit_max_requests_jitter": 5, "limit_max_requests": 100}, {}, folder)


# What can be wrong with the file

WRONG_TYPES = [
    ('port = "8000x"', 'port = "8000x": must be a whole number from 0 to 65535, or auto'),
    ("port = 8000.0", "port = 8000.0: must be a whole number or a string"),
    ('backlog = "5"', 'backlog = "5": must be a whole number'),
    ("backlog = true", "backlog = true: must be a whole number"),
    ("reload = 1", "reload = 1: must be true or false"),
    ('reload = "true"', 'reload = "true": must be true or false'),
    ('timeout-header = "5"', 'timeout-header = "5": must be a whole number or a number'),
    ("host = 5", "host = 5: must be a string"),
    ("reload_dir = [1]", "reload_dir = 1: must be a string, or a list of them"),
    ("target = 5", "target = 5: must be a string"),
]


@pytest.mark.parametrize(("line", "message"), WRONG_TYPES)
def test_a_wrong_type_in_the_file(folder: Path, line: str, message: str) -> None:
    file = project(folder, line)
    assert refused(resolve, {}, {}, folder).startswith(f"{file}: [tool.devserver] {message}")


def test_an_unknown_key_is_told_with_near_misses(folder: Path) -> None:
    file = project(folder, "relaod = true")
    message = refused(resolve, {}, {}, folder)
    assert message.startswith(f"{file}: [tool.devserver] relaod: unknown option; did you mean reload")


def test_a_key_in_both_spellings(folder: Path) -> None:
    project(folder, "error-page = 'full'", "error_page = 'short'")
    assert "error_page: stands there twice" in refused(resolve, {}, {}, folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[tool.devserver\nport = 1", "is not valid TOML: "),
        (b"[tool.devserver]\nhost = '\xff'", "is not valid TOML: "),
        (b"[tool]\ndevserver = 1", "devserver must be a table; write [tool.devserver]"),
        (b"tool = 'devserver'", "tool must be a table; write [tool.devserver]"),
    ],
)
def test_a_file_that_cannot_be_used(folder: Path, content: bytes, message: str) -> None:
    file = folder / "pyproject.toml"
    file.write_bytes(content)
    said = refused(resolve, {}, {}, folder)
    assert said.startswith(str(file))
    assert message in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that nobody can read, not even root")
def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "pyproject.toml").symlink_to("/proc/self/mem")
    message = refused(resolve, {}, {}, folder)
    assert message == f"{folder / 'pyproject.toml'} cannot be read: Input/output error; make it readable"


# To another process and back


def everything(folder: Path) -> Config:
    """A configuration that uses all sources and all shapes of value."""
    project(folder, 'header = ["A: b"]', 'reload-dir = ["."]', 'target = "main:app"')
    environ = {"DEVSERVER_PORT": "auto", "DEVSERVER_USE_COLORS": "no", "SECRET": "x"}
    return resolve({"reload": True, "reload_include": ["*.md", "*.css"], "ws_max_size": "5"}, environ, folder)


def test_json_round_trip_is_exact(folder: Path) -> None:
    for config in (everything(folder), Config(), Config("main:app", header="A: b", port="auto")):
        text = json.dumps(config.to_json())
        back = Config.from_json(json.loads(text))
        assert back == config
        assert back.to_json() == json.loads(text)
        assert back.http.headers == config.http.headers
        assert isinstance(back.sources, type(config.sources))


def test_a_configuration_that_has_travelled_can_be_reread(folder: Path) -> None:
    config = everything(folder)
    back = Config.from_json(json.loads(json.dumps(config.to_json())))
    assert back.reread() == config
    project(folder, "backlog = 9")
    assert back.reread().bind.backlog == 9
    assert back.reread().reload.include == ("*.md", "*.css")


def test_only_our_own_variables_travel(folder: Path) -> None:
    assert "SECRET" not in json.dumps(everything(folder).to_json())


def test_an_application_does_not_travel(folder: Path) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        Config(object()).to_json()


# Explanation


def test_explain_has_each_option_with_value_and_source(folder: Path) -> None:
    config = everything(folder)
    lines = explain_config(config).splitlines()
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line}
    assert set(rows) == {"option", "pyproject.toml:"} | {option.flag for option in OPTIONS.values()}
    assert rows["port"].split() == ["auto", "DEVSERVER_PORT"]
    assert rows["reload"].split() == ["true", "--reload"]
    assert rows["reload-include"].split() == ["*.md,", "*.css", "--reload-include"]
    assert rows["header"].split() == ["A:", "b", str(folder / "pyproject.toml")]
    assert rows["timeout-keep-alive"].split() == ["75", "default"]
    assert rows["uds"].split() == ["-", "default"]
    assert lines[-1] == f"pyproject.toml: {folder / 'pyproject.toml'}"
    assert explain_config(Config()).endswith("pyproject.toml: none found")


@pytest.mark.unmeasured
def test_the_configuration_is_light(folder: Path) -> None:
    project(folder, "port = 9")
    program = (
        "import sys, pathlib; from devserver.config import resolve\n"
        "resolve({}, {}, pathlib.Path('/'))\n"
        "print('tomllib' in sys.modules)\n"
        "resolve({}, {}, pathlib.Path())\n"
        "print(*sorted({'asyncio', 'click', 'difflib', 'h11', 'wsproto', 'watchfiles'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout.splitlines() == ["False", ""]
