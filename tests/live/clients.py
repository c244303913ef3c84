"""Clients that ask without pause, for whoever wants to know whether an answer is lost meanwhile."""

from __future__ import annotations

import http.client
import threading
from collections import Counter

from tests.live.process import DevServer


class Clients:
    """Ask without pause, each on a connection that it keeps as long as the server does."""

    def __init__(self, server: DevServer, count: int = 8, path: str = "/") -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.count = count
        self._server = server
        self._path = path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with self._server.connect() as connection:
            while not self._stop.is_set():
                try:
                    connection.request("GET", self._path)
                    response = connection.getresponse()
                    self.answers[f"{response.status} {response.read()[:1].decode()}"] += 1
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(repr(error))
                    connection.close()
