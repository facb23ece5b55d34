"""The control process: reads inputs, takes samples and orders, decides, and publishes what workers answer from.

Each input that fails leaves what was served before in force (law 4): `inputs` reads rules and tables, `worlds` compiles
them, `measured` keeps what probes taught, `orders` what operators want; `deciding` says what follows, `plausible`
how much would move, `schedule` makes what is published, and `loop` joins them.
"""

from edgedns.control.inputs import Paths
from edgedns.control.loop import Control

__all__ = ["Control", "Paths"]
