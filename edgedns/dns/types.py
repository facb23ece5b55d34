"""The numbers DNS uses and their names (IANA "Domain Name System (DNS) Parameters")."""

from __future__ import annotations

A = 1
NS = 2
CNAME = 5
SOA = 6
PTR = 12
HINFO = 13
MX = 15
TXT = 16
AAAA = 28
LOC = 29
SRV = 33
NAPTR = 35
DNAME = 39
OPT = 41
DS = 43
SSHFP = 44
RRSIG = 46
NSEC = 47
DNSKEY = 48
NSEC3 = 50
NSEC3PARAM = 51
TLSA = 52
SMIMEA = 53
CDS = 59
CDNSKEY = 60
OPENPGPKEY = 61
CSYNC = 62
ZONEMD = 63
SVCB = 64
HTTPS = 65
SPF = 99
NXNAME = 128
TKEY = 249
TSIG = 250
IXFR = 251
AXFR = 252
MAILB = 253
MAILA = 254
ANY = 255
URI = 256
CAA = 257

TYPES = {
    name: number
    for name, number in list(globals().items())
    if name.isupper() and isinstance(number, int)
}
TYPE_NAMES = {number: name for name, number in TYPES.items()}

IN = 1
CH = 3
HS = 4
NONE = 254
ANY_CLASS = 255

QUERY = 0
IQUERY = 1
STATUS = 2
NOTIFY = 4
UPDATE = 5

NOERROR = 0
FORMERR = 1
SERVFAIL = 2
NXDOMAIN = 3
NOTIMP = 4
REFUSED = 5
YXDOMAIN = 6
NOTAUTH = 9
BADVERS = 16
BADCOOKIE = 23
RCODE_NAMES = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    YXDOMAIN: "YXDOMAIN",
    NOTAUTH: "NOTAUTH",
    BADVERS: "BADVERS",
    BADCOOKIE: "BADCOOKIE",
}


def type_name(number: int) -> str:
    """The mnemonic of an RR type, or TYPEnnn for one without (RFC 3597 section 5)."""
    return TYPE_NAMES.get(number) or f"TYPE{number}"


def type_number(text: str) -> int:
    """The number of an RR type given by mnemonic or as TYPEnnn, any case. ValueError if there is none."""
    word = text.upper()
    if word in TYPES:
        return TYPES[word]
    # RFC 3597 section 5: "the word 'TYPE' immediately followed by the decimal RR type number".
    digits = word.removeprefix("TYPE")
    if word.startswith("TYPE") and digits.isascii() and digits.isdigit() and int(digits) <= 0xFFFF:
        return int(digits)
    raise ValueError(f"unknown record type {text!r}")


def rcode_name(number: int) -> str:
    """The mnemonic of an rcode (extended ones too), or RCODEnnn for one without."""
    return RCODE_NAMES.get(number) or f"RCODE{number}"
