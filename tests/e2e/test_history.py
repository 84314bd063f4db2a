"""The checker of history.py itself: of a journal that is right it says nothing, and each thing that could be wrong with it, it tells."""
import json
from decimal import Decimal

import pytest

from history import Deed, History, Read, check


def entry(seq, kind, source, to, amount, key):
    account = {None: 840, 1: 1000, 2: 1001}
    return {"seq": seq, "id": seq, "type": kind, "debit": account[source], "credit": account[to], "amount": Decimal(amount),
            "currency": "USD", "description": key, "from_user_id": source, "to_user_id": to}


def deed(key, moves, ids=None, **kw):
    if ids is None:
        return Deed(key, "/x", {}, moves, **kw)
    answer = {"id": ids[0]} if len(ids) == 1 else {"results": [{"transaction": {"id": i}} for i in ids]}
    return Deed(key, "/x", {}, moves, json.dumps(answer).encode(), **kw)


@pytest.fixture
def right():
    """A deposit and a batch that were acknowledged; one that may be there and is, one that may and is not; one refused."""
    history = History()
    pay = ("transfer", 1, 2, 125)
    for d in (deed("a", [("deposit", None, 1, 1000)], [1]), deed("b", [pay, pay], [2, 3]),
              deed("c", [pay], maybe=True), deed("d", [pay], maybe=True), deed("e", [pay], refused=True)):
        history.add(d)
    history.reads.append(Read(1, "balance", 625, 625, False))
    history.reads.append(Read(1, "balance", 625, 1000, True))
    entries = [entry(1, "deposit", None, 1, "10.00", "a"), *(entry(n, "transfer", 1, 2, "1.25", "b") for n in (2, 3)),
               entry(4, "transfer", 1, 2, "1.25", "c")]
    return entries, history


def test_what_is_right_passes(right):
    entries, history = right
    check(entries, history)
    entries.pop()  # the one that may be there or not
    check(entries, history)


def renumbered(entries):
    for seq, e in enumerate(entries, 1):
        e["seq"] = e["id"] = seq
    return entries


WRONG = {
    "an acknowledged one is lost": lambda e, h: (e.pop(0), renumbered(e)),
    "all of it is lost": lambda e, h: e.clear(),
    "half of a batch is lost": lambda e, h: (e.pop(2), renumbered(e)),
    "done twice": lambda e, h: e.append(entry(5, "deposit", None, 1, "10.00", "a")),
    "never acknowledged, done twice": lambda e, h: e.append(entry(5, "transfer", 1, 2, "1.25", "c")),
    "refused and done": lambda e, h: e.append(entry(5, "transfer", 1, 2, "1.25", "e")),
    "nobody asked for it": lambda e, h: e.append(entry(5, "transfer", 1, 2, "1.25", "z")),
    "another amount": lambda e, h: e[0].update(amount=Decimal("10.01")),
    "another payee": lambda e, h: e[1].update(to_user_id=1),
    "another kind": lambda e, h: e[0].update(type="transfer"),
    "another number than was answered": lambda e, h: (e.insert(0, e.pop(1)), renumbered(e)),
    "a gap": lambda e, h: e[3].update(seq=5),
    "a stale read": lambda e, h: h.reads.append(Read(1, "balance", 625, 500, False)),
    "a read from the future": lambda e, h: h.reads.append(Read(1, "newest", 3, 4, False)),
    "an odd answer": lambda e, h: h.odd.append(("a", 418)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told(right, what):
    entries, history = right
    WRONG[what](entries, history)
    with pytest.raises(AssertionError):
        check(entries, history)
