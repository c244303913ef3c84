"""Ways to save and places to work in: each save restarts once, and the next request has the new code."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, WSGI, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

QUICK = ("--reload", "--reload-grace", "0.2")


# Editors. Each gets the path and the new text; what it leaves behind lies there at the next save.


def run_vim(path: Path, text: str, *settings: str) -> None:
    """The real one, with its swap file, which it makes when it changes a buffer."""
    source = path.parent.parent / "new-text"
    source.write_text(text)
    commands = [*settings, f"call setline(1, readfile('{source}'))", "preserve", "write", "quit"]
    arguments = [part for command in commands for part in ("-c", command)]
    environment = {**os.environ, "TERM": "dumb"}
    subprocess.run(
        ["vim", "-Nu", "NONE", "-es", "-c", "set swapfile updatecount=1", *arguments, path.name],
        cwd=path.parent,
        env=environment,
        check=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


def vim(path: Path, text: str) -> None:
    """As it is: it tries with `4913` whether it may make files, moves the old text aside, writes anew."""
    run_vim(path, text, "set backup writebackup backupcopy=no backupdir=.")


def vim_copying(path: Path, text: str) -> None:
    """With a copy as backup, and the new text over the old."""
    run_vim(path, text, "set backup writebackup backupcopy=yes backupdir=.")


def jetbrains(path: Path, text: str) -> None:
    """PyCharm's "safe write"."""
    new = path.with_name(f"{path.name}___jb_tmp___")
    old = path.with_name(f"{path.name}___jb_old___")
    new.write_text(text)
    path.rename(old)
    new.rename(path)
    old.unlink()


def vscode(path: Path, text: str) -> None:
    """In place: emptied, then written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)
    os.close(descriptor)


def emacs(path: Path, text: str) -> None:
    """A lock (a link that leads nowhere), an automatic save, a backup that stays."""
    lock, automatic = path.with_name(f".#{path.name}"), path.with_name(f"#{path.name}#")
    lock.symlink_to("user@host.1234:1700000000")
    automatic.write_text(text)
    path.rename(path.with_name(f"{path.name}~"))
    path.write_text(text)
    automatic.unlink()
    lock.unlink()


def gedit(path: Path, text: str) -> None:
    """GLib: beside it, then over it."""
    beside = path.with_name(".goutputstream-A1B2C3")
    beside.write_text(text)
    beside.rename(path)


def sublime(path: Path, text: str) -> None:
    """Its atomic save."""
    beside = path.with_name(".subl1a2.tmp")
    beside.write_text(text)
    os.replace(beside, path)


def sed(path: Path, text: str) -> None:
    """`sed -i`: a name that no rule knows."""
    subprocess.run(["sed", "-i", f"1s/.*/{text.splitlines()[0]}/", path], check=True, timeout=DEADLINE)


def hard_link(path: Path, text: str) -> None:
    """Removed, and linked anew."""
    beside = path.with_name("beside.tmp")
    beside.write_text(text)
    path.unlink()
    os.link(beside, path)
    beside.unlink()


EDITORS: list[Callable[[Path, str], None]] = [
    *([vim, vim_copying] if shutil.which("vim") else []),
    *(jetbrains, vscode, emacs, gedit, sublime, sed, hard_link),
]


def check_edit(server: DevServer, edit: Callable[[str], object], text: str, reason: str) -> None:
    """One restart, for the reason; and the request sent at once has the new code."""
    before = len(server.events("restart"))
    edit(text)
    assert server.get("/").text == text, reason
    assert server.restarted()["reason"] == reason
    assert len(server.events("restart")) == before + 1, reason


def saved_by(editor: Callable[[Path, str], None], path: Path, text: str) -> None:
    editor(path, answer(text))


@pytest.mark.parametrize("watcher", ["events", "polling"])
def test_editors(watcher: str, tmp_path: Path) -> None:
    """Twice each: the second time what it has left is there already."""
    folder = tmp_path / "project"
    folder.mkdir()
    path = PROJECTS["wsgi"].make(folder, "0")
    poll = ["--poll"] if watcher == "polling" else []
    with DevServer("app:application", *QUICK, *poll, cwd=folder) as server:
        server.serving()
        number = 0
        for editor in [*EDITORS, *EDITORS] if watcher == "events" else EDITORS:
            number += 1
            text = f"{number} {editor.__name__}"
            if watcher == "events":
                check_edit(server, functools.partial(saved_by, editor, path), text, "answer.py changed")
            else:
                editor(path, answer(text))
                assert server.restarted()["reason"] == "answer.py changed", text
                assert server.get("/").text == text
        assert len(server.events("restart")) == number
        assert not server.events("failed")


def test_vim_is_there() -> None:
    """Without it the test above says less than it seems to."""
    if not shutil.which("vim"):
        pytest.skip("vim is not installed")


# Links


def test_symlinks_edited_by_either_name(tmp_path: Path) -> None:
    """A linked file and folder, a link that is turned elsewhere, the project reached through a link."""
    real, other = tmp_path / "real", tmp_path / "other"
    for folder in (real, other, other / "package", tmp_path / "second"):
        folder.mkdir()
    for name in ("one", "two"):
        (other / f"{name}.py").write_text(answer("0"))
        (tmp_path / "second" / f"{name}.py").write_text(answer("turned"))
        (other / "package" / f"{name}.py").write_text(answer("0"))
    (real / "linked.py").symlink_to(other / "one.py")
    (real / "package").symlink_to(other / "package")
    (real / "app.py").write_text(
        "import linked\nimport package.one\n"
        "class answer:\n    TEXT = linked.TEXT + ' ' + package.one.TEXT\n    ask = print\n"
        + WSGI.replace("import answer", "")
    )
    link = tmp_path / "link"
    link.symlink_to(real)

    def turn(text: str) -> None:
        beside = real / "linked.tmp"
        beside.symlink_to(tmp_path / "second" / "one.py")
        beside.rename(real / "linked.py")

    def rename_over(text: str) -> None:
        (other / "package" / "one.tmp").write_text(answer(text.split()[1]))
        (other / "package" / "one.tmp").rename(other / "package" / "one.py")

    edits: list[tuple[Callable[[str], object], str, str]] = [
        (lambda text: save(real / "linked.py", answer("1")), "1 0", "linked.py"),
        (lambda text: save(other / "one.py", answer("2")), "2 0", "linked.py"),
        (lambda text: save(real / "package" / "one.py", answer("3")), "2 3", "package/one.py"),
        (lambda text: save(other / "package" / "one.py", answer("4")), "2 4", "package/one.py"),
        (rename_over, "2 5", "package/one.py"),
        (turn, "turned 5", "linked.py"),
        (lambda text: save(tmp_path / "second" / "one.py", answer("6")), "6 5", "linked.py"),
    ]
    with DevServer("app:application", *QUICK, "--app-dir", str(link), cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "0 0"
        for edit, text, name in edits:
            check_edit(server, edit, text, f"link/{name} changed")
        # The link through which the project is reached is turned, as a deployment does it.
        shutil.copytree(real, tmp_path / "release", symlinks=True)
        (tmp_path / "release" / "package").unlink()
        (tmp_path / "release" / "package").mkdir()
        (tmp_path / "release" / "package" / "one.py").write_text(answer("7"))
        (tmp_path / "new").symlink_to("release")
        (tmp_path / "new").rename(link)
        assert server.answered().text == "6 7"


# Places


@pytest.mark.parametrize("name", ["plain", "with spaces", "Größe ñ 日本 🐍", "percent%20 [x] 'q' {y}"])
def test_project_outside_the_working_directory_and_a_sibling(name: str, tmp_path: Path) -> None:
    """By `--app-dir`, with a module of a folder beside it, as an editable install puts on the path."""
    folder, sibling = tmp_path / name, tmp_path / f"{name} lib"
    sibling.mkdir()
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = PROJECTS["wsgi"].make(folder, "0")
    (sibling / "library.py").write_text("TEXT = '0'\n")
    (folder / "app.py").write_text(
        WSGI.replace("import answer", "import answer, library").replace(
            "TEXT.", "TEXT.__add__(library.TEXT)."
        )
    )
    environment = {"PYTHONPATH": str(sibling)}
    arguments = [*QUICK, "--app-dir", str(folder)]
    with DevServer("app:application", *arguments, cwd=tmp_path / "elsewhere", env=environment) as server:
        server.serving()
        check_edit(server, lambda text: save(path, answer(text[0])), "10", f"{path} changed")
        check_edit(
            server,
            lambda text: save(sibling / "library.py", f"TEXT = {text[1]!r}\n"),
            "12",
            f"{sibling / 'library.py'} changed",
        )


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_editable_install_beside_the_project(tmp_path: Path) -> None:
    """A real one, in an environment of its own that can see ours."""
    library, folder = tmp_path / "library", tmp_path / "project"
    (library / "src" / "library").mkdir(parents=True)
    folder.mkdir()
    module = library / "src" / "library" / "__init__.py"
    module.write_text("TEXT = '0'\n")
    (library / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "library"\nversion = "1"\n'
    )
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=DEADLINE)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", library], check=True, timeout=DEADLINE)
    packages = next((environment / "lib").glob("python*")) / "site-packages"
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join([*ours, str(Path(__file__).parents[2])]))
    (folder / "app.py").write_text(
        "import library\n\ndef app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [library.TEXT.encode()]\n"
    )
    with DevServer("app:app", *QUICK, cwd=folder, command=[str(python), "-m", "devserver"]) as server:
        server.serving()
        for text in "123":
            check_edit(server, lambda text: save(module, f"TEXT = {text!r}\n"), text, f"{module} changed")


def test_namespace_package(tmp_path: Path) -> None:
    """In two places; a third that comes first, and an `__init__` that makes an end of the namespace."""
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
    for place, name in (("b", "first"), ("c", "second")):
        (tmp_path / place / "space").mkdir()
        (tmp_path / place / "space" / f"{name}.py").write_text("TEXT = '0'\n")
    (tmp_path / "app.py").write_text(
        "from space import first, second\n"
        "class answer:\n    TEXT = first.TEXT + second.TEXT\n    ask = print\n"
        + WSGI.replace("import answer", "")
    )
    environment = {"PYTHONPATH": os.pathsep.join(str(tmp_path / place) for place in "abc")}
    with DevServer("app:application", *QUICK, cwd=tmp_path, env=environment) as server:
        server.serving()
        first, second = tmp_path / "b" / "space" / "first.py", tmp_path / "c" / "space" / "second.py"
        check_edit(server, lambda text: save(first, "TEXT = '1'\n"), "10", "b/space/first.py changed")
        check_edit(server, lambda text: save(second, "TEXT = '2'\n"), "12", "c/space/second.py changed")
        beside = tmp_path / "beside"
        beside.mkdir()
        (beside / "first.py").write_text("TEXT = '3'\n")
        check_edit(server, lambda text: beside.rename(tmp_path / "a" / "space"), "32", "a/space changed")
        save(tmp_path / "a" / "space" / "__init__.py", "")
        assert server.restarted_or_failed() == "failed"
        assert "second" in server.get("/").text
        (tmp_path / "a" / "space" / "__init__.py").unlink()
        assert server.answered().text == "32"


# Root reads everything, unless it has given that up.
UNPRIVILEGED = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """One that may not be read."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "inside.py").touch()
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("watcher", ["events", "polling"])
def test_folder_without_permission(watcher: str, closed_folder: Path, tmp_path: Path) -> None:
    """In the project, on the search path, below a `--reload-dir`, and asked for by the application."""
    path = PROJECTS["wsgi"].make(tmp_path)
    with (tmp_path / "app.py").open("a") as file:
        file.write("import os\ntry:\n    os.listdir('closed')\n")
        file.write("except PermissionError:\n    print('closed indeed')\n")
    arguments = [*QUICK, "--reload-dir", ".", *(["--poll"] if watcher == "polling" else [])]
    command = [sys.executable, "-c", UNPRIVILEGED, sys.executable, "-m", "devserver"]
    environment = {"PYTHONPATH": str(closed_folder)}
    with DevServer("app:application", *arguments, cwd=tmp_path, command=command, env=environment) as server:
        server.serving()
        assert "closed indeed" in server.log
        save(path, answer("two"))
        assert server.restarted()["reason"] == "answer.py changed"
        assert server.get("/").text == "two"
        assert "Traceback" not in server.log
        assert len(server.events("restart")) == 1


# Another user as far as the kernel counts watches.
FEW_WATCHES = 'echo "$0" >/proc/sys/user/max_inotify_watches && exec "$@"'


def few_watches(count: int) -> list[str]:
    """The beginning of a command line that is allowed so many inotify watches; empty if that cannot be."""
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c", FEW_WATCHES, str(count)]
    try:
        done = subprocess.run([*unshare, "true"], capture_output=True, timeout=DEADLINE, check=False)
    except OSError:
        return []
    return unshare if done.returncode == 0 else []


@pytest.mark.parametrize("count", [0, 3])
def test_inotify_watches_exhausted(count: int, tmp_path: Path) -> None:
    """None at all, and some but not enough: said once, and every save is noticed all the same."""
    unshare = few_watches(count)
    if not unshare:
        pytest.skip("a user namespace with a limit of its own cannot be made here")
    source = ["import answer"]
    for number in range(3):
        (tmp_path / f"package{number}").mkdir()
        (tmp_path / f"package{number}" / "part.py").write_text("TEXT = ' '\n")
        source.append(f"import package{number}.part")
    path = PROJECTS["wsgi"].make(tmp_path, "0")
    (tmp_path / "app.py").write_text("\n".join(source) + WSGI)
    command = [*unshare, sys.executable, "-m", "devserver"]
    with DevServer("app:application", *QUICK, cwd=tmp_path, command=command) as server:
        server.serving()
        for number in range(3):
            save(tmp_path / f"package{number}" / "part.py", f"TEXT = '{number}'\n")
            assert server.restarted()["reason"] == f"package{number}/part.py changed"
        save(path, answer("two"))
        assert server.restarted()["reason"] == "answer.py changed"
        assert server.get("/").text == "two"
        assert server.stop() == 0
        assert server.log.count("warning") == 1, server.log
        assert "polling" in server.log
