"""`edgedns bench`: how much a DNS server carries and how soon it answers, asked from here over UDP."""
