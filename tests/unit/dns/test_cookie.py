"""Server cookies: the vectors of the SipHash paper and of RFC 9018 appendix A."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from edgedns.dns.cookie import Verdict, check, make, parse_secrets, renew, siphash24

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
CLIENT = bytes.fromhex("2464c4abcf10c957")
ADDRESS = ip_address("198.51.100.100").packed
NOON = 1559731985

# Aumasson and Bernstein's reference: key 00 01 .. 0f, message 00 01 .. (n - 1), outputs as octets.
SIPHASH = {
    0: "310e0edd47db6f72",
    1: "fd67dc93c539f874",
    2: "5a4fa9d909806c0d",
    7: "37d1018bf50002ab",
    8: "6224939a79f5f593",
    15: "e545be4961ca29a1",
    63: "724506eb4c328a95",
}


@pytest.mark.parametrize("length", SIPHASH)
def test_siphash_gives_the_reference_vectors(length: int) -> None:
    assert siphash24(bytes(range(length)), bytes(range(16))).to_bytes(8, "little").hex() == SIPHASH[length]


def test_a1_learning_a_new_server_cookie() -> None:
    assert make(CLIENT, ADDRESS, SECRET, NOON).hex() == "2464c4abcf10c957010000005cf79f111f8130c3eee29480"


def test_a2_a_cookie_older_than_half_an_hour_is_renewed() -> None:
    sent = bytes.fromhex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
    verdict, reply = renew(sent, ADDRESS, [SECRET], 1559734385)
    assert verdict is Verdict.VALID
    assert reply.hex() == "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"


def test_a3_reserved_octets_are_hashed_as_sent_and_renewed_as_zero() -> None:
    sent = bytes.fromhex("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")
    address = ip_address("203.0.113.203").packed
    # The vector renews it 6,715 s later, where section 4.3 no longer believes it; the cookie given is the same.
    assert check(sent, address, [SECRET], 0x5CF78F71 + 60) is Verdict.FRESH
    verdict, reply = renew(sent, address, [SECRET], 1559734700)
    assert verdict is Verdict.BAD
    assert reply.hex() == "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"


def test_a4_a_cookie_of_the_previous_secret_is_renewed_by_the_current_one() -> None:
    sent = bytes.fromhex("22681ab97d52c298010000005cf7c57926556bd0934c72f8")
    secrets = [bytes.fromhex("445536bcd2513298075a5d379663c962"), bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715")]
    verdict, reply = renew(sent, ip_address("2001:db8:220:1:59de:d0f4:8769:82b8").packed, secrets, 1559741961)
    assert verdict is Verdict.VALID
    assert reply.hex() == "22681ab97d52c298010000005cf7c609a6bb79d16625507a"


def test_a_fresh_cookie_comes_back_as_it_was() -> None:
    sent = make(CLIENT, ADDRESS, SECRET, NOON)
    assert renew(sent, ADDRESS, [SECRET], NOON + 1800.9) == (Verdict.FRESH, sent)


@pytest.mark.parametrize(
    ("later", "verdict"),
    [
        (-301, Verdict.BAD),
        (-300, Verdict.FRESH),
        (0, Verdict.FRESH),
        (1801, Verdict.VALID),
        (3600, Verdict.VALID),
        (3601, Verdict.BAD),
    ],
)
def test_an_hour_back_and_five_minutes_ahead(later: int, verdict: Verdict) -> None:
    assert check(make(CLIENT, ADDRESS, SECRET, NOON), ADDRESS, [SECRET], NOON + later) is verdict


def test_time_is_compared_by_serial_number_arithmetic() -> None:
    before = 2**32 - 10
    sent = make(CLIENT, ADDRESS, SECRET, before)
    assert check(sent, ADDRESS, [SECRET], before + 20) is Verdict.FRESH
    assert check(sent, ADDRESS, [SECRET], before + 4000) is Verdict.BAD


@pytest.mark.parametrize("at", range(24))
def test_any_changed_octet_spoils_it(at: int) -> None:
    sent = bytearray(make(CLIENT, ADDRESS, SECRET, NOON))
    sent[at] ^= 1
    assert check(bytes(sent), ADDRESS, [SECRET], NOON) is Verdict.BAD


def test_it_is_bound_to_the_address_and_the_secret() -> None:
    sent = make(CLIENT, ADDRESS, SECRET, NOON)
    assert check(sent, bytes(4), [SECRET], NOON) is Verdict.BAD
    assert check(sent, ADDRESS, [bytes(16)], NOON) is Verdict.BAD


@pytest.mark.parametrize("length", [8, 16, 23, 25, 40])
def test_other_lengths_are_only_a_client_cookie(length: int) -> None:
    sent = (make(CLIENT, ADDRESS, SECRET, NOON) + bytes(16))[:length]
    assert renew(sent, ADDRESS, [SECRET], NOON) == (Verdict.BAD, make(CLIENT, ADDRESS, SECRET, NOON))


ONE, TWO = "e5e973e5a6b2a43f48e7dc849e37bfcf", "445536BCD2513298075A5D379663C962"


def test_secrets_as_a_file_has_them() -> None:
    assert parse_secrets(f"# active\n{ONE}\n\n {TWO} \n") == (bytes.fromhex(ONE), bytes.fromhex(TWO))
    assert parse_secrets(f"{ONE}\r\n{TWO}") == parse_secrets(f"{ONE}\n{TWO}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are 0 secrets"),
        (ONE[:-1], "line 1 is not a secret"),
        (f"{ONE}\n{TWO}00", "line 2 is not a secret"),
        (f"{ONE}\n{ONE.upper()}", "line 2 is a secret that is there already"),
        (f"{ONE} {TWO}", "line 1 is not"),
        ("\n".join(f"{n:032x}" for n in range(5)), "there are 5 secrets"),
        ("\N{FULLWIDTH DIGIT ONE}" * 32, "line 1 is not"),
    ],
)
def test_what_is_no_file_of_secrets(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_secrets(text)
    assert ONE[:8] not in str(caught.value)
