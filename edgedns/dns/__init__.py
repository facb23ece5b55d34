"""What DNS is: names, messages, EDNS, cookies, zones. Knows RFCs; knows no ASN and no provider."""
