"""Sockets: the worker processes that answer, the control side that watches them, and the admin side (HTTP)."""
