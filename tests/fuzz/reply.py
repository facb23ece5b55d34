"""Coverage-guided, by test_reply_fuzzed.py or `python tests/fuzz/reply.py -max_total_time=600 CORPUS`; needs atheris.

Each input is a packet: the fast path and the reference path must agree on it, and give silence or a well-formed reply.
"""

from __future__ import annotations

import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP))

import atheris  # noqa: E402

with atheris.instrument_imports(include=["edgedns"]):
    from edgedns.engine import answer, fastpath, inline
    from edgedns.engine.load import load_rules

from edgedns.engine.tally import Tally  # noqa: E402
from edgedns.steer.space import asn  # noqa: E402
from tests.conftest import NOW, SECRETS  # noqa: E402
from tests.system import wellformed  # noqa: E402

CELLS = 1 << 16
CLIENT = bytes((192, 0, 2, 1))
LIMIT = {"udp": 1232, "tcp": 65535}


def main() -> None:
    loaded = load_rules(TOP / "rules")
    snapshot = inline.nominal_snapshot(loaded, inline.build_atoms(loaded.rules, asn.embedded()))
    tally = Tally(memoryview(bytearray(8 * CELLS)).cast("Q"))

    def one(packet: bytes) -> None:
        for transport, limit in LIMIT.items():
            asked = (snapshot, packet, CLIENT, transport, NOW, SECRETS, tally)
            reference = answer.respond(*asked)
            fast = fastpath.reply(*asked)
            assert fast is None or (fast or None) == reference
            assert (reference is None) == wellformed.expects_silence(packet)
            if reference is not None:
                wellformed.check(packet, reference, limit)
                if transport == "udp":
                    wellformed.check_size(packet, reference)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
