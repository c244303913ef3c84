"""A browser as far as forms go: cookies, redirects, CSRF tokens."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
from types import TracebackType

from tests.patience import DEADLINE


class Browser:
    """Keeps cookies; follows redirects.

    Attributes:
        url: of the page that is shown.
        page: its text.
        status: its status.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        self.url, self.page, self.status = root, "", 0

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._opener.close()

    def get(self, path: str) -> str:
        """Go to a page. Returns its text."""
        return self._open(urllib.request.Request(urllib.parse.urljoin(self.url, path)))

    def submit(self, action: str = "", **fields: str) -> str:
        """Submit the page's form with its token. Returns the next page's text."""
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.page)
        if found:
            fields["csrfmiddlewaretoken"] = found[1]
        data = urllib.parse.urlencode(fields).encode()
        request = urllib.request.Request(urllib.parse.urljoin(self.url, action), data)
        request.add_header("Referer", self.url)
        return self._open(request)

    def _open(self, request: urllib.request.Request) -> str:
        request.add_header("Accept", "text/html")
        try:
            with self._opener.open(request, timeout=DEADLINE) as answer:
                self.url, self.status, self.page = answer.url, answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                self.status, self.page = error.code, error.read().decode()
        return self.page
