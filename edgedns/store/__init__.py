"""Where samples, decisions, overrides and secrets live between two control processes."""
