"""What to probe: targets, doubts that want to be settled at once, and arms that are worth another look."""
