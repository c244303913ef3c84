"""Files to changes: which files matter, what was read of them, and when it would be read otherwise.

Knows neither processes of ours nor what follows from a change.
"""
