"""Which provider suits this network. Knows no DNS message.

In the order in which things happen: `rules` are read, `space` is cut into atoms and networks; samples of who may be believed
(`trust`) fill the `table`, and beside it `failure` is seen in seconds; `deciding` says who serves whom, under `caps`; `probing`
is what to look at next. `replay` plays the past through all of it.
"""
