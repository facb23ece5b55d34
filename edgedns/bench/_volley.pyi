from typing_extensions import Buffer

FORM: int

class Volley:
    """As volley.Plain; ValueError for arguments that don't fit together."""

    def __init__(
        self,
        fds: tuple[int, ...],
        magazine: Buffer,
        rows: Buffer,
        cells: Buffer,
        slots: int,
        interval: float,
        window: int,
        burst: int,
        timeout: int,
        start: int,
        /,
    ) -> None: ...
    def fire(self, until: int, asking: bool, /) -> None:
        """As volley.Plain.fire."""
