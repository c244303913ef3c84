"""What stands between the socket and HTTP: TLS, and whom a connection or a request really comes from.

Knows no gateway, and nothing of reloading.
"""
