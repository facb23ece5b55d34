"""The keys of the rules language, once: reading.py reads by them, the JSON Schema is printed from them, docs name them."""

from __future__ import annotations

from edgedns.steer.rules import words
from edgedns.steer.rules.kinds import Each, Either, Items, Json, Key, Many, Shape, Text, Word

SCHEMA_ID = "https://edgedns.example/schema/edgedns.v1.json"

_NUMBER_OR_TEXT = ["number", "string"]


def _string(pattern: str = "") -> Json:
    return {"type": "string", "pattern": pattern} if pattern else {"type": "string"}


VERSION = Word("1, the version of this language", words.whole(1, 1), {"const": 1})
DURATION = Word("a duration such as 30s or 5m", words.duration(0, 366 * 86400), {"type": _NUMBER_OR_TEXT})
PERIOD = Word("a duration such as 10s", words.duration(0.1, 86400), {"type": _NUMBER_OR_TEXT})
TTL = Word("a TTL such as 30s or 5m", words.ttl, {"type": ["integer", "string"]})
SHARE = Word("a share such as 40% or 0.4", words.share, {"type": _NUMBER_OR_TEXT})
CAPACITY = Word("a capacity such as 400Gbps or 40%", words.capacity, {"type": _NUMBER_OR_TEXT})
DATE = Word("a date such as 2036-12-05", words.date, _string("^[0-9]{4}-[0-9]{2}-[0-9]{2}"))
ASN = Word("an AS number", words.asn, {"type": ["integer", "string"]})
COUNTRY = Word("a country's two letters", words.country, _string("^[A-Za-z]{2}$"))
CONTINENT = Word("a continent", words.continent, {"enum": list(words.CONTINENTS)})
ADDRESS = Word("an IP address", words.address(None), _string())
ADDRESS4 = Word("an IPv4 address", words.target(4), _string())
ADDRESS6 = Word("an IPv6 address", words.target(6), _string())
PREFIX = Word("an address prefix", words.prefix, _string())
PROVIDER = Word("a provider's name", words.identifier("a provider"), _string())
NETWORK = Word("a network's name", words.identifier("a network"), _string())
RULE_NAME = Word("a rule's name", words.identifier("a rule"), _string())
DOMAIN = Word("a domain name", words.domain, _string())
MAILBOX = Word("a mailbox", words.mailbox, _string())
LINE = Word("text", str, _string())
PORT = Word("a port", words.whole(1, 65535), {"type": "integer", "minimum": 1, "maximum": 65535})
COUNT = Word("a number", words.whole(1, 1000), {"type": "integer", "minimum": 1})
SERIAL = Word("a serial", words.whole(0, 2**32 - 1), {"type": "integer", "minimum": 0})
POSITIVE = Word("a number", words.number(0, 1e9), {"type": "number", "minimum": 0})
STATE = Word("up, drain or down", words.one_of("up", "drain", "down"), {"enum": ["up", "drain", "down"]})
YES = Word("true or false", words.one_of("true", "false"), {"type": "boolean"})
URL = Word("a URL with {ip}", words.url, _string(r"^https?://\{ip\}"))
ANSWER = Word("a provider, NODATA or NXDOMAIN", words.identifier("an answer"), _string())
TYPE = Word("a record type", words.record_type, _string())

ALL_DOWN_WORDS = ("fail-open", "nodata", "servfail")
ALL_DOWN = Either(
    Word("fail-open, nodata, servfail or {use: PROVIDER}", words.one_of(*ALL_DOWN_WORDS), {"enum": list(ALL_DOWN_WORDS)}),
    Shape("all_down", "A provider to answer with when none is up.", (Key("use", PROVIDER, "the provider to use", True),)),
)

CHECK = Shape(
    "check",
    "An active health check of each address of a provider; exactly one of http and tcp.",
    (
        Key("http", URL, "fetch this URL from each address; 2xx and 3xx are good"),
        Key("tcp", PORT, "connect to this port of each address"),
        Key("every", PERIOD, "time between two checks; default 5s"),
        Key("timeout", PERIOD, "a check that takes longer has failed; default 2s"),
        Key("down_after", COUNT, "failures in a row of an address that take its provider out, over its family; default 3"),
        Key("up_after", COUNT, "successes in a row that bring it back; default 2"),
    ),
)

PROVIDER_SHAPE = Shape(
    "provider",
    "One transit provider and the anycast addresses announced through it alone.",
    (
        Key("v4", Many("addresses", ADDRESS4), "IPv4 addresses, the answers to A"),
        Key("v6", Many("addresses", ADDRESS6), "IPv6 addresses, the answers to AAAA"),
        Key("capacity", CAPACITY, "soft cap read by wan rules: a rate (400Gbps) or a share of all traffic (40%)"),
        Key("check", CHECK, "active health check"),
        Key("state", STATE, "up (default), drain (no new answers, no alarm) or down"),
    ),
)

_NETWORK_KEYS = (
    Key("asn", Many("AS numbers", ASN), "AS numbers: 3320 or AS3320"),
    Key("prefix", Many("prefixes", PREFIX), "address prefixes, host bits zero"),
    Key("country", Many("countries", COUNTRY), "ISO 3166 alpha-2 codes"),
    Key("continent", Many("continents", CONTINENT), "AF AN AS EU NA OC SA"),
)

NETWORK_SHAPE = Shape(
    "network",
    "A name for match lists: every client that any of its keys describes.",
    (*_NETWORK_KEYS, Key("extend", YES, "for public-resolvers only: add to the built-in list instead of replacing it")),
    {"network": "a network can't be made of networks"},
)

MATCH = Shape(
    "match",
    "Which clients a rule is for: all keys must hold, any value of a key will do.",
    (*_NETWORK_KEYS, Key("network", Many("networks", NETWORK), "names declared under networks:")),
)

MARGIN = Shape(
    "margin",
    "The least gain that is worth a switch.",
    (
        Key("ms", POSITIVE, "milliseconds; default 0"),
        Key("percent", POSITIVE, "percent of the current RTT; default 5"),
    ),
)

AMONG = Many("providers", PROVIDER)
WAN = Shape(
    "wan",
    "Give each network the provider that is fastest for it, by the WAN table.",
    (
        Key("among", AMONG, "the providers to choose from; all (default) is every provider"),
        Key("nominal", Many("providers", PROVIDER), "the order given when nothing fresh is known; default as declared"),
        Key("margin", MARGIN, "the least gain that is worth a switch"),
        Key("min_samples", POSITIVE, "decayed samples a network's row needs, all providers together; default 5"),
        Key("holdout", SHARE, "share of hash units that keep nominal answers, to show the gain; default 0"),
    ),
)

RULE = Shape(
    "rule",
    "One line of a record's policy. Exactly one of wan, weighted, failover and pin.",
    (
        Key("name", RULE_NAME, "its name in metrics, explain and diffs", True),
        Key("match", MATCH, "which clients it is for; the last rule has none"),
        Key("pin", PROVIDER, "always this provider"),
        Key("weighted", Each("providers and weights", PROVIDER, POSITIVE), "shares by provider, sticky by client prefix"),
        Key("failover", Many("providers", PROVIDER), "the first of these that is up"),
        Key("wan", WAN, "the fastest for each network"),
        Key("owner", LINE, "who answers for it"),
        Key("why", LINE, "the reason it is there"),
        Key("until", DATE, "when it ends: 2036-12-05 is 00:00 UTC that day"),
    ),
)

RECORD = Shape(
    "record",
    "A steered name: its A and AAAA follow its rules. Exactly one of rules and like.",
    (
        Key("rules", Items("rules", RULE), "the policy; the first rule that matches wins"),
        Key("like", DOMAIN, "another record of this zone whose rules, ttl and all_down to take"),
        Key("ttl", TTL, "TTL of its answers; default from defaults"),
        Key("all_down", ALL_DOWN, "what to answer when no provider of the rule is up"),
    ),
)

DEFAULTS = Shape(
    "defaults",
    "What records have when they don't say.",
    (
        Key("ttl", TTL, "TTL of steered and static records; default 30s"),
        Key("all_down", ALL_DOWN, "fail-open (default), nodata, servfail or {use: PROVIDER}"),
    ),
)

SOA = Shape(
    "soa",
    "The zone's SOA record (RFC 1035 section 3.3.13).",
    (
        Key("mname", DOMAIN, "the primary name server", True),
        Key("rname", MAILBOX, "the mailbox: noc@example.net or noc.example.net", True),
        Key("serial", SERIAL, "default: the Unix time of the last static change"),
        Key("refresh", TTL, "default 1h"),
        Key("retry", TTL, "default 15m"),
        Key("expire", TTL, "default 2w"),
        Key("minimum", TTL, "TTL of negative answers (RFC 2308); default 60s"),
        Key("ttl", TTL, "TTL of the SOA and of the NS records under ns:; default 1h"),
    ),
)

TRANSFER = Shape(
    "transfer",
    "Who may transfer the zone; refused to all others.",
    (Key("allow", Many("prefixes", PREFIX), "addresses and prefixes", True),),
)

EXPLAIN = Shape(
    "explain",
    "Who may ask for TXT of NAME._explain.ZONE, the decision behind an answer; nobody by default.",
    (Key("allow", Many("prefixes", PREFIX), "addresses and prefixes", True),),
)

STATIC_FILE = Shape("static_file", "A zone file.", (Key("file", LINE, "its path, relative to the rules directory", True),))
STATIC = Many("zone-file lines", Either(Text(), STATIC_FILE), unique=False)

TEST = Shape(
    "test",
    "A test of the rules: all providers up, no overrides, nominal table.",
    (
        Key("name", DOMAIN, "the name that is asked", True),
        Key("type", TYPE, "the type that is asked; default A"),
        Key("from", ADDRESS, "the asking resolver's address"),
        Key("subnet", PREFIX, "the client subnet it sends"),
        Key("asn", ASN, "instead of from: the first address of this AS"),
        Key("at", DATE, "the moment, for rules that end; without it none has ended"),
        Key("expect", Many("answers", ANSWER), "a provider, a list (any of them will do), NODATA or NXDOMAIN", True),
    ),
)

_SHARED_KEYS = (
    Key("version", VERSION, "1, the version of this language"),
    Key("defaults", DEFAULTS, "what records have when they don't say"),
    Key("providers", Each("providers", PROVIDER, PROVIDER_SHAPE), "the providers, by name"),
    Key("networks", Each("networks", NETWORK, NETWORK_SHAPE), "names for match lists"),
)

_ZONE_KEYS = (
    Key("zone", DOMAIN, "the zone's name", True),
    Key("soa", SOA, "the SOA record, unless static has it"),
    Key("ns", Many("name servers", DOMAIN), "the zone's name servers, unless static has them"),
    Key("transfer", TRANSFER, "who may transfer the zone"),
    Key("explain", EXPLAIN, "who may ask for decisions over DNS"),
    Key("records", Each("records", DOMAIN, RECORD), "the steered names"),
    Key("static", STATIC, "plain records in zone-file syntax"),
    Key("tests", Items("tests", TEST), "tests of the rules"),
)

_GLOBAL_KEYS = (
    Key("round", PERIOD, "time between two decisions; default 10s"),
    Key("fresh_for", DURATION, "how long a published table counts as fresh; default 10m"),
    Key("max_moved_share", SHARE, "a round that moves more of the query weight by measurement is refused; default 0.5"),
    Key("salt", LINE, "keys the hash of weighted splits; the same on every node; default empty"),
)

ZONE = Shape(
    "zone",
    "A zone file: one zone.",
    (*_SHARED_KEYS, *_ZONE_KEYS),
    {key.name: "it belongs in providers.yaml" for key in _GLOBAL_KEYS},
)
PROVIDERS = Shape(
    "providers",
    "providers.yaml: what all zones share.",
    (*_SHARED_KEYS, *_GLOBAL_KEYS),
    {key.name: "it belongs in a zone file, providers.yaml is for all zones" for key in _ZONE_KEYS},
)


def json_schema() -> Json:
    """The language as JSON Schema (2020-12), for editors: a file with `zone` is a zone file, any other providers.yaml."""
    defs: dict[str, Json] = {}
    zone, providers = ZONE.schema(defs), PROVIDERS.schema(defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "edgedns rules, version 1",
        "if": {"required": ["zone"]},
        "then": zone,
        "else": providers,
        "$defs": {name: defs[name] for name in sorted(defs)},
    }
