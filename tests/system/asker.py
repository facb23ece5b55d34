"""Asks DNS questions and prints what came: `python asker.py < questions`, one JSON object a line each way.

A question: {"server", "name", "type", "tcp", "subnet"}; a result: {"rcode", "data": [text of the type asked, sorted], "scope"}.
"""

from __future__ import annotations

import json
import sys

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype


def ask(server: str, name: str, rtype: str, tcp: bool = False, subnet: str = "", rd: bool = True) -> dict[str, object]:
    options = [dns.edns.ECSOption.from_text(f"ECS {subnet}")] if subnet else []
    query = dns.message.make_query(name, rtype, use_edns=0, payload=1232, options=options)
    query.flags = dns.flags.RD if rd else dns.flags.Flag(0)
    try:
        if tcp:
            reply = dns.query.tcp(query, server, 10)
        else:
            reply, _ = dns.query.udp_with_fallback(query, server, 10)
    except (dns.exception.DNSException, OSError) as error:
        return {"rcode": type(error).__name__, "data": [], "scope": None}
    wanted = dns.rdatatype.from_text(rtype)
    found = sorted(rdata.to_text() for rrset in reply.answer if rrset.rdtype == wanted for rdata in rrset)
    scopes = [option.scopelen for option in reply.options if isinstance(option, dns.edns.ECSOption)]
    return {"rcode": dns.rcode.to_text(reply.rcode()), "data": found, "scope": scopes[0] if scopes else None}


if __name__ == "__main__":
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(ask(question["server"], question["name"], question.pop("type"), **{
            key: value for key, value in question.items() if key not in ("server", "name")
        })))
