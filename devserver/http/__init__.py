"""Bytes to exchanges and back. Knows no WSGI and no ASGI."""
