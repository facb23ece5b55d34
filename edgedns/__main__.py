"""python -m edgedns."""

from edgedns.cli import main

main()
