"""Past samples through the serving code: a file read, played, and scored."""
