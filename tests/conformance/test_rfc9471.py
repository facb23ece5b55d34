"""RFC 9471: glue is whole or TC; RFC 2181 section 9 and RFC 9715: truncation elsewhere."""

from __future__ import annotations

import pytest

from tests.conformance.client import Client, flags, texts

ALL_GLUE = 16


@pytest.mark.parametrize("name", ["crowd", "host.crowd", f"{'x' * 63}.{'y' * 63}.crowd", "ns4.crowd"])
def test_3_1_cut_glue_is_truncation(ask: Client, name: str) -> None:
    """Section 3.1: the server "MUST set TC=1 if constrained by message size"."""
    reply = ask(name)
    assert "TC" in flags(reply)
    assert len(reply.to_wire()) <= 512


@pytest.mark.parametrize("name", ["crowd", "host.crowd", f"{'x' * 63}.{'y' * 63}.crowd"])
def test_3_1_all_of_it_where_there_is_room(ask: Client, name: str) -> None:
    for reply in (ask(name, edns=0, payload=1232), ask.over("tcp")(name)):
        assert flags(reply) == set()
        assert len(texts(reply.additional)) == ALL_GLUE
        assert len(texts(reply.authority)) == 8


def test_3_2_glue_of_siblings(either: Client) -> None:
    """Section 3.2: "when a name server generates a referral response, it SHOULD include all available glue records in the
    additional section."."""
    reply = either("host.signed")
    assert texts(reply.authority) == ["signed NS ns1.child"]
    assert texts(reply.additional) == ["ns1.child A 192.0.2.90", "ns1.child AAAA 2001:db8:90::1"]


@pytest.mark.parametrize("payload", [512, 1232, 1233, 4096, 65535])
def test_rfc2181_9_a_set_that_doesn_t_fit_is_truncation(ask: Client, payload: int) -> None:
    """RFC 2181 section 9: "The TC bit should be set in responses only when an RRSet is required as a part of the response, but
    could not be included in its entirety."."""
    reply = ask("large", "TXT", edns=0, payload=payload)
    assert ("TC" in flags(reply)) == (len(texts(reply.answer)) < 9)
    assert len(reply.to_wire()) <= payload


@pytest.mark.ours
@pytest.mark.parametrize("payload", [1232, 4096, 65535])
def test_rfc9715_no_reply_that_could_be_cut_into_fragments(ask: Client, payload: int) -> None:
    """RFC 9715 section 3.1, R3: responders keep to the least of what the asker takes, the MTU and 1,400 octets; we to 1,232."""
    reply = ask("large", "TXT", edns=0, payload=payload)
    assert "TC" in flags(reply)
    assert (reply.answer, reply.edns) == ([], 0)


def test_rfc7766_never_over_tcp(ask: Client) -> None:
    for edns in (-1, 0):
        reply = ask.over("tcp")("large", "TXT", edns=edns, payload=512)
        assert flags(reply) == {"AA"}
        assert len(texts(reply.answer)) == 9
