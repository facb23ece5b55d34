"""edgedns: an authoritative DNS server that answers each network with its best provider's address.

The house, from the ground up; imports run one way (docs/architecture.md, held by tests/test_house.py):

- `errors`, `model`, `metrics`: the words that all rooms share, and plain counters in shared memory.
- `lines`, `plainfile`, `special`, `pictures`, `config`: ways with files, prefixes, drawings, process settings.
- `dns`: what DNS is. `steer`: which provider suits which network. Neither knows the other. `bench`: load on any DNS server.
- `engine`: the two joined, at compile time, into flat files; one query is answered from them.
- `serve`, `probe`, `store`, `publish`, `web`: sockets, measurements, files. They meet only as callables.
- `control`: the one round loop. `cli`: the commands, which wire the rooms together. `demo`: a small Internet to see it in.
"""

__version__ = "0.1.0"
