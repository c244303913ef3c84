"""The command itself: options, texts, other ways to call it, other commands than ours."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live.polls import Stock, make, make_stock, manage, replace, runserver
from tests.live.process import DevServer, gone
from tests.live.projects import INTERRUPTS_ITSELF
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

SETTINGS = "mysite/settings.py"
QUIT = "Quit the server with CONTROL-C."


def command(folder: Path, name: str, text: str, app: str = "polls") -> None:
    """Give an application a command."""
    place = folder / app / "management/commands"
    place.mkdir(parents=True, exist_ok=True)
    for each in (folder / app, place.parent, place):
        (each / "__init__.py").touch()
    (place / f"{name}.py").write_text(text)


def said(server: DevServer, text: str = QUIT) -> str:
    """The log as soon as it has a text."""
    server.wait_log(text)
    return server.log


def comparable(text: str) -> list[str]:
    """What Django prints, without what differs each time, and what is devserver's or its reloader's."""
    text = re.sub(r":\d+/", ":PORT/", text)
    text = re.sub(r"\w+ \d\d, \d{4} - \d\d:\d\d:\d\d", "DATE", text)
    ours = ("devserver: ", "127.0.0.1:", "Watching for file changes")
    return [line for line in text.splitlines() if line.strip() and not line.startswith(ours)]


@pytest.mark.django
def test_it_says_what_django_says(tmp_path: Path) -> None:
    """Performing system checks, their result, migrations, date, version, settings, address, how to quit."""
    make(tmp_path / "ours")
    make_stock(tmp_path / "stock")
    for folder in ("ours", "stock"):
        (tmp_path / folder / "polls/migrations/0002_more.py").write_text(
            "from django.db import migrations\n\nclass Migration(migrations.Migration):\n"
            "    dependencies = [('polls', '0001_initial')]\n"
        )
    with runserver(tmp_path / "ours") as server:
        server.serving()
        ours = said(server, "deployment/" if django_version() >= (5, 2) else QUIT)
    with Stock(tmp_path / "stock", "0") as stock:
        theirs = stock.until("deployment/" if django_version() >= (5, 2) else QUIT)
    # What was printed after the last line may have been cut off by our reading.
    assert comparable(ours)[: len(comparable(theirs))] == comparable(theirs)
    assert "You have 1 unapplied migration(s)" in ours


def django_version() -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-m", "django", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    major, minor = done.stdout.split(".")[:2]
    return int(major), int(minor)


@pytest.mark.parametrize(
    ("arguments", "url", "text"),
    [
        (
            ["-6", "0", "--settings", "mysite.settings", "--pythonpath", "."],
            "http://[::1]:",
            "at http://[::1]:",
        ),
        (
            ["localhost:0", "--nothreading", "--nostatic", "--insecure", "--traceback"],
            "http://127.0.0.1:",
            "at http://localhost:",
        ),
        (
            ["0.0.0.0:0", "--skip-checks", "--no-color", "--verbosity", "0"],
            "http://0.0.0.0:",
            "at http://0.0.0.0:",
        ),
        (["[::1]:0", "--noreload", "--nothreading"], "http://[::1]:", "at http://[::1]:"),
    ],
)
@pytest.mark.django
def test_options(tmp_path: Path, arguments: Sequence[str], url: str, text: str) -> None:
    with runserver(make(tmp_path), *arguments, env={"DJANGO_RUNSERVER_HIDE_WARNING": "true"}) as server:
        server.serving()
        assert server.url.startswith(url)
        log = said(server)
        assert text in log
        assert f"{server.port}/" in log
        assert ("Performing system checks" in log) is ("--skip-checks" not in arguments)
        assert "WARNING: This is a development server" not in log
        assert server.get("/polls/word/", Host="localhost").text == "one"
        assert server.get("/static/polls/style.css", Host="localhost").status == (
            404 if "--nostatic" in arguments else 200
        )
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--bogus"], 2, "unrecognized arguments: --bogus"),
        (["nonsense"], 1, "is not a valid port number or address:port pair"),
        (["--reload-grace", "nonsense"], 2, "--reload-grace"),
        (["--help"], 0, "--reload-exclude"),
        (["--version"], 0, "."),
    ],
)
def test_what_cannot_be_ends_it(tmp_path: Path, arguments: Sequence[str], code: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "runserver", *arguments],
        cwd=make(tmp_path),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == code
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "django"],
        ["-X", "dev", "-W", "ignore", "./manage.py"],
        [str(Path(sys.executable).parent / "django-admin")],
        ["-c", "import sys; sys.path.insert(0, ''); sys.argv[0] = 'x'; import manage; manage.main()"],
    ],
)
def test_ways_to_start(tmp_path: Path, start: list[str]) -> None:
    make(tmp_path)
    env = {"DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": str(tmp_path)}
    arguments = [sys.executable, *start, "runserver", "0"]
    with DevServer(cwd=tmp_path, command=arguments, env=env) as server:
        server.serving()
        replace(tmp_path / "polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"


def test_sys_argv_and_the_rest_are_as_without_us(tmp_path: Path) -> None:
    """What user code can see of how it was started, against Django's own child."""
    probe = (
        "\nimport os, sys\n"
        "def ready(self):\n"
        "    main = sys.modules['__main__']\n"
        "    print('SEEN', sys.argv, sys.path[0], main.__name__, os.path.basename(main.__file__),\n"
        "        main.__spec__, os.environ.get('RUN_MAIN'), flush=True)\n"
        "PollsConfig.ready = ready\n"
    )
    make(tmp_path / "ours")
    make_stock(tmp_path / "stock")
    for folder in ("ours", "stock"):
        path = tmp_path / folder / "polls/apps.py"
        path.write_text(path.read_text() + probe)
    with runserver(tmp_path / "ours", "0", "--nostatic") as server:
        server.serving()
        ours = said(server, "SEEN")
    with Stock(tmp_path / "stock", "0", "--nostatic") as stock:
        stock.until("SEEN")
        theirs = stock.until("SEEN")  # the reloader's parent comes first
    found = [re.findall("SEEN.*", text)[-1] for text in (ours, theirs)]
    found = [re.sub(r", '--events', 'fd:\d+'|/ours|/stock", "", text) for text in found]
    assert found[0] == found[1]


def test_a_port_in_use_ends_it(tmp_path: Path) -> None:
    make(tmp_path)
    with runserver(tmp_path) as server:
        server.serving()
        for more in ([], ["--noreload"]):
            done = subprocess.run(
                [sys.executable, "manage.py", "runserver", str(server.port), *more],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            assert done.returncode == 1
            assert "in use" in done.stderr


def test_a_command_of_an_application_before_ours_keeps_its_defaults(tmp_path: Path) -> None:
    """It comes from Django's, has a default address, an option and an `inner_run` of its own."""
    make(tmp_path)
    text = """
from django.contrib.staticfiles.management.commands.runserver import Command as Runserver

class Command(Runserver):
    default_port = "0"
    default_addr = "127.0.0.2"

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("--cheer", default="")

    def inner_run(self, *args, **options):
        print("CHEER", options["cheer"], flush=True)
        super().inner_run(*args, **options)

    def get_handler(self, *args, **options):
        handler = super().get_handler(*args, **options)
        def cheering(environ, start_response):
            def start(status, headers, *more):
                return start_response(status, [*headers, ("Cheer", options["cheer"])], *more)
            return handler(environ, start)
        return cheering
"""
    command(tmp_path, "runserver", text, "company")
    replace(tmp_path / SETTINGS, "INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "company",')
    with Stock(tmp_path, "--cheer", "hip") as bare:
        text = bare.until("development server at")
    assert "CHEER hip" in text
    assert "http://127.0.0.2:" in text
    assert "devserver: serving" in text


@pytest.mark.django
def test_a_subclass_of_ours(tmp_path: Path) -> None:
    make(tmp_path)
    text = """
from devserver.django.management.commands.runserver import Command as Runserver

class Command(Runserver):
    def inner_run(self, *args, **options):
        print("INNER", flush=True)
        super().inner_run(*args, **options)
"""
    command(tmp_path, "runserver", text, "company")
    replace(tmp_path / SETTINGS, "INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "company",')
    with runserver(tmp_path, "--restart=cold") as server:  # a warm one may go on within
        server.serving()
        assert "INNER" in server.log
        replace(tmp_path / "polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"
        assert server.log.count("INNER") == 2


@pytest.mark.django
def test_call_command(tmp_path: Path) -> None:
    make(tmp_path)
    text = """
from django.core.management import BaseCommand, call_command

class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("--events")
        parser.add_argument("--port")

    def handle(self, **options):
        call_command("runserver", "127.0.0.1:0", "--events", options["events"])
"""
    command(tmp_path, "dev", text)
    with DevServer(cwd=tmp_path, command=[sys.executable, "manage.py", "dev"]) as server:
        server.serving()
        replace(tmp_path / "polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"


@pytest.mark.django
def test_testserver(tmp_path: Path) -> None:
    """A database in memory, filled from a fixture in the command's own thread."""
    make(tmp_path)
    (tmp_path / "fixture.json").write_text(
        manage(tmp_path, "dumpdata", "polls").replace("What's new?", "What is in memory?")
    )
    process = subprocess.Popen(
        [sys.executable, "manage.py", "testserver", "fixture.json", "--addrport", "0", "--noinput"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Quit the server"):
                break
        port = int(re.findall(r"http://127.0.0.1:(\d+)/", "".join(lines))[-1])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/polls/", timeout=DEADLINE) as answer:
            assert "What is in memory?" in answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "Server stopped." in rest  # the command's `shutdown_message`


def test_it_ends_on_a_signal_that_another_thread_gets(tmp_path: Path) -> None:
    """The kernel may choose any. The main one, which handles it, waits and is not woken by it."""
    make(tmp_path)
    views = tmp_path / "polls/views.py"
    views.write_text(
        f"{views.read_text()}\ndef word(request):\n    {INTERRUPTS_ITSELF}\n    return HttpResponse()\n"
    )
    with runserver(tmp_path, "0", "--noreload", "--nothreading") as server:
        server.serving()
        server.get("/polls/word/")
        assert server.ended() == 0


def test_it_ends_on_signals(tmp_path: Path) -> None:
    make(tmp_path)
    for signum in (signal.SIGINT, signal.SIGTERM):
        with runserver(tmp_path) as server:
            server.serving()
            below = server.processes()
            assert server.stop(signum) == 0
            for pid in below:
                gone(pid)


def test_without_a_port_the_configuration_is_asked(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.devserver]\nport = 0\n")
    with DevServer(
        cwd=tmp_path, command=[sys.executable, "manage.py", "runserver"], env={"DEVSERVER_HOST": "127.0.0.3"}
    ) as server:
        server.serving()
        assert server.url.startswith("http://127.0.0.3:")
        assert not server.url.endswith(":8000")
