"""Execution seen from within: statement by statement, with everything that is read, and what stands in the
way of going on from a copy. Knows neither supervisors nor restarts."""
