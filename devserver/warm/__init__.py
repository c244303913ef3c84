"""Warm restarts: copies of a process that loads, and how a restart goes on from one of them.

`checkpoint` and `policy` run in the child, the rest in the supervisor.
"""
