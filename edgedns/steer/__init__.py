"""Which provider suits this network: rules, ASN tables, atoms, RTT histograms, WAN, health, decisions. Knows no DNS message."""
