"""Failure beside the table: losses, shifts, landings and checks, and what they say of paths, networks and providers."""
