"""The status codes and the close codes of WebSockets that the server itself gives or looks for.

Nothing else spells them as numbers. What an application answers is its own business.
"""

from typing import Final

# Statuses (RFC 9110 section 15)

SWITCHING_PROTOCOLS: Final = 101
EARLY_HINTS: Final = 103  # RFC 8297
NO_CONTENT: Final = 204
RESET_CONTENT: Final = 205
NOT_MODIFIED: Final = 304
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
REQUEST_TIMEOUT: Final = 408
LENGTH_REQUIRED: Final = 411
URI_TOO_LONG: Final = 414
EXPECTATION_FAILED: Final = 417
MISDIRECTED: Final = 421
UPGRADE_REQUIRED: Final = 426
FIELDS_TOO_LARGE: Final = 431  # RFC 6585 section 5
INTERNAL_ERROR: Final = 500
NOT_IMPLEMENTED: Final = 501
SERVICE_UNAVAILABLE: Final = 503
VERSION_NOT_SUPPORTED: Final = 505

CLIENT_GONE: Final = 499
"""What the access line says of a request whose client has gone before a response began; nginx's number."""

BODILESS: Final = frozenset((NO_CONTENT, RESET_CONTENT, NOT_MODIFIED))
"""Of the statuses that an application may send, those without content (RFC 9110 sections 15.3 and 15.4)."""

# Close codes (RFC 6455 section 7.4.1, and its registry)

CLOSE_NORMAL: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_NO_CODE: Final = 1005  # never sent: the peer gave none
CLOSE_BROKEN: Final = 1006  # never sent: the connection broke
CLOSE_TOO_BIG: Final = 1009
CLOSE_INTERNAL_ERROR: Final = 1011
CLOSE_RESTART: Final = 1012

CLOSES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
"""The registered codes that may be sent; 3000 to 4999 are for libraries and applications."""
