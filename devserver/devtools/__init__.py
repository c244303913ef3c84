"""What a developer sees in the browser. Wraps applications; serves and restarts nothing itself."""
