"""Decisions: who serves whom, since when and why; what holds a change up; what steering gains, and where it loses."""
