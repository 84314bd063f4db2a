"""Random sequences of movements against a small model that can be read at a glance."""
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import new_user, ok, page, reconciled

CURRENCIES = {"USD": 2, "JPY": 0, "KWD": 3}
PEOPLE = 3
person = st.integers(0, PEOPLE - 1)
currency = st.sampled_from(sorted(CURRENCIES))
units = st.one_of(st.integers(1, 40), st.integers(1, 10 ** 9))
step = st.one_of(
    st.tuples(st.just("deposit"), person, units, currency),
    st.tuples(st.just("withdraw"), person, units, currency),
    st.tuples(st.just("transfer"), person, person, units, currency),
    st.tuples(st.just("rollback"), st.integers(0, 30)),
    st.tuples(st.just("batch"), st.lists(st.tuples(person, person, units), min_size=1, max_size=4), currency,
              st.booleans()),
)


def amount(n, code):
    """Minor units to the amount's text."""
    return str(Decimal(n).scaleb(-CURRENCIES[code]))


class Model:
    def __init__(self):
        self.balance = {}
        self.moves = []  # [from, to, units, currency, undone]

    def get(self, who, code):
        return self.balance.get((who, code), 0)

    def move(self, source, target, n, code):
        """None stands for the outside. True when it may be, and then it is done."""
        if source == target or (source is not None and self.get(source, code) < n):
            return False
        if source is not None:
            self.balance[source, code] = self.get(source, code) - n
        if target is not None:
            self.balance[target, code] = self.get(target, code) + n
        return True


def apply(server, people, model, ids, op):
    a = server.admin
    kind = op[0]
    if kind in ("deposit", "withdraw"):
        _, who, n, code = op
        sides = (None, who) if kind == "deposit" else (who, None)
        r = a.api.post(f"/api/transactions/{kind}",
                       json={"user_id": people[who].id, "amount": amount(n, code), "currency": code})
        done = model.move(*sides, n, code)
        assert r.status_code == (201 if done else 422), (op, r.text)
        if done:
            ids.append((r.json()["id"], *sides, n, code))
    elif kind == "transfer":
        _, source, target, n, code = op
        r = people[source].bank.post("/api/v1/transactions/transfer", json={
            "to_user_id": people[target].uuid, "amount": amount(n, code), "currency": code})
        done = model.move(source, target, n, code)
        assert r.status_code == (201 if done else 422), (op, r.text)
        if done:
            ids.append((r.json()["id"], source, target, n, code))
    elif kind == "rollback":
        if ids:
            at = op[1] % len(ids)
            tx, source, target, n, code = ids[at]
            r = a.bank.post(f"/api/v1/transactions/{tx}/rollback", json={})
            if tx in model.moves:
                assert r.status_code == 409, (op, r.text)
            elif model.move(target, source, n, code):
                assert r.status_code == 201, (op, r.text)
                model.moves.append(tx)
            else:
                assert r.status_code == 422, (op, r.text)
    else:
        _, items, code, atomic = op
        before = dict(model.balance)
        fits = [model.move(s, t, n, code) for s, t, n in items] if not atomic else []
        if atomic:
            fits = [all(model.move(s, t, n, code) for s, t, n in items)]
            if not fits[0]:
                model.balance = before
        r = a.api.post("/api/transactions/batch", json={"atomic": atomic, "transactions": [
            {"sender_id": people[s].id, "receiver_id": people[t].id, "amount": amount(n, code), "currency": code}
            for s, t, n in items]})
        if atomic:
            assert r.status_code == (201 if fits[0] else 422), (op, r.text)
        else:
            assert r.status_code == 201, (op, r.text)
            assert [x["status"] in ("ok", "completed") for x in r.json()["results"]] == fits, (op, r.text)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(step, min_size=1, max_size=18))
def test_any_sequence_agrees_with_the_model(dev, steps):
    people = [new_user(dev) for _ in range(PEOPLE)]
    model, ids = Model(), []
    for op in steps:
        apply(dev, people, model, ids, op)
    for (who, code), n in model.balance.items():
        u = people[who]
        assert u.balance(code) == Decimal(amount(n, code)), (who, code)
        r = ok(u.api.post(f"/api/balances/replay?user_id={u.id}&currency={code}"))
        assert r["consistent"] is True and r["balance"] == Decimal(amount(n, code))
        rows = page(u.api.get(f"/api/balances/history?user_id={u.id}&currency={code}&limit=100"))["data"]
        total = Decimal(0)
        for row in reversed(rows):
            total += row["amount"]
            assert row["balance"] == total >= 0
    assert reconciled(dev.admin.bank.get("/api/v1/admin/reconciliation"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(n=st.one_of(st.integers(1, 10 ** 6), st.integers(1, 2 ** 62)), code=currency, text=st.booleans(),
       exponent=st.integers(-3, 3))
def test_any_amount_comes_back_exactly(dev, n, code, text, exponent):
    """Written plainly or with an exponent, as a number or a string: the same minor units, or a refusal."""
    value = Decimal(n).scaleb(-CURRENCIES[code])
    exponent = max(exponent, -CURRENCIES[code])  # 10e-1 has a decimal as it is written
    spelled = f"{value.scaleb(-exponent):f}e{exponent}" if exponent else f"{value:f}"
    literal = f'"{spelled}"' if text else spelled
    admin = dev.admin
    body = f'{{"amount":{literal},"currency":"{code}"}}'.encode()
    r = admin.bank.post("/api/v1/transactions/credit", content=body, headers={"Content-Type": "application/json"})
    if r.status_code == 422 and "overflow" in r.text:
        return
    d = ok(r, 201)
    assert d["amount"] == value and -d["amount"].as_tuple().exponent == CURRENCIES[code] \
        if isinstance(d["amount"], Decimal) else d["amount"] == value
    r = admin.bank.post("/api/v1/transactions/debit", content=body, headers={"Content-Type": "application/json"})
    assert r.status_code == 201, r.text


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=60))
def test_any_description_comes_back(dev, text):
    r = dev.admin.bank.post("/api/v1/transactions/credit",
                            json={"amount": "0.01", "description": text})
    if "\0" in text and r.status_code in (400, 422):
        return
    if any("\ud800" <= c <= "\udfff" for c in text):
        assert r.status_code in (400, 422)
        return
    assert ok(r, 201)["description"] == text


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.one_of(st.binary(max_size=200),
                      st.text(alphabet='{}[]":,0123456789.eE+-truefalsn\\ud8 ', max_size=80).map(str.encode)))
def test_no_body_breaks_it(dev, body):
    for path in ("/api/transactions/deposit", "/api/v1/auth/login", "/api/users", "/api/transactions/batch"):
        r = dev.admin.api.post(path, content=body, headers={"Content-Type": "application/json"})
        assert r.status_code in (400, 404, 422, 429), (path, body, r.status_code)
