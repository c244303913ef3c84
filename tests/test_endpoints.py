"""The gate before the server's own pages, walked for every row of the table. No server is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from devserver.devtools.endpoints import ENDPOINTS, HEADERS, PREFIX, gate
from tests.strangers import STRANGERS, request

ROWS = {path.decode(): endpoint.method for path, endpoint in ENDPOINTS.items()}


@pytest.mark.parametrize("path", ROWS)
def test_every_endpoint_is_below_the_prefix(path: str) -> None:
    assert path.encode().startswith(PREFIX)


@pytest.mark.parametrize("path", ROWS)
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "foo.localhost:8000", "127.0.0.1:1", "[::1]:2", "10.1.2.3"]
)
def test_the_developer_is_answered(path: str, host: str) -> None:
    assert gate(request(path=path, method=ROWS[path], host=host), ENDPOINTS) is None


@pytest.mark.parametrize("path", [*ROWS, "/__devserver__/", "/__devserver__/nothing"])
@pytest.mark.parametrize("who", STRANGERS)
def test_a_stranger_is_not(path: str, who: str) -> None:
    """Nor told which pages there are."""
    asked = request(path=path, method=ROWS.get(path, "GET"))
    given = {name.lower().encode(): value.encode() for name, value in STRANGERS[who].items()}
    asked.headers = [*((name, value) for name, value in asked.headers if name not in given), *given.items()]
    refusal = gate(asked, ENDPOINTS)
    assert refusal is not None
    assert refusal[0] == 403
    assert "/" not in refusal[1]


@pytest.mark.parametrize("path", ROWS)
@pytest.mark.parametrize("address", ["203.0.113.5", "10.0.0.1", "fe80::1%eth0"])
def test_another_machine_is_not(path: str, address: str) -> None:
    refusal = gate(request((address, 50000), path=path, method=ROWS[path]), ENDPOINTS)
    assert refusal is not None
    assert refusal[0] == 403


@pytest.mark.parametrize("path", ROWS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "ANYTHING"])
def test_only_the_method_of_an_endpoint_is_answered(path: str, method: str) -> None:
    """What changes something is never done by a GET, and a preflight gets no leave."""
    refusal = gate(request(path=path, method=method), ENDPOINTS)
    answered = method == ROWS[path] or (method, ROWS[path]) == ("HEAD", "GET")
    assert (refusal is None) is answered
    if refusal is not None:
        assert refusal[0] == 405


@pytest.mark.parametrize(
    "rest",
    [
        "", "nothing", "failure/", "Failure", "failure%00", "failure\0", "../failure", "%2e%2e/failure",
        "/failure", "..%5cfailure", "../../etc/passwd", "@fs/etc/passwd", "failure::$DATA", "failure.",
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_does_not_exist(rest: str) -> None:
    """A path is looked up as it was sent: nothing is decoded, joined or normalised."""
    refusal = gate(request(path=f"/__devserver__/{rest}"), ENDPOINTS)
    assert refusal is not None
    assert refusal[0] == 404


def test_no_other_site_may_read_an_answer() -> None:
    names = {name.lower() for name, _ in HEADERS}
    assert not any(name.startswith(b"access-control-") for name in names)
    assert dict(HEADERS)[b"Cross-Origin-Resource-Policy"] == b"same-origin"
    assert dict(HEADERS)[b"X-Content-Type-Options"] == b"nosniff"


def test_a_plain_run_does_not_have_them() -> None:
    """Not even as modules."""
    program = (
        "import sys, asyncio, devserver.cli, devserver.launch, devserver.alone, devserver.serve_context;"
        "import devserver.server, devserver.gateway.wsgi, devserver.embedded;"
        "print([name for name in sys.modules if name.startswith('devserver.devtools')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
