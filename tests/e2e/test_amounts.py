"""Amounts: read from their digits, refused with 422 when they are not one, written with the currency's decimals."""
import re
from decimal import Decimal

import pytest

from harness import money, new_user, ok, problem

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(dev):
    """A user whose deposits of raw amount text can be looked at."""
    u = new_user(dev)

    def deposit(text, currency="USD"):
        body = f'{{"user_id":{u.id},"amount":{text},"currency":"{currency}"}}'.encode()
        return u.api.post("/api/transactions/deposit", content=body, headers=JSON)
    deposit.user = u
    return deposit


BAD_NUMBERS = [
    "1e400", "-0", "0", "0.0", "0.00", "0e5", "-1", "-0.01", "-1e400", "0.001", "1.234", "100.500", "1e-3",
    "9223372036854775808", "92233720368547758.08", "-9223372036854775809", "1e17", "1E400", "1e99999999999999999999",
    "0." + "0" * 400 + "1", "1" + "0" * 400, "99999999999999999999999999.99",
]
BAD_STRINGS = BAD_NUMBERS + [
    "", " ", "abc", "NaN", "nan", "Infinity", "-Infinity", "inf", "+1", " 1", "1 ", "1\\n", "01", "1.", ".5", "1,00",
    "1_000", "0x10", "1e", "e1", "--1", "1.2.3", "$1", "1 USD", "١٢", "１２", "½", "²", "1\\u0000", "\\u0000", "1/2",
    "true", "null", "\u00a01", "−1",
]
BAD_TYPES = ["true", "false", "null", "[]", "[1]", "{}", '{"value":1}']


@pytest.mark.parametrize("text", BAD_NUMBERS + BAD_TYPES)
def test_bad_number(client, text):
    problem(client(text), 422, loc="amount")


@pytest.mark.parametrize("text", BAD_STRINGS)
def test_bad_string(client, text):
    r = client(f'"{text}"')
    if "\\u0000" in text and r.status_code == 400:
        return
    problem(r, 422, loc="amount")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10", "1e", "1,00", "--1",
                                  "", "-", "1.e1", "١٢", "1_000", "'1'", "1f"])
def test_not_json(client, text):
    problem(client(text), 400, "malformed-json")


@pytest.mark.parametrize("text, currency", [("1.5", "JPY"), ("0.1", "JPY"), ("1.0", "JPY"), ("1e-1", "JPY"),
                                            ("1.2345", "KWD"), ("0.0001", "KWD"), ("9223372036854775808", "JPY"),
                                            ("9223372036854775.808", "KWD")])
def test_scale_of_the_currency(client, text, currency):
    problem(client(text, currency), 422, loc="amount")
    problem(client(f'"{text}"', currency), 422, loc="amount")


@pytest.mark.parametrize("text", ["100.5", "100.50", '"100.50"', '"100.5"', "1005e-1", "1.005e2", "1.005E+2"])
def test_one_amount_in_many_spellings(client, text):
    before = client.user.balance() if client("1").status_code == 201 else None
    r = client(text)
    assert ok(r, 201)["amount"] == Decimal("100.50")
    assert re.search(r'"amount": ?100\.50[,}]', r.text), r.text
    assert client.user.balance() - before == Decimal("100.50")


@pytest.mark.parametrize("text, currency, wire", [
    ("0.01", "USD", "0.01"), ("1", "USD", "1.00"), ("1e2", "USD", "100.00"), ("70", "JPY", "70"),
    ("1e3", "JPY", "1000"), ("1.5", "KWD", "1.500"), ("0.001", "KWD", "0.001"), ("2", "KWD", "2.000"),
    ("0.1", "USD", "0.10"), ("0.29", "USD", "0.29"), ("1.15", "USD", "1.15"), ("4.35", "USD", "4.35"),
    ("90071992547409.93", "USD", "90071992547409.93"), ("45035996273704.97", "EUR", "45035996273704.97"),
])
def test_exact_digits_on_the_wire(dev, text, currency, wire):
    u = new_user(dev)
    for literal in (text, f'"{text}"'):
        body = f'{{"amount":{literal},"currency":"{currency}"}}'.encode()
        r = u.bank.post("/api/v1/transactions/credit", content=body, headers=JSON)
        assert r.status_code == 201, r.text
        assert re.search(r'"amount": ?' + re.escape(wire) + r"[,}]", r.text), r.text
    r = u.api.get("/api/balances", params={"user_id": u.id, "currency": currency})
    twice = Decimal(wire) * 2
    assert re.search(r'"balance": ?' + re.escape(str(twice)) + r"[,}]", r.text), r.text
    r = u.api.get(f"/api/balances/history?user_id={u.id}&currency={currency}&limit=1")
    assert re.search(r'"amount": ?' + re.escape(wire) + r"[,}]", r.text), r.text


def test_the_largest_amount(fresh):
    s = fresh()
    u = new_user(s)
    largest = "92233720368547758.07"
    r = u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": largest})
    assert ok(r, 201)["amount"] == Decimal(largest)
    assert f'"amount":{largest}' in r.text.replace(" ", "")
    problem(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": "0.01"}), 422, "balance-overflow")
    v = new_user(s)
    problem(v.api.post("/api/transactions/deposit", json={"user_id": v.id, "amount": "0.02"}), 422, "balance-overflow")
    ok(u.api.post("/api/transactions/transfer",
                  json={"from_user_id": u.id, "to_user_id": v.id, "amount": largest}), 201)
    assert v.balance() == Decimal(largest) and u.balance() == 0
    ok(v.api.post("/api/transactions/withdraw", json={"user_id": v.id, "amount": largest}), 201)


ROUTES = [
    ("POST", "/api/transactions/deposit", '{"user_id":ID,"amount":A}'),
    ("POST", "/api/transactions/withdraw", '{"user_id":ID,"amount":A}'),
    ("POST", "/api/transactions/transfer", '{"from_user_id":ID,"to_user_id":TO,"amount":A}'),
    ("POST", "/api/transactions/batch", '{"transactions":[{"sender_id":ID,"receiver_id":TO,"amount":A}]}'),
    ("POST", "/api/v1/transactions/credit", '{"amount":A}'),
    ("POST", "/api/v1/transactions/debit", '{"amount":A}'),
    ("POST", "/api/v1/transactions/transfer", '{"to_user_id":TO,"amount":A}'),
    ("POST", "/api/v1/scheduled-transactions",
     '{"type":"credit","amount":A,"scheduled_at":"2099-01-01T00:00:00Z"}'),
]


def fill(body, u, v, amount):
    return body.replace("ID", str(u.id)).replace("TO", str(v.id)).replace(":A", ":" + amount)


@pytest.mark.parametrize("method, path, body", ROUTES, ids=[r[1] for r in ROUTES])
def test_every_route_reads_amounts_alike(dev, method, path, body):
    u, v = new_user(dev, fund="1000"), new_user(dev)
    for amount in ("0", "-1", "0.001", "1e400", '"-0"', '"x"', "true", "null", "9223372036854775808", "{}"):
        text = fill(body, u, v, amount)
        r = u.bank.request(method, path, content=text.encode(), headers=JSON)
        assert r.status_code == 422, (path, amount, r.status_code, r.text)
        assert "amount" in r.text
    assert u.balance() == 1000
    good = fill(body, u, v, '"1.10"')
    r = u.bank.request(method, path, content=good.encode(), headers=JSON)
    assert r.status_code == 201, r.text
    if "batch" not in path:
        assert money(r)["amount"] == Decimal("1.10")


def test_no_amount_drifts(dev):
    """A thousandth time 0.10 is 100.00."""
    u, v = new_user(dev, fund="100.00"), new_user(dev)
    items = [{"sender_id": u.id, "receiver_id": v.id, "amount": 0.1}] * 1000
    ok(u.api.post("/api/transactions/batch", json={"transactions": items}), 201)
    assert (u.balance(), v.balance()) == (0, 100)
