"""The one rule behind --reload-dir, --reload-include and --reload-exclude."""

import pytest

from devserver.watching.rules import Counts, Rules, temporary

ROOT = "/home/u/project"
READ, ALWAYS, NEVER = Counts.READ, Counts.ALWAYS, Counts.NEVER


def rules(
    dirs: tuple[str, ...] = (),
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    environments: tuple[str, ...] = (),
    root: str = ROOT,
) -> Rules:
    return Rules(dirs, include, exclude, root, environments)


def kind(made: Rules, path: str, folder: bool = False) -> Counts:
    return made.verdict(path if path.startswith("/") else f"{ROOT}/{path}", folder).kind


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("app.py", READ),
        ("templates/page.html", READ),
        (".env", READ),
        ("/opt/data.json", READ),
        ("/opt/lib/__pycache__/a.pyc", NEVER),
        ("/opt/node_modules/sibling/a.py", READ),
        (".git/HEAD", NEVER),
        ("sub/.git", NEVER),
        ("sub/.hg/store/a.py", NEVER),
        ("pkg/__pycache__/a.cpython-311.pyc", NEVER),
        ("a.pyc", NEVER),
        ("front/node_modules/x/index.js", NEVER),
        ("lib/python3.12/site-packages/x.py", NEVER),
        (".app.py.swp", NEVER),
        ("4913", NEVER),
        ("app.py___jb_tmp___", NEVER),
        ("gitignore", READ),
        ("nodes_modules/a.py", READ),
        ("bin/a.py", READ),
    ],
)
def test_without_options(path: str, expected: Counts) -> None:
    assert kind(rules(), path) is expected


PATTERNS = [
    # pattern, what it matches, what it does not
    ("*.txt", ["a.txt", "deep/er/a.txt", "x.txt/inside"], ["a.txt.py", "txt"]),
    ("data", ["data", "data/a", "deep/data/a/b"], ["mydata", "data.json"]),
    ("data/", ["data/a", "deep/data/a"], ["data", "deep/data"]),
    ("/data", ["data", "data/a"], ["deep/data/a"]),
    ("conf/*.ini", ["conf/a.ini"], ["deep/conf/a.ini", "conf/deep/a.ini"]),
    ("**/conf/*.ini", ["conf/a.ini", "deep/er/conf/a.ini"], ["conf/deep/a.ini"]),
    ("conf/**", ["conf/a", "conf/deep/a"], ["conf", "deep/conf/a"]),
    ("conf/**/a", ["conf/a", "conf/x/a", "conf/x/y/a"], ["conf/xa", "a"]),
    ("a?c", ["abc", "deep/abc"], ["ac", "abbc"]),
    ("[a-c]x", ["ax", "deep/cx"], ["dx", "x"]),
    ("[!a-c]x", ["dx"], ["ax"]),
    ("[^a-c]x", ["dx"], ["ax"]),
    ("[]-]x", ["]x", "-x"], ["ax"]),
    ("[[]x", ["[x"], ["x"]),
    ("[id]/page.html", ["[id]/page.html", "i/page.html"], ["id/page.html"]),
    ("[z-a]", ["[z-a]"], ["z"]),
    ("a[b", ["a[b"], ["ab"]),
    (r"\*", ["*"], ["a"]),
    (r"\!important", ["!important"], ["important"]),
    ("a.b+c(d)", ["a.b+c(d)"], ["aXb+c(d)", "a.bbc(d)"]),
    ("a\nb", ["a\nb"], ["a"]),
    ("src/app.json", ["src/app.json"], ["app.json", "deep/src/app.json"]),
    ("./app.json", ["app.json"], ["deep/app.json", "/app.json"]),
    (".", ["app.json", "deep/a"], ["/home/u/other"]),
    ("../common", ["/home/u/common/a"], ["common/a", "/home/common/a"]),
    ("../../*.json", ["/home/a.json"], ["a.json", "/home/u/a.json"]),
    ("/etc/app/*.toml", ["/etc/app/a.toml", "etc/app/a.toml"], ["/etc/a.toml"]),
    (f"{ROOT}/data", ["data/a"], ["deep/data/a"]),
    ("/srv/data", ["/srv/data/deep/a"], ["/srv/a"]),
]


@pytest.mark.parametrize(("pattern", "matched", "others"), PATTERNS, ids=[case[0] for case in PATTERNS])
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_patterns(option: str, pattern: str, matched: list[str], others: list[str]) -> None:
    made = rules(include=(pattern,)) if option == "include" else rules(exclude=(pattern,))
    expected = ALWAYS if option == "include" else NEVER
    assert {path: kind(made, path) for path in matched} == dict.fromkeys(matched, expected)
    assert {path: kind(made, path) for path in others} == dict.fromkeys(others, READ)


def test_a_pattern_for_folders_matches_a_folder() -> None:
    made = rules(include=("data/",))
    assert kind(made, "data", folder=True) is ALWAYS
    assert kind(made, "data") is READ


def test_the_last_pattern_of_an_option_wins() -> None:
    made = rules(exclude=("*.txt", "!keep.txt", "old/keep.txt"))
    assert kind(made, "a.txt") is NEVER
    assert kind(made, "keep.txt") is READ
    assert kind(made, "old/keep.txt") is NEVER


def test_a_negation_takes_back_only_its_own_option() -> None:
    made = rules(include=("data", "!data/*.log"), exclude=("!data/a.txt", "secret", "!data/secret"))
    assert kind(made, "data/a.txt") is ALWAYS
    assert kind(made, "data/a.log") is READ
    assert kind(made, "data/secret") is ALWAYS
    assert kind(made, "secret") is NEVER


def test_deeper_beats_higher_and_exclude_beats_include() -> None:
    made = rules(include=("data", "build/keep.json"), exclude=("data/tmp", "data", "build", "*.bak"))
    assert kind(made, "data/a") is NEVER, "the same place"
    assert kind(made, "build/a") is NEVER
    assert kind(made, "build/keep.json") is ALWAYS
    made = rules(include=("data",), exclude=("data/tmp", "*.bak"))
    assert kind(made, "data/a") is ALWAYS
    assert kind(made, "data/a.bak") is NEVER
    assert kind(made, "data/tmp/a") is NEVER


def test_a_name_does_not_reach_into_what_is_out() -> None:
    made = rules(include=("*.py", "**/*.txt"), exclude=("build",), environments=(f"{ROOT}/.venv",))
    for path in ("build/a.py", "build/a.txt", ".venv/lib/a.py", "node_modules/a.py", ".git/a.txt"):
        assert kind(made, path) is NEVER, path


def test_what_is_out_comes_back_by_its_own_name() -> None:
    wild = rules(include=("*", "data/*", "node_modules/*/*.js"))
    assert kind(wild, ".git/config") is NEVER
    assert kind(wild, "data/a.tmp") is NEVER
    assert kind(wild, "a.pyc") is NEVER
    assert kind(wild, "node_modules/mine/a.js") is ALWAYS
    assert kind(wild, "node_modules/mine/a.css") is NEVER
    named = rules(include=("*.tmp", "node_modules/mine", "4913", ".venv"), environments=(f"{ROOT}/.venv",))
    assert kind(named, "a.tmp") is ALWAYS
    assert kind(named, "a~") is NEVER
    assert kind(named, "4913") is ALWAYS
    assert kind(named, "node_modules/mine/a.js") is ALWAYS
    assert kind(named, "node_modules/other/a.js") is NEVER
    assert kind(named, "node_modules/mine/.git/config") is NEVER
    assert kind(named, ".venv/lib/a.py") is ALWAYS


def test_a_reload_dir_covers_its_python_files() -> None:
    made = rules(dirs=("src", "/opt/lib"), exclude=("gen", "/build"))
    assert kind(made, "src/deep/a.py") is ALWAYS
    assert kind(made, "/opt/lib/a.py") is ALWAYS
    assert kind(made, "src/a.html") is READ
    assert kind(made, "a.py") is READ
    assert kind(made, "src/gen/a.py") is NEVER
    assert kind(made, "src/build/a.py") is NEVER, "anchored to each --reload-dir"
    assert kind(made, "/opt/lib/build/a.py") is NEVER
    assert kind(made, "src/deep/build/a.py") is ALWAYS
    assert kind(made, "src/.#a.py") is NEVER
    assert kind(made, "/opt/lib/.tox/a.py") is NEVER


def test_a_reload_dir_inside_what_is_out_was_named() -> None:
    made = rules(dirs=(".venv/src/mine",), environments=(f"{ROOT}/.venv",))
    assert kind(made, ".venv/src/mine/a.py") is ALWAYS
    assert kind(made, ".venv/src/other/a.py") is NEVER


@pytest.mark.parametrize("root", ["/home/u/node_modules/.git/x.tmp", "/", "/build"])
def test_what_folders_above_the_project_are_called_says_nothing(root: str) -> None:
    made = rules(dirs=("src",), exclude=("build",), root=root)
    assert kind(made, f"{root.rstrip('/')}/a.py") is READ
    assert kind(made, f"{root.rstrip('/')}/src/a.py") is ALWAYS
    assert kind(made, f"{root.rstrip('/')}/build/a.py") is NEVER


def test_a_project_inside_a_reload_dir() -> None:
    made = rules(dirs=("/home/u",), root="/home/u/.tox/project")
    assert kind(made, "/home/u/.tox/project/a.py") is ALWAYS
    assert kind(made, "/home/u/.tox/a.py") is NEVER


def test_a_project_that_is_its_own_virtual_environment() -> None:
    made = rules(dirs=(".",), environments=(ROOT,))
    assert kind(made, "app.py") is ALWAYS
    assert kind(made, "lib/python3.12/site-packages/x.py") is NEVER


def test_an_environment_outside_and_one_learned_later() -> None:
    made = rules(environments=("/opt/venv",))
    assert kind(made, "/opt/venv/lib/x.py") is NEVER
    assert kind(made, "env/lib/x.py") is READ
    made.add_environment(f"{ROOT}/env")
    made.add_environment("/opt/other")
    assert kind(made, "env/lib/x.py") is NEVER
    assert kind(made, "/opt/other/lib/x.py") is NEVER


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("other.txt", "only what was read counts"),
        ("src/a.py", f"--reload-dir {ROOT}/src: *.py"),
        ("a.json", "--reload-include *.json"),
        ("build/a.json", "--reload-exclude build/"),
        (".git/HEAD", "always out: .git"),
        ("a.py~", "always out: *~"),
        ("venv/a", f"virtual environment: {ROOT}/venv"),
    ],
)
def test_the_rule_that_decided_is_named(path: str, rule: str) -> None:
    made = rules(("src",), ("*.json",), ("build/",), (f"{ROOT}/venv",))
    assert made.verdict(f"{ROOT}/{path}").rule == rule


def test_trees() -> None:
    assert rules().trees() == []
    assert rules(exclude=("*.txt", "/a")).trees() == []
    assert rules(("src", "/opt/lib")).trees() == [f"{ROOT}/src", "/opt/lib"]
    assert rules(include=("*.json",)).trees() == [ROOT]
    assert rules(("src",), ("*.json",)).trees() == [ROOT, f"{ROOT}/src"]
    assert rules(include=("conf/*.ini", "!conf/x.ini")).trees() == [f"{ROOT}/conf"]
    assert rules(include=("../common/**/a",)).trees() == ["/home/u/common"]
    assert rules(include=("/etc/app.toml",)).trees() == ["/etc/app.toml", f"{ROOT}/etc/app.toml"]


def test_closed_folders() -> None:
    made = rules(("src",), ("node_modules/mine/**/*.js",), ("build", "!build/keep/a"))
    for path in (".git", "src/__pycache__", "node_modules/other", "node_modules/mine/.git", "build/x"):
        assert made.closed(f"{ROOT}/{path}"), path
    for path in ("src", "node_modules", "node_modules/mine/deep", "build", "build/keep"):
        assert not made.closed(f"{ROOT}/{path}"), path


@pytest.mark.parametrize(
    "name",
    [
        *("app.py~", ".app.py.swp", ".app.py.swx", "4913", ".#app.py", "#app.py#", "cache.json.tmp"),
        *("app.py___jb_tmp___", "app.py___jb_old___", ".goutputstream-9X2K31", ".subl3f.tmp"),
    ],
)
def test_temporary_names(name: str) -> None:
    assert temporary(name)


@pytest.mark.parametrize("name", ["app.py", "swp", ".swp", "a.swp", "49130", "#a", "tmp", ".env", "a~b"])
def test_other_names(name: str) -> None:
    assert not temporary(name)
