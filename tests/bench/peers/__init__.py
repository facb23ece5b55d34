"""CPU per query of edgedns beside other servers, on the same zone and the same table: `python -m tests.bench.peers`."""
