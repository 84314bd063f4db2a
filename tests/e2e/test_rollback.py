"""Rollback: a compensating transaction, once, by those whose account it debits."""
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from harness import new_user, ok, page, problem, reconciled

V1 = "/api/v1"


def credit(u, amount, **more):
    return ok(u.bank.post(V1 + "/transactions/credit", json={"amount": amount, **more}), 201)


def transfer(u, v, amount, **more):
    return ok(u.bank.post(V1 + "/transactions/transfer", json={"to_user_id": v.id, "amount": amount, **more}), 201)


def rollback(u, tx, **body):
    return u.bank.post(f"{V1}/transactions/{tx}/rollback", json=body)


def test_a_receiver_refunds(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    t = transfer(u, v, "4.20")
    r = ok(rollback(v, t["id"], reason="wrong person"), 201)
    assert r["type"] == "rollback" and r["amount"] == Decimal("4.20") and r["currency"] == "USD"
    assert (r["from_user_id"], r["to_user_id"]) == (v.uuid, u.uuid)
    assert r["reference"] == t["id"] and r["id"] != t["id"] and r["balance_after"] == 0
    assert (u.balance(), v.balance()) == (10, 0)
    for client in (u.bank, v.bank, dev.admin.bank):
        assert ok(client.get(f"{V1}/transactions/{t['id']}"))["status"] == "rolled_back"
        assert ok(client.get(f"{V1}/transactions/{r['id']}"))["status"] == "completed"
    assert [x["type"] for x in page(u.bank.get(V1 + "/transactions/history"))["data"]] == [
        "rollback", "transfer", "credit"]
    payflow = ok(u.api.get(f"/api/transactions/{r['id']}"))
    assert payflow["reference"] in (t["id"], ok(u.api.get(f"/api/transactions/{t['id']}"))["id"])


def test_a_sender_may_not(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    t = transfer(u, v, 4)
    problem(rollback(u, t["id"]), 403, "forbidden")
    assert rollback(new_user(dev), t["id"]).status_code in (403, 404)
    problem(dev.anon.post(f"{V1}/transactions/{t['id']}/rollback", json={}), 401)
    assert (u.balance(), v.balance()) == (6, 4)


def test_an_admin_may(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    t = transfer(u, v, 4)
    ok(rollback(dev.admin, t["id"]), 201)
    assert (u.balance(), v.balance()) == (10, 0)


def test_by_sequence_number_and_without_a_body(dev):
    u = new_user(dev)
    seq = ok(u.api.get(f"/api/transactions/{credit(u, 5)['id']}"))["id"]
    ok(u.bank.post(f"{V1}/transactions/{seq}/rollback"), 201)
    assert u.balance() == 0


def test_of_a_credit_and_of_a_debit(dev):
    u = new_user(dev)
    c = credit(u, 9)
    d = ok(u.bank.post(V1 + "/transactions/debit", json={"amount": 2}), 201)
    problem(rollback(u, c["id"]), 422, "insufficient-funds")
    problem(rollback(u, d["id"]), 403)
    ok(rollback(dev.admin, d["id"]), 201)
    assert u.balance() == 9
    ok(rollback(u, c["id"]), 201)
    assert u.balance() == 0


def test_twice(dev):
    u = new_user(dev)
    c = credit(u, 5)
    credit(u, 5)
    ok(rollback(u, c["id"]), 201)
    problem(rollback(u, c["id"]), 409, "already-rolled-back")
    problem(rollback(dev.admin, c["id"]), 409, "already-rolled-back")
    assert u.balance() == 5


def test_of_a_rollback(dev):
    u = new_user(dev)
    r = ok(rollback(u, credit(u, 5)["id"]), 201)
    problem(rollback(dev.admin, r["id"]), 409)
    assert u.balance() == 0


def test_not_enough_left(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    t = transfer(u, v, 10)
    ok(v.bank.post(V1 + "/transactions/debit", json={"amount": "0.01"}), 201)
    problem(rollback(v, t["id"]), 422, "insufficient-funds")
    problem(rollback(dev.admin, t["id"]), 422, "insufficient-funds")
    assert ok(u.bank.get(f"{V1}/transactions/{t['id']}"))["status"] == "completed"
    credit(v, "0.01")
    ok(rollback(v, t["id"]), 201)
    assert (u.balance(), v.balance()) == (10, 0)


def test_in_another_currency(dev):
    u, v = new_user(dev), new_user(dev)
    credit(u, 500, currency="JPY")
    t = transfer(u, v, 200, currency="JPY")
    r = ok(rollback(v, t["id"]), 201)
    assert (r["amount"], r["currency"]) == (200, "JPY")
    assert (u.balance("JPY"), v.balance("JPY")) == (500, 0)


def test_of_an_item_of_a_batch(dev):
    u, v = new_user(dev, fund="10"), new_user(dev)
    ok(u.api.post("/api/transactions/batch", json={"transactions": [
        {"sender_id": u.id, "receiver_id": v.id, "amount": a} for a in (1, 2, 3)]}), 201)
    second = page(v.bank.get(V1 + "/transactions/history"))["data"][1]
    assert second["amount"] == 2
    ok(rollback(v, second["id"]), 201)
    assert (u.balance(), v.balance()) == (6, 4)


@pytest.mark.parametrize("tx", ["999999999", "01890000-0000-7000-8000-000000000000", "nonsense", "0", "-1"])
def test_unknown(dev, tx):
    problem(rollback(dev.admin, tx), 404, "not-found")


@pytest.mark.parametrize("reason", [5, [], "x" * 501])
def test_bad_reason(dev, reason):
    u = new_user(dev)
    c = credit(u, 5)
    problem(rollback(u, c["id"], reason=reason), 422, loc="reason")
    assert u.balance() == 5


def test_forty_at_once_undo_it_once(dev):
    u = new_user(dev)
    c = credit(u, 5)
    credit(u, 500)
    with ThreadPoolExecutor(20) as pool:
        codes = sorted(pool.map(lambda _: rollback(u, c["id"]).status_code, range(40)))
    assert codes == [201] + [409] * 39
    assert u.balance() == 500


def test_books_still_balance_and_survive(fresh):
    s = fresh()
    u, v = new_user(s, fund="10"), new_user(s)
    t = transfer(u, v, 4)
    ok(rollback(v, t["id"]), 201)
    s.restart(kill=True)
    problem(rollback(s.admin, t["id"]), 409, "already-rolled-back")
    assert ok(u.bank.get(f"{V1}/transactions/{t['id']}"))["status"] == "rolled_back"
    assert (u.balance(), v.balance()) == (10, 0)
    assert reconciled(s.admin.bank.get(V1 + "/admin/reconciliation"))
