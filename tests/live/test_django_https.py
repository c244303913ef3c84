"""`manage.py runserver` over HTTPS: Django believes it, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.live.polls import make, replace, runserver

pytestmark = [pytest.mark.live, pytest.mark.django]

VIEW = """
from django.http import HttpResponse

def secure(request):
    return HttpResponse(f"{request.is_secure()} {request.build_absolute_uri()}")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The site with a view that says whether a request is secure."""
    make(tmp_path)
    (tmp_path / "mysite/secure.py").write_text(VIEW)
    urls = "from mysite.secure import secure\nurlpatterns = [\n    path('secure', secure),"
    replace(tmp_path / "mysite/urls.py", "urlpatterns = [", urls)
    return tmp_path


@pytest.mark.parametrize("arguments", [[], ["--noreload"]], ids=["reload", "alone"])
def test_requests_are_secure(project: Path, arguments: list[str]) -> None:
    certificates = Certificates(project)
    with runserver(project, "localhost:0", *certificates.arguments, *arguments) as server:
        server.serving()
        server.tls = certificates.client()
        answer = server.get("/secure", Host="shop.localhost")
        assert answer.text == "True https://shop.localhost/secure"
        server.wait_log("at https://localhost:")


def test_one_flag_will_do(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    with runserver(project, "localhost:0", "--https", env={"HOME": str(home), "XDG_DATA_HOME": ""}) as server:
        server.serving()
        assert server.url.startswith("https://")
        server.wait_log("at https://localhost:")
    assert (home / ".local/share/devserver/root.pem").exists()
