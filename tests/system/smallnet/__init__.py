"""A small Internet on one machine: PoPs, providers, paths and networks; real agents, a real server, real clients.

Namespaces are joined by `router.c` over TUN devices. `globe` says what there is and how long its paths are, `scenario` what
happens, `stage` builds and runs it, `watcher` asks as its clients do, `verdict` judges what they got. Needs root and gcc.
"""
