"""Measuring: one timed exchange, an agent that schedules many, and the collector that takes samples in."""
