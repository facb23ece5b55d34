"""The control process of `edgedns serve`: wires `control`, `serve`, `probe`, `store` and `web` together (see `server`)."""
