"""Finding the application of a project without importing it."""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from devserver.discovery import discover, is_there, near
from devserver.errors import TargetError

Write = Callable[[dict[str, str]], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files and return their folder."""

    def write(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    "source",
    [
        "app = Flask()",
        "app: Flask = Flask()",
        "def app(environ, start_response): ...",
        "async def app(scope, receive, send): ...",
        "from shop import create as app",
        "from shop import app",
        "import shop.wsgi as app",
        "other = app = Flask()",
        "app, api = Flask(), Flask()",
        "if DEBUG:\n    app = Debugged()\nelse:\n    pass",
        "if DEBUG:\n    pass\nelse:\n    app = Flask()",
        "try:\n    from fast import app\nexcept ImportError:\n    pass",
        "try:\n    pass\nexcept ImportError:\n    app = Flask()",
        "with settings():\n    app = Flask()",
        "if __name__ == '__main__':\n    pass\nelse:\n    app = Flask()",
    ],
)
def test_what_binds_a_name(write: Write, source: str) -> None:
    assert discover(write({"main.py": source})) == "main:app"


@pytest.mark.parametrize(
    "source",
    [
        "app = None",
        "app: Flask",
        "app: Flask | None = None",
        "class app: ...",
        "import app",
        "def make():\n    app = Flask()",
        "other.app = Flask()",
        "apps['app'] = Flask()",
        "for app in apps: ...",
        "if __name__ == '__main__':\n    app = Flask()",
        "if TYPE_CHECKING:\n    from shop import app",
        "# app = Flask()",
    ],
)
def test_what_does_not(write: Write, source: str) -> None:
    with pytest.raises(TargetError, match="no application found"):
        discover(write({"main.py": source}))


def test_application_is_preferred(write: Write) -> None:
    assert discover(write({"main.py": "app = 1 + 1\napplication = app"})) == "main:application"


def test_modules_in_order(write: Write) -> None:
    sources = {f"{name}.py": "app = Flask()" for name in ("asgi", "wsgi", "app")}
    assert discover(write(sources)) == "app:app"
    assert discover(write({"main.py": "print()"})) == "app:app"


def test_one_package_down(write: Write) -> None:
    folder = write(
        {
            "main.py": "",
            "zoo/__init__.py": "",
            "zoo/main.py": "app = Flask()",
            "shop/__init__.py": "",
            "shop/wsgi.py": "application = Flask()",
            "plain/main.py": "app = Flask()",
        }
    )
    assert discover(folder) == "shop.wsgi:application"


def test_a_package_of_that_name(write: Write) -> None:
    assert (
        discover(write({"app/__init__.py": "app = Flask()", "app.py": "application = Flask()"})) == "app:app"
    )


def test_nothing_is_imported(write: Write) -> None:
    assert discover(write({"main.py": "app = 1 / 0"})) == "main:app"


def test_names_and_text_that_are_not_ascii(write: Write) -> None:
    assert (
        discover(write({"größe/__init__.py": "", "größe/main.py": "# ä\napp = Flask()"})) == "größe.main:app"
    )


def test_a_broken_file_is_taken_so_that_its_error_is_shown(write: Write) -> None:
    assert discover(write({"main.py": "app = Flask(", "wsgi.py": "app = Flask()"})) == "main"


def test_a_broken_file_without_the_name_is_the_last_choice(write: Write) -> None:
    folder = write({"main.py": "print 'Python 2'"})
    assert discover(folder) == "main"
    assert discover(write({"wsgi.py": "app = Flask()"})) == "wsgi:app"


def test_null_characters_are_a_broken_file(write: Write) -> None:
    assert discover(write({"main.py": "app = 3\0"})) == "main"


def test_warnings_of_the_compiler_do_not_appear(write: Write) -> None:
    # Warnings are errors in this test run.
    assert discover(write({"main.py": "x = '\\d'\napp = Flask()"})) == "main:app"


def test_nothing_found_names_what_was_looked_for(write: Write) -> None:
    with pytest.raises(TargetError) as caught:
        discover(write({"notes.txt": ""}))
    text = str(caught.value)
    assert "`application` and `app` in main.py, app.py, wsgi.py, asgi.py" in text
    assert "devserver module:attribute" in text


def test_nothing_found_suggests_commands(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(
        {
            "server.py": "app = FastAPI()",
            "shop/__init__.py": "def create_app(): ...\ndef _private_app(): ...",
            "shop/factories.py": "def make_app(config=None): ...\ndef needs_app(config): ...",
            "shop/broken.py": "(",
        }
    )
    monkeypatch.chdir(folder)
    with pytest.raises(TargetError) as caught:
        discover(folder)
    commands = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert commands == [
        "devserver server:app",
        "devserver shop:create_app --factory",
        "devserver shop.factories:make_app --factory",
    ]
    monkeypatch.chdir("/")
    with pytest.raises(TargetError, match=f"devserver server:app --app-dir {folder}"):
        discover(folder)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(TargetError, match="no application found in /nowhere/at/all"):
        discover("/nowhere/at/all")


def test_near() -> None:
    assert near("mian", ["main", "other"]) == "; did you mean 'main'?"
    assert near("xyz", ["main"]) == ""


@pytest.mark.parametrize(
    ("target", "there"),
    [
        ("shop", True),
        ("shop:app", True),
        ("shop.views:app", True),
        ("shop.py:app", True),
        ("./shop", True),
        ("json:loads", True),
        ("sys", True),
        ("edited.main:app", True),
        ("gone", False),
        ("gone.py", False),
        ("sub/gone:app", False),
        (r"C:\\gone\\app.py:app", False),
    ],
)
def test_whether_a_target_is_there_is_told_without_importing(
    write: Write, monkeypatch: pytest.MonkeyPatch, target: str, there: bool
) -> None:
    class Finder:
        """As setuptools puts one in for a package that is installed to be edited."""

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            return ModuleSpec(name, None) if name == "edited" else None

    folder = write({"shop.py": "raise SystemExit('it was imported')"})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert is_there(target, folder) is there
