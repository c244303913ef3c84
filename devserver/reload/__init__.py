"""Changes to restarts: the supervisor and the children that it has, and what each says to the other.

Knows no HTTP.
"""
