"""The judge of sale.py itself: of a sale that went right it says nothing, and each thing that could be wrong with it, it tells."""
import copy

import pytest

from sale import (BY_USER, CANCELLED, CAPTURE, CONFIRMED, DECLINED, EXPIRED, HELD, HOLD, PAYING, RELEASE, Ask, Booking, Books, Event,
                  History, Refusal, judge)


def booking(uuid, who, count, state=CONFIRMED, event="free", price=0, at=100, until=110, reason=0, version=2):
    return Booking(uuid, event, who, count, count * price, state, reason, version, at, until)


def paid(uuid, amount, at=110):
    return [(HOLD, amount, uuid, at), (CAPTURE, amount, uuid, at)]


@pytest.fixture
def right():
    """Ten free tickets: 5 and 4 are sold, 2 were cancelled between, 6 declined, the last one went to somebody who was never answered.
    And a priced event of ten, where one buyer ran out of money."""
    bookings = [booking("a", "ann", 5), booking("b", "bob", 2, CANCELLED, at=120, until=200, reason=BY_USER),
                booking("c", "cid", 4, at=300, until=310), booking("d", "dan", 1, at=320, until=330),
                booking("p", "7", 3, event="priced", price=100), booking("q", "7", 2, CANCELLED, "priced", 100, 150, 160, DECLINED),
                booking("r", "8", 1, CANCELLED, "priced", 100, 150, 160, BY_USER)]
    events = {"free": Event("free", 10, 0, 10, 0), "priced": Event("priced", 10, 0, 3, 100)}
    books = Books(events, bookings, paid("p", 300), 0, len(bookings), {"7": 499, "8": 1000})
    asks = [Ask("ann", "free", 5, "k1", "a"), Ask("bob", "free", 2, None, "b"), Ask("cid", "free", 4, "k2", "c"),
            Ask("dan", "free", 1, None, None, maybe=True), Ask("eve", "free", 1, None, None, maybe=True),
            Ask("fay", "free", 4), Ask("7", "priced", 3, None, "p"), Ask("7", "priced", 2, None, "q"), Ask("8", "priced", 1, None, "r")]
    history = History(asks, [Refusal("free", 4, 130, 140), Refusal("free", 1, 340, 350), Refusal("free", 2, 305, 325)],
                      [("a", "PENDING"), ("a", "CONFIRMED"), ("b", "CANCELLED")], {"b", "r"})
    heard = [(f"{b.uuid}1", "BookingCreated", b.uuid) for b in bookings]
    heard += [(f"{b.uuid}2", "BookingConfirmed" if b.state == CONFIRMED else "BookingCancelled", b.uuid) for b in bookings]
    heard += heard[:4]  # a message may come again
    return books, history, heard


def check(books, history, heard):
    judge(books, history, sold_out=["free"], heard=heard)


def of(books, uuid):
    return next(b for b in books.bookings if b.uuid == uuid)


def oversold(books, history, heard):
    """What no condition on the stock leads to."""
    books.bookings.append(booking("z", "zoe", 1, at=400, until=410))
    history.asks.append(Ask("zoe", "free", 1, None, "z"))
    books.events["free"].sold = 11
    books.inbox += 1
    heard += [("z1", "BookingCreated", "z"), ("z2", "BookingConfirmed", "z")]


def taken_twice(books, history, heard):
    """What no inbox leads to: the same message had its effect again."""
    of(books, "a").version = 3
    books.events["free"].sold = 10


def expired_early(books, history, heard):
    """What expiry by a clock that runs ahead leads to."""
    c = of(books, "c")
    c.state, books.events["free"].sold = EXPIRED, 6


def lost_after_its_ack(books, history, heard):
    """What an ack before the commit leads to: the message is gone, and its effect too."""
    d = of(books, "d")
    d.state, d.version = HELD, 1
    books.events["free"].held, books.events["free"].sold = 1, 9
    books.inbox -= 1


WRONG = {
    "oversold": oversold,
    "a message's effect, twice": taken_twice,
    "paid twice": lambda b, h, m: b.entries.extend(paid("p", 300)),
    "expired while it was being sold": expired_early,
    "a message was lost": lost_after_its_ack,
    "an inbox without its message": lambda b, h, m: setattr(b, "inbox", b.inbox - 1),
    "a message never delivered": lambda b, h, m: setattr(b, "outbox", 1),
    "stuck in the midst of paying": lambda b, h, m: setattr(of(b, "p"), "state", PAYING),
    "acknowledged, and lost": lambda b, h, m: b.bookings.remove(of(b, "a")),
    "acknowledged for another": lambda b, h, m: setattr(of(b, "a"), "who", "cid"),
    "with another number of tickets": lambda b, h, m: setattr(of(b, "c"), "count", 3),
    "two who asked have one booking": lambda b, h, m: h.asks.append(Ask("cid", "free", 4, None, "c")),
    "one who asked has two": lambda b, h, m: (b.bookings.append(booking("e", "dan", 1, at=320)), setattr(b, "inbox", b.inbox + 1)),
    "refused, and sold": lambda b, h, m: setattr(h.asks[3], "maybe", False),
    "sold to nobody": lambda b, h, m: h.asks.pop(3),
    "told confirmed and is not": lambda b, h, m: h.told.append(("b", "CONFIRMED")),
    "told cancelled and is not": lambda b, h, m: h.told.append(("a", "CANCELLED")),
    "cancelled, it was said, and is sold": lambda b, h, m: h.cancelled.add("c"),
    "cancelled by nobody": lambda b, h, m: h.cancelled.remove("b"),
    "declined without reason": lambda b, h, m: setattr(of(b, "d"), "state", CANCELLED),
    "approved against the rule": lambda b, h, m: (setattr(of(b, "a"), "count", 6), setattr(h.asks[0], "count", 6),
                                                  setattr(of(b, "c"), "count", 3), setattr(h.asks[2], "count", 3)),
    "declined with money there": lambda b, h, m: b.funds.update({"7": 500}),
    "spent more than was there": lambda b, h, m: b.funds.update({"7": 299}),
    "held, and by nobody": lambda b, h, m: setattr(b.events["free"], "held", 1),
    "stock that is not what was sold": lambda b, h, m: setattr(b.events["free"], "sold", 9),
    "tickets left, and who wanted them without": lambda b, h, m: (setattr(of(b, "d"), "state", CANCELLED), setattr(of(b, "d"), "reason", BY_USER),
                                                                  h.cancelled.add("d"), setattr(b.events["free"], "sold", 9),
                                                                  m.append(("d2", "BookingCancelled", "d")),
                                                                  m.remove(("d2", "BookingConfirmed", "d"))),
    "confirmed and not paid": lambda b, h, m: b.entries.clear(),
    "paid with another price": lambda b, h, m: b.entries.__setitem__(slice(None), paid("p", 200)),
    "cancelled, and the money is gone": lambda b, h, m: b.entries.extend(paid("r", 100)),
    "cancelled, and the money stays held": lambda b, h, m: b.entries.append((HOLD, 100, "r", 150)),
    "the money came back twice": lambda b, h, m: b.entries.extend([(HOLD, 100, "r", 150), (RELEASE, 100, "r", 155), (RELEASE, 100, "r", 156)]),
    "money for no booking": lambda b, h, m: b.entries.extend(paid("zz", 100)),
    "refused while there were tickets": lambda b, h, m: h.refusals.append(Refusal("free", 3, 140, 150)),
    "refused after tickets came back": lambda b, h, m: h.refusals.append(Refusal("free", 5, 201, 299)),
    "refused before anything was sold": lambda b, h, m: h.refusals.append(Refusal("free", 10, 10, 20)),
    "not told of": lambda b, h, m: m.__setitem__(slice(None), [x for x in m if x[0] != "c1"]),
    "told of twice": lambda b, h, m: m.append(("c3", "BookingConfirmed", "c")),
    "told of as what it is not": lambda b, h, m: m.append(("c3", "BookingCancelled", "c")),
    "told of what is not there": lambda b, h, m: m.append(("x1", "BookingCreated", "x")),
    "an odd answer": lambda b, h, m: h.odd.append(("a", 418)),
}


def test_what_is_right_passes(right):
    check(*right)
    books, history, heard = right
    history.refusals += [Refusal("free", 4, 120, 120), Refusal("free", 4, 120, 199), Refusal("free", 2, 300, 321)]
    check(books, history, heard)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told(right, what):
    wrong = copy.deepcopy(right)
    WRONG[what](*wrong)
    with pytest.raises(AssertionError):
        check(*wrong)
