"""edgedns: an authoritative DNS server that answers each network with its best provider's address."""

__version__ = "0.1.0"
