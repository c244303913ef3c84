"""A guest book: one model, one form, one page."""
