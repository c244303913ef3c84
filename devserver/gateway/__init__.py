"""Exchanges to application calls and back. Knows no sockets and no bytes of HTTP."""
