"""A simulated Internet with events, and the console that shows what edgedns makes of it."""
