"""A variable of the environment that is another one in a copy of this process, and who has asked for it.

What an application has read before a copy is made, the copy keeps. So a copy whose variable is to have
another value must be made before anybody asks for it. Looked at are the mappings of `os`: whatever asks by C
(`getenv`), or a program that is started, is not seen.
"""

from __future__ import annotations

import os
from typing import Any


class Variable:
    """See the module.

    Attributes:
        asked: somebody has read it, alone or with all others, since `start`.
    """

    def __init__(self, name: str) -> None:
        self.asked = False
        self._name = name
        self._kinds: list[tuple[Any, type]] = []

    def start(self) -> None:
        """Begin to note who asks.

        The mappings stay the same objects, which others have imported, and get another class.
        """
        by_bytes = getattr(os, "environb", None)  # which Windows has not
        for environ, name in ((os.environ, self._name), (by_bytes, self._name.encode())):
            if environ is None:
                continue
            self._kinds.append((environ, type(environ)))
            environ.__class__ = self._noting(type(environ), name)

    def stop(self) -> None:
        """Note nothing any more."""
        while self._kinds:
            environ, kind = self._kinds.pop()
            environ.__class__ = kind

    def set(self, value: str) -> None:
        """Give it this value, here and for whatever is started from here."""
        os.environ[self._name] = value

    def _noting(self, kind: type[Any], name: object) -> type[Any]:
        def get(environ: Any, key: Any) -> Any:
            if key == name:
                self.asked = True
            return kind.__getitem__(environ, key)

        return type(kind.__name__, (kind,), {"__getitem__": get, "__module__": kind.__module__})
