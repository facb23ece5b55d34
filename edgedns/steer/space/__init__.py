"""The address space: ASN tables, and the atoms and networks that it is cut into."""
