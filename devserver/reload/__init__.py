"""Files to restarts: which files matter, when one changes, and what happens then. Knows no HTTP."""
