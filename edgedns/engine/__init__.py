"""dns x steer = one answer: what is compiled, published, mapped by workers and read by one query.

`flat` is the container of the published files; `snapshot` reads them; `answer` is the reference path and
`fastpath` its plain-Python twin for ordinary packets. Those run in serving workers and import no numpy.
`compile` makes the files and runs in the control process only.
"""
