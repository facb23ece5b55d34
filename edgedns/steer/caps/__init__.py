"""Caps: prices that keep each provider below its own, and what a query weighs."""
