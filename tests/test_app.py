"""From what the user typed to an application: targets, imports, attributes, factories."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devserver.app import Target, load, parse
from devserver.config import App
from devserver.errors import TargetError

pytestmark = pytest.mark.interpreter

Write = Callable[[dict[str, str]], str]

WSGI = "def app(environ, start_response): ...\n"


@pytest.fixture(autouse=True)
def _own_imports(tmp_path: Path) -> Iterator[None]:
    """Take back what a test does to `sys.path`, and the modules that it wrote."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


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


def section(folder: str, target: object = None, **options: object) -> App:
    return App(target=target, app_dir=folder, **options)  # type: ignore[arg-type]


# --- parse ---


@pytest.mark.parametrize(
    ("text", "module", "attribute"),
    [
        ("shop", "shop", None),
        ("shop:app", "shop", "app"),
        ("shop.web.main:apps.public", "shop.web.main", "apps.public"),
        ("größe:ап", "größe", "ап"),
        ("c:app", "c", "app"),
    ],
)
def test_modules(text: str, module: str, attribute: str | None) -> None:
    assert parse(text, "/srv") == Target(module, attribute, "/srv")


@pytest.mark.parametrize(
    "text", ["main.py", "main.py:app", "./main.py", "main.pyw", "{folder}/main.py", "./main"]
)
def test_files_outside_of_packages(write: Write, text: str) -> None:
    folder = write({"main.py": "", "main.pyw": ""})
    target = parse(text.format(folder=folder), folder)
    assert (target.module, target.folder) == ("main", folder)
    assert target.attribute == ("app" if ":" in text else None)
    assert target.file == os.path.join(folder, "main.pyw" if text.endswith("w") else "main.py")


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("src/shop/web/main.py", "shop.web.main"),
        ("src/shop/web/__init__.py", "shop.web"),
        ("src/shop/web", "shop.web"),
        ("src/shop/__init__.py:app", "shop"),
    ],
)
def test_files_inside_packages(write: Write, text: str, module: str) -> None:
    folder = write({f"src/shop/{name}": "" for name in ("__init__.py", "web/__init__.py", "web/main.py")})
    target = parse(text, folder)
    assert (target.module, target.folder) == (module, os.path.join(folder, "src"))


def test_a_folder_that_cannot_be_a_package_ends_the_climb(write: Write) -> None:
    folder = write({"my-shop/__init__.py": "", "my-shop/main.py": ""})
    assert parse("my-shop/main.py", folder).folder == os.path.join(folder, "my-shop")
    assert parse("my-shop/__init__.py", folder).module == "__init__"


def test_paths_are_looked_for_in_the_working_directory_too(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write({"here/main.py": "", "there/other.py": "", "there/main.py": ""})
    monkeypatch.chdir(os.path.join(folder, "here"))
    assert parse("main.py", os.path.join(folder, "there")).folder == os.path.join(folder, "there")
    os.remove(os.path.join(folder, "there", "main.py"))
    assert parse("main.py", os.path.join(folder, "there")).folder == os.path.join(folder, "here")


@pytest.mark.skipif(sys.platform == "win32", reason="a name with a colon")
@pytest.mark.parametrize("attribute", [None, "app"])
def test_the_colon_of_a_drive_separates_nothing(write: Write, attribute: str | None) -> None:
    # On POSIX this is one long name of a file; what matters is where it is split.
    folder = write({"C:\\shop\\main.py": ""})
    target = parse("C:\\shop\\main.py" + (f":{attribute}" if attribute else ""), folder)
    assert (target.attribute, target.file) == (attribute, os.path.join(folder, "C:\\shop\\main.py"))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "write module:attribute or path/to/file.py:attribute"),
        (":app", "write module:attribute"),
        ("shop:", "is not a valid attribute name; write module:attribute"),
        ("shop:two words", "is not a valid attribute name"),
        ("shop..web:app", "write module:attribute"),
        (".shop:app", "write module:attribute"),
        ("shop:create_app()", "without parentheses: shop:create_app --factory"),
        ("mian.py:app", r"no file .*mian\.py; did you mean 'main\.py'\?"),
        ("none/at/all.py", "no file .*all.py$"),
        ("./plain", "is a folder; .*--app-dir ./plain"),
        (".", "is a folder"),
        ("two.dots.py", "rename it"),
    ],
)
def test_no_targets(write: Write, text: str, remedy: str) -> None:
    folder = write({"main.py": "", "plain/other.py": "", "two.dots.py": ""})
    with pytest.raises(TargetError, match=remedy):
        parse(text, folder)


# --- load ---


def test_a_module(write: Write) -> None:
    folder = write({"shop_a.py": WSGI})
    found = load(section(folder, "shop_a:app"))
    assert (found.interface, found.name) == ("wsgi", "shop_a:app")
    assert found.callable is sys.modules["shop_a"].app
    assert sys.path[0] == folder


def test_relative_imports_work_in_a_file_inside_packages(write: Write) -> None:
    folder = write(
        {
            "src/shop_b/__init__.py": "",
            "src/shop_b/main.py": "from .web import app",
            "src/shop_b/web.py": WSGI,
        }
    )
    assert load(section(folder, "src/shop_b/main.py")).name == "shop_b.main:app"
    assert sys.path[:2] == [os.path.join(folder, "src"), folder]


def test_spaces_and_letters_that_are_not_ascii(write: Write) -> None:
    folder = write({"my größe/my läden.py": WSGI})
    assert load(section(folder, "my größe/my läden.py:app")).name == "my läden:app"


def test_the_path_grows_once(write: Write) -> None:
    folder = write({"shop_c.py": WSGI})
    sys.path.append(folder)
    load(section(folder, "shop_c"))
    load(section(folder, "shop_c"))
    assert sys.path.count(folder) == 1
    assert sys.path[0] == folder


def test_no_target_is_discovered(write: Write) -> None:
    folder = write({"wsgi.py": WSGI})
    assert load(section(folder)).name == "wsgi:app"


def test_an_application_itself() -> None:
    def own(environ, start_response): ...

    class Shop:
        async def __call__(self, scope, receive, send): ...

    shop = Shop()
    assert load(section("/", own)).callable is own
    found = load(section("/", shop))
    assert (found.callable, found.interface) == (shop, "asgi3")
    assert found.name.startswith("the ")
    assert found.name.endswith("Shop object")


def test_the_default_attribute(write: Write) -> None:
    folder = write(
        {
            "shop_d.py": WSGI + "application = lambda environ, start_response: []",
            "shop_e/__init__.py": "from . import app\napplication = None\napp = app.app",
            "shop_e/app.py": WSGI,
        }
    )
    assert load(section(folder, "shop_d")).name == "shop_d:application"
    assert load(section(folder, "shop_e")).name == "shop_e:app"


def test_dotted_attributes(write: Write) -> None:
    folder = write({"shop_f.py": f"class Apps:\n    @staticmethod\n    {WSGI}\nsite = Apps()"})
    assert load(section(folder, "shop_f:site.app")).interface == "wsgi"


def test_the_interface_that_is_given(write: Write) -> None:
    folder = write({"shop_g.py": "def app(*args): ..."})
    assert load(section(folder, "shop_g", interface="asgi2")).interface == "asgi2"


def test_an_unknown_module(write: Write) -> None:
    folder = write({"main.py": "", "src/hidden.py": "", "pack_a/__init__.py": "", "pack_a/web.py": ""})
    for target, remedy in {
        "mian": "no module 'mian' in .*; did you mean 'main'",
        "hidden:app": "there is one in src: add --app-dir src",
        "nothing_like_it": "no module 'nothing_like_it' in [^;]*$",
        "pack_a.wep": "no module 'pack_a.wep' in .*; did you mean 'web'",
        "pack_b.web": "no module 'pack_b.web' in",
        "pack_a.web.deeper": "no module 'pack_a.web.deeper'",
    }.items():
        with pytest.raises(TargetError, match=remedy):
            load(section(folder, target))


@pytest.mark.parametrize(
    "source",
    [
        "import no_such_module",
        "from . import no_such_module",
        "import shop_h.main.x",
        "1 / 0",
        "raise SystemExit(3)",
    ],
)
def test_errors_of_the_users_code_pass_through(write: Write, source: str) -> None:
    folder = write({"shop_h/__init__.py": "", "shop_h/main.py": source})
    with pytest.raises((ImportError, ZeroDivisionError, SystemExit)):
        load(section(folder, "shop_h.main:app"))


def test_a_missing_module_of_the_same_name_is_the_users_when_his_code_imports_it(write: Write) -> None:
    folder = write({"shop_i/__init__.py": "import shop_i.main"})
    with pytest.raises(ModuleNotFoundError, match=r"shop_i\.main"):
        load(section(folder, "shop_i.main"))


def test_a_syntax_error_passes_through(write: Write) -> None:
    folder = write({"shop_j.py": "app = ("})
    with pytest.raises(SyntaxError):
        load(section(folder, "shop_j"))


def test_a_file_whose_name_is_taken(write: Write) -> None:
    folder = write({"json.py": WSGI, "sys.py": WSGI})
    with pytest.raises(
        TargetError, match=r"json\.py cannot be imported: 'json' is .*__init__\.py; rename the file"
    ):
        load(section(folder, "json.py"))
    with pytest.raises(TargetError, match="'sys' is a part of Python; rename the file"):
        load(section(folder, "sys.py"))


def test_an_unknown_attribute(write: Write) -> None:
    folder = write({"shop_k.py": "class Web: ...\nweb = Web()\nweb.public = 1\napi = web"})
    for target, remedy in {
        "shop_k:appi": "shop_k has no attribute 'appi'; did you mean 'api'",
        "shop_k:web.publik": "Web has no attribute 'publik'; did you mean 'public'",
        "shop_k:zzzzz": r"shop_k has no attribute 'zzzzz' \(.*shop_k\.py\)$",
        "shop_k": "shop_k has neither `application` nor `app`",
    }.items():
        with pytest.raises(TargetError, match=remedy):
            load(section(folder, target))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("main.py", r"did you mean .*folder_m/main\.py\?"),
        ("shop.py", r"name a file in it, as in .*folder_m/NAME\.py"),
    ],
)
def test_a_folder_is_no_module(write: Write, name: str, remedy: str) -> None:
    folder = write({f"folder_m/{name}": "app = 1"})
    sys.modules.pop("folder_m", None)
    with pytest.raises(TargetError, match=f"folder_m is a folder; {remedy}"):
        load(section(folder, "folder_m"))
    sys.modules.pop("folder_m", None)


def test_no_default_attribute_suggests_what_is_there(write: Write) -> None:
    source = """
from flask import Flask, request
api = Flask(__name__)
def create_app(): ...
def helper(environ, start_response): ...
"""
    pytest.importorskip("flask")
    folder = write({"shop_l.py": source})
    with pytest.raises(TargetError) as caught:
        load(section(folder, "shop_l"))
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines == ["devserver shop_l:api", "devserver shop_l:create_app --factory"]


def test_factories(write: Write) -> None:
    source = """
def app(environ, start_response): ...
def create_app(config=None): return app
class Shop:
    async def __call__(self, scope, receive, send): ...
"""
    folder = write({"shop_m.py": source})
    found = load(section(folder, "shop_m:create_app", factory=True))
    assert (found.name, found.interface) == ("shop_m:create_app()", "wsgi")
    assert load(section(folder, "shop_m:Shop", factory=True)).interface == "asgi3"
    with pytest.raises(
        TargetError, match="shop_m:create_app is a function without arguments: looks like a factory"
    ):
        load(section(folder, "shop_m:create_app"))


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("def make(): ...", "make returned None: it must return the application"),
        ("async def make(): ...", "is async: make it a plain function"),
        ("async def _make(): ...\nmake = lambda: _make()", "returned a coroutine"),
        ("def make(): return 3", r"make\(\) is a int, which cannot be called"),
        ("def make(config): ...", r"needs arguments \(config\)"),
        ("make = 3", "not a factory"),
    ],
)
def test_factories_that_make_nothing(write: Write, source: str, remedy: str) -> None:
    folder = write({"shop_n.py": source})
    with pytest.raises(TargetError, match=remedy):
        load(section(folder, "shop_n:make", factory=True))


def test_errors_of_a_factory_pass_through(write: Write) -> None:
    folder = write({"shop_o.py": "def make(): raise KeyError('DATABASE')"})
    with pytest.raises(KeyError, match="DATABASE"):
        load(section(folder, "shop_o:make", factory=True))


def test_a_file_written_a_moment_ago_is_found(write: Write) -> None:
    folder = write({"shop_p.py": WSGI})
    load(section(folder, "shop_p"))
    before = os.stat(folder)
    write({"shop_q.py": WSGI})
    # As on a file system with coarse times: the folder does not look changed.
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(section(folder, "shop_q")).name == "shop_q:app"
