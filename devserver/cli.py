"""The command line: a click command made from the declarations in `config`.

It decides nothing. It collects what was really given, as text, and leaves defaults, checks and
precedence to `config.resolve`; so a value is judged alike on every way in, and `--help` shows
what `config` declares.

It refuses to know what serving is: `devserver.launch` is imported only when there is something to
start. `devserver --help` is fast because of that.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from devserver import __version__
from devserver.config import OPTIONS, Config, resolve
from devserver.discovery import is_there
from devserver.errors import DevserverError, TargetError, UsageError
from devserver.options import Option, misspelt

TITLES = {
    "app": "Application",
    "bind": "Address",
    "tls": "HTTPS",
    "reload": "Reloading",
    "companions": "Companions",
    "workers": "Workers",
    "http": "HTTP",
    "proxy": "Proxies",
    "websocket": "WebSocket",
    "log": "Logging",
    "": "Other",
}

ABOUT = """\
Serve a WSGI or ASGI application, and restart it on save with --reload.

TARGET is module:attribute or path/to/file.py:attribute. The attribute defaults to application or
app, the module to the first of main, app, wsgi and asgi that has one. Without TARGET, a folder with
a manage.py is served as manage.py runserver would.

devserver trust has this machine's browsers take the certificates of --https, devserver untrust takes
that back.
"""

ALSO = """\
Every option can also stand in pyproject.toml, as in [tool.devserver] reload = true, and in the
environment, as in DEVSERVER_RELOAD=1. The command line wins, then the environment.
A variable separates folders as PATH does, patterns by commas, headers by line ends.
"""

_ADDRESS = "write --host ADDRESS --port NUMBER"
_SAVES = "--reload restarts on a save, and shows what fails in the browser"

REFUSED = {
    "-p": "write --port NUMBER",
    "-b": _ADDRESS,
    "--bind": _ADDRESS,
    "-w": "write --workers NUMBER",
    "-A": "name it without an option, as in devserver shop.main:app",
    "--app": "name it without an option, as in devserver shop.main:app",
    "--debug": _SAVES,
    "--debugger": _SAVES,
    "--noreload": "leave it out: nothing restarts without --reload",
    "-r": "write --reload",
    "--ws-max-queue": "leave it out; devserver reads no faster than the application receives",
    "--reset-contextvars": "set in the lifespan's state what every request may start from",
}
"""Options that other servers have and we lack, and what to use instead."""

EXIT_NOT_KNOWN = 4
"""After `--explain`, if loading did not come far enough to know."""

COMMANDS = ("run", "serve", "dev", "runserver", "start")
"""What other programs want to be told first. Here there is one command, which serves."""


PROGRAMS = {"manage.py": "", "flask": "app:app", "fastapi": "main:app"}
"""Programs whose commands serve, and what the like is served by here; a manage.py is found."""


def _command(target: str) -> str:
    return " ".join(filter(None, ("devserver", target, "--reload")))


class Serve(click.Command):
    """The command, with its options grouped and uvicorn's others refused."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        elsewhere = any(each.startswith("--app-dir") for each in args)
        if args and args[0] in COMMANDS and not (elsewhere or is_there(args[0], "")):
            rest = " ".join(args[1:]) or ("" if os.path.exists("manage.py") else "TARGET")
            raise UsageError(f"there is no command {args[0]!r}; write {_command(rest)}")
        if len(args) > 1 and args[0] in PROGRAMS and args[1] in COMMANDS and not elsewhere:
            ours = _command(PROGRAMS[args[0]])
            raise UsageError(f"{args[0]} is another program; instead of {args[0]} {args[1]} write {ours}")
        plain = [each for each in args if not each.startswith("-")]
        if len(plain) == 2 and plain[1].isdigit() and args.index(plain[1]) == args.index(plain[0]) + 1:
            raise UsageError(f"{plain[1]} after the target; for a port write --port {plain[1]}")
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in REFUSED:
                instead = REFUSED[error.option_name]
                raise UsageError(f"{error.option_name} is not supported: {instead}") from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, title in TITLES.items():
            rows = [
                record
                for each in self.get_params(ctx)
                if isinstance(each, click.Option)
                and _section(each) == section
                and (record := each.get_help_record(ctx))
            ]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=34)


def _section(parameter: click.Parameter) -> str:
    known = OPTIONS.get(parameter.name or "")
    return known.section if known else ""


def _parameter(name: str, known: Option) -> click.Parameter:
    if name == "target":
        return click.Argument([name], required=False)
    # Everything is text to click: the types of the options judge it, as they do for other sources.
    if known.kind.switch:
        return click.Option([f"--{known.flag}/--no-{known.flag}", name], default=None, help=_help(known))
    return click.Option(
        [f"--{known.flag}", name], metavar=known.kind.metavar, multiple=known.repeatable, help=_help(known)
    )


def _help(known: Option) -> str:
    shown = known.show(known.default)
    repeat = " May be repeated." if known.repeatable else ""
    return known.help + repeat + ("" if shown == "-" else f" [{shown}]")


@click.pass_context
def _collect(context: click.Context, /, **parameters: Any) -> Config | None:
    given = {
        name: value
        for name, value in parameters.items()
        if name in OPTIONS and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working directory has been deleted; change to one that exists") from None
    config = resolve(given, os.environ, folder)
    if parameters["explain_config"]:
        click.echo(explain_config(config))
        for line in misspelt(OPTIONS, os.environ):
            click.echo(f"warning: {line}", err=True)
    elif parameters["explain"]:
        from devserver.launch import explain_paths

        click.echo("loading the application …", err=True)
        lines, are_known = explain_paths(config, parameters["explain"])
        for line in lines:
            click.echo(line)
        if not are_known:
            sys.exit(EXIT_NOT_KNOWN)
    else:
        return config
    return None


COMMAND = Serve(
    "devserver",
    callback=_collect,
    params=[
        *(_parameter(name, known) for name, known in OPTIONS.items()),
        click.Option(["--reload-delay"], metavar="SECONDS", help="Ignored: a change is noticed at once."),
        click.Option(["--explain-config"], is_flag=True, help="Print every option with its source."),
        click.Option(
            ["--explain"],
            metavar="PATH",
            multiple=True,
            help="Load the application, print whether a change of PATH would restart it. May be repeated.",
        ),
    ],
    help=ABOUT,
    epilog=ALSO,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
click.version_option(__version__, prog_name="devserver", message="%(prog)s %(version)s")(COMMAND)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process.

    Args:
        argv: the arguments after the program's name; by default the process's own.

    Raises:
        SystemExit: always; 2 for what was wrong on the command line, the error's own code for
            another `DevserverError`, else what `devserver.launch.start` returned.
    """
    # Given explicitly, since click would expand * in its own reading of sys.argv on Windows.
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] and arguments[0] in TRUSTING:
            sys.exit(_trusting(*arguments))
        config = COMMAND.main(arguments, prog_name="devserver", standalone_mode=False)
        if not isinstance(config, Config):
            sys.exit(0)  # --help, --version, --explain or --explain-config has said it all
        from devserver.django.detection import program
        from devserver.launch import start

        sys.exit(start(config, program=program, find=find))
    except DevserverError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


TRUSTING = {
    "trust": """\
Usage: devserver trust [--yes]

Have this machine trust the certificates of --https: the system, Chromium and Firefox. It asks first; --yes
is the answer. devserver untrust takes it back.""",
    "untrust": """\
Usage: devserver untrust [--yes]

Take back what devserver trust has done, and remove the authority and its key. It asks first; --yes is the
answer. A server that runs goes on with the certificate that it has; start it again for a new one.""",
}
"""Commands about the authority of --https. A module of that name is served by module:attribute."""


def _trusting(command: str, *arguments: str) -> int:
    """Run one of these commands. Returns the exit code."""
    if arguments == ("--help",):
        click.echo(TRUSTING[command])
        return 0
    if arguments not in ((), ("--yes",)):
        raise UsageError(
            f"devserver {command} is about the authority of --https, and takes no option but --yes;"
            f" to serve a module {command} write devserver {command}:app"
        )
    from devserver.front import trusting

    def ask(question: str) -> bool:
        if arguments:
            return True
        if not sys.stdin.isatty():
            raise UsageError(f"devserver {command} asks first, and nobody can answer here: give --yes")
        return click.confirm(question)

    return 0 if getattr(trusting, command)(click.echo, ask) else 1


def find(config: Config) -> str:
    """What is served, by name; "" if there is nothing yet, and a save may bring it.

    Raises:
        TargetError: there is nothing, and a save would change nothing.
    """
    from devserver.discovery import discover
    from devserver.django.detection import found

    section = config.app
    if section.target is not None:
        target = str(section.target)
        if is_there(target, section.app_dir):
            return target
        if config.reload.enabled:
            return ""
        from devserver.app import missing

        raise missing(target, section.app_dir)
    try:
        return found(section.app_dir) or discover(section.app_dir)
    except TargetError:
        if config.reload.enabled:
            return ""
        raise


def explain_config(config: Config) -> str:
    """A table of every option, its value, and where the value came from; then what a manager has given."""
    from devserver.managers import given

    unused = given.unused(config.bind, os.environ, os.getpid())
    rows = [("option", "value", "source")]
    rows += [
        (known.flag, known.show(config.value(name)), config.sources[name] + ", not used" * (name in unused))
        for name, known in OPTIONS.items()
    ]
    wide, wider = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{flag:{wide}}  {value:{wider}}  {source}" for flag, value, source in rows]
    lines += ["", f"pyproject.toml: {config.file or 'none found'}"]
    lines += [f"companion {each.name}: {each.lines()}" for each in config.programs]
    return "\n".join([*lines, *given.lines(config.bind, os.environ, os.getpid())])
