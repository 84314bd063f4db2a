"""A sale of tickets: callers over hundreds of connections that remember what they were answered, and the judge of it.

`Rush` sends bookings, repeats, cancellations and look-ups as fast as they are answered, and writes down every answer in a
`History`. `read_sqlite` and `read_postgres` read what the database holds at the end, by SQL of their own. `judge` holds the
one against the other. It is given data only, so that a test can give it a history in which something is wrong.
"""
import bisect
import contextlib
import errno
import heapq
import random
import select
import socket
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

HELD, PAYING, UNKNOWN, CONFIRMED, CANCELLED, EXPIRED = range(6)
PENDING = (HELD, PAYING, UNKNOWN)
NAMES = {HELD: "PENDING", PAYING: "PENDING", UNKNOWN: "PENDING", CONFIRMED: "CONFIRMED", CANCELLED: "CANCELLED", EXPIRED: "EXPIRED"}
BY_USER, DECLINED = 1, 2                  # reasons
HOLD, CAPTURE, RELEASE = 5, 6, 7          # kinds of the journal
APPROVED = 5                              # tickets that the mock provider approves, at most


UNKNOWN_ANSWERS = (500, 502, 504)         # of a write: it may have been done


def now_us():
    return time.time_ns() // 1000


# ---- what was asked and answered ----

@dataclass
class Ask:
    """A booking that somebody wanted: one, however often it was sent under its key. A guest asks once, under a name of its own."""
    who: str               # a guest's name, or a user's id
    event: str
    count: int
    key: str = None
    booking: str = None    # of its 201
    body: bytes = None     # the same
    maybe: bool = False    # a try of it ended in a way that says nothing
    booked_us: int = 0     # when that was answered


@dataclass
class Refusal:
    """Sold out, said to somebody who asked and was answered then."""
    event: str
    count: int
    sent_us: int
    answered_us: int


@dataclass
class History:
    asks: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    told: list = field(default_factory=list)       # (booking, status)
    cancelled: set = field(default_factory=set)    # bookings whose DELETE was answered 200
    odd: list = field(default_factory=list)        # answers that nothing explains
    replays: int = 0
    lost: int = 0


# ---- what the database holds ----

@dataclass
class Event:
    uuid: str
    capacity: int
    held: int
    sold: int
    price: int


@dataclass
class Booking:
    uuid: str
    event: str
    who: str
    count: int
    amount: int
    state: int
    reason: int
    version: int
    created_us: int
    updated_us: int


@dataclass
class Books:
    events: dict
    bookings: list
    entries: list          # (kind, amount, booking, time_us) of the journal, in its order
    outbox: int
    inbox: int             # messages that the payment worker has dealt with
    funds: dict = field(default_factory=dict)  # what each user had to spend, if anything costs something


def _uuid(text):
    text = text.lower()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _read(rows, binary):
    """rows(sql): tuples of the columns; binary(column): SQL for its bytes in hex."""
    ids, events = {}, {}
    for number, uuid, *figures in rows(f"SELECT id, {binary('uuid')}, capacity, held, sold, price FROM event"):
        ids[int(number)] = _uuid(uuid)
        events[_uuid(uuid)] = Event(_uuid(uuid), *map(int, figures))
    bookings = []
    for uuid, event, user, guest, *figures in rows(
            f"SELECT {binary('uuid')}, event, user_id, guest, tickets, amount, state, reason, version, created_us, updated_us"
            " FROM booking ORDER BY id"):
        bookings.append(Booking(_uuid(uuid), ids[int(event)], str(user) if int(user) else guest, *map(int, figures)))
    entries = [(int(kind), int(amount), origin.removeprefix("booking:"), int(ts)) for kind, amount, origin, ts in rows(
        "SELECT kind, amount, origin, ts FROM journal WHERE origin LIKE 'booking:%' ORDER BY seq")]
    counts = [int(next(iter(rows(f"SELECT count(*) FROM {table}")))[0]) for table in ("outbox", "inbox")]
    return Books(events, bookings, entries, *counts)


def read_sqlite(data):
    """data: DATA_DIR of a server that has ended."""
    with contextlib.closing(sqlite3.connect(data / "payflow.db")) as db:
        db.execute("PRAGMA query_only = 1")
        return _read(db.execute, lambda column: f"hex({column})")


def read_postgres(cluster):
    return _read(lambda sql: [line.split("|") for line in cluster.sql(sql).splitlines()], lambda column: f"encode({column}, 'hex')")


# ---- the judge ----

def _bookings_of_asks(books, history):
    """Every booking is somebody's who asked for it, once; every acknowledged one is there."""
    by_uuid = {b.uuid: b for b in books.bookings}
    assert len(by_uuid) == len(books.bookings), "a booking's id was given out twice"
    claimed, loose = {}, Counter()
    for a in history.asks:
        if a.booking:
            b = by_uuid.get(a.booking)
            assert b, f"lost: {a} was acknowledged and is not there"
            assert (b.who, b.event, b.count) == (a.who, a.event, a.count), f"{a} is there as {b}"
            assert a.booking not in claimed, f"{a.booking} was given to two who asked"
            claimed[a.booking] = a
        elif a.maybe:
            loose[a.who, a.event, a.count] += 1
    for b in books.bookings:
        if b.uuid not in claimed:
            wanted = (b.who, b.event, b.count)
            assert loose[wanted] > 0, f"nobody asked for it, or it was refused, or it is there twice: {b}"
            loose[wanted] -= 1
    return by_uuid


def _decisions(books, history, expiring):
    for b in books.bookings:
        assert b.state not in PENDING, f"stuck: {b}"
        assert b.state != EXPIRED or expiring, f"expired while it was being sold: {b}"
        by_hand = b.state == CANCELLED and b.reason == BY_USER
        if books.events[b.event].price == 0:
            assert b.state != CONFIRMED or b.count <= APPROVED, f"the provider does not approve {b}"
            assert b.state in (CONFIRMED, EXPIRED) or by_hand or b.count > APPROVED, f"without its tickets: {b}"
        else:
            assert b.state in (CONFIRMED, EXPIRED) or by_hand or b.reason == DECLINED, f"without its tickets: {b}"
        if b.state in (CONFIRMED, CANCELLED):
            assert b.version == 2 or b.state == CONFIRMED and b.version == 3, f"decided more than once: {b}"
        if by_hand:
            assert b.uuid in history.cancelled or history.lost, f"its buyer did not cancel {b}"


def _answers(by_uuid, history):
    """What somebody was told of a booking that was decided is what it is."""
    for uuid, status in history.told:
        final = NAMES[by_uuid[uuid].state]
        late = status == "EXPIRED" and final == "CONFIRMED"
        assert status in ("PENDING", final) or late, f"told {status}, and is {final}: {uuid}"
    for uuid in history.cancelled:
        assert by_uuid[uuid].state == CANCELLED, f"its buyer was told that it is cancelled: {by_uuid[uuid]}"


def _stock(books):
    for e in books.events.values():
        sold = sum(b.count for b in books.bookings if b.event == e.uuid and b.state == CONFIRMED)
        assert e.held == 0, f"held by nobody: {e}"
        assert e.sold == sold, f"{sold} tickets are confirmed: {e}"
        assert sold <= e.capacity, f"oversold, {sold} tickets: {e}"


def _money(books):
    """A confirmed booking was paid for once, with its price; every other one has its money back, or gave none."""
    moved = defaultdict(list)
    for kind, amount, uuid, ts in books.entries:
        moved[uuid].append((kind, amount))
    spent = defaultdict(list)  # user: (time, sum of all until then)
    for b in books.bookings:
        assert b.amount == b.count * books.events[b.event].price, f"another price: {b}"
        mine = moved.pop(b.uuid, [])
        if b.state == CONFIRMED and b.amount:
            assert sorted(mine[-2:]) == [(HOLD, b.amount), (CAPTURE, b.amount)], f"not paid with its price: {b}, {mine}"
            mine = mine[:-2]
        assert mine in ([], [(HOLD, b.amount), (RELEASE, b.amount)]), f"money that is neither its price nor back: {b}, {mine}"
    assert not moved, f"money for bookings that are not there: {list(moved.items())[:3]}"
    charged = sum(amount for kind, amount, *_ in books.entries if kind == CAPTURE)
    assert charged == sum(b.amount for b in books.bookings if b.state == CONFIRMED)
    buyer = {b.uuid: b.who for b in books.bookings}
    for kind, amount, uuid, ts in books.entries:
        if kind == CAPTURE:
            mine = spent[buyer[uuid]]
            mine.append((ts, (mine[-1][1] if mine else 0) + amount))
    for b in books.bookings:
        if b.amount and b.state == CANCELLED and b.reason == DECLINED:
            mine = spent[b.who]
            at = bisect.bisect_right(mine, (b.updated_us, float("inf")))
            before = mine[at - 1][1] if at else 0
            assert before + b.amount > books.funds[b.who], f"declined, with {books.funds[b.who] - before} to spend: {b}"
    for who, sums in spent.items():
        assert sums[-1][1] <= books.funds[who], f"{who} has spent {sums[-1][1]} of {books.funds[who]}"


def _scarcity(event, books):
    """The moments at which tickets were taken or came back; how many were free at the least while that was decided, what took
    going first; and how many were free afterwards."""
    took, back = Counter(), Counter()
    for b in books.bookings:
        if b.event == event.uuid:
            took[b.created_us] += b.count
            if b.state in (CANCELLED, EXPIRED):
                back[b.updated_us] += b.count
    moments, least, after, free = sorted(took.keys() | back.keys()), [], [], event.capacity
    for at in moments:
        least.append(free - took[at])
        free += back[at] - took[at]
        after.append(free)
    return moments, least, after


def _refusals(books, history):
    """Who was told 'sold out' asked for more than was free at some moment between asking and the answer."""
    curves = {uuid: _scarcity(e, books) for uuid, e in books.events.items()}
    for r in history.refusals:
        moments, least, after = curves[r.event]
        first, last = bisect.bisect_left(moments, r.sent_us), bisect.bisect_right(moments, r.answered_us)
        free = min([after[first - 1] if first else books.events[r.event].capacity, *least[first:last]])
        assert free < r.count, f"refused, though {free} tickets were free all the time: {r}"


def _messages(books, heard):
    """heard: (message id, type, booking). Each booking is told of once when it is made and once when it is decided."""
    told = defaultdict(set)
    for message, kind, uuid in heard:
        told[uuid].add((kind, message))
    for b in books.bookings:
        kinds = sorted(kind for kind, _ in told.pop(b.uuid, ()))
        end = ["BookingConfirmed"] if b.state == CONFIRMED else ["BookingCancelled"]
        early = ["BookingCancelled"] if b.state == CONFIRMED and b.version == 3 else []
        assert kinds == sorted(["BookingCreated"] + end + early), f"told of as {kinds}: {b}"
    assert not told, f"told of bookings that are not there: {list(told.items())[:3]}"


def judge(books, history, sold_out=(), expiring=False, heard=None):
    """sold_out: events of which more was wanted than there is, by who would have taken the last single ticket. expiring: bookings
    may have been left without a decision for longer than they hold. The clock of the database is that of the callers."""
    assert not history.odd, f"{len(history.odd)} odd answers, such as {history.odd[:3]}"
    _stock(books)
    by_uuid = _bookings_of_asks(books, history)
    _decisions(books, history, expiring)
    _answers(by_uuid, history)
    _money(books)
    for uuid in sold_out:
        e = books.events[uuid]
        assert e.sold == e.capacity, f"somebody who should have a ticket has none: {e}"
    _refusals(books, history)
    assert books.outbox == 0, f"{books.outbox} messages were never delivered"
    assert books.inbox == len(books.bookings), f"{books.inbox} messages dealt with, for {len(books.bookings)} bookings"
    if heard is not None:
        _messages(books, heard)


# ---- load ----

class _Caller:
    """One connection, and the request that is under way on it."""
    __slots__ = ("sock", "buffer", "todo", "ask", "fresh", "sent_us", "since")

    def __init__(self):
        self.sock, self.buffer, self.todo, self.ask, self.fresh = None, b"", None, None, False


class Rush:
    """requests bookings, and what belongs to them, over so many connections; each connection asks again when it was answered.

    events: their ids. users: ids to book for; none: guests. most: tickets that are asked for, at the most. calm: the share
    of the requests after which nobody cancels any more, so that what came back is sold. think: seconds between
    an answer and that caller's next request. key: an API key
    of somebody who may book for all of them. history: one to go on with."""

    def __init__(self, ports, events, seed, requests, connections=256, users=(), most=5, keyed=0.5, calm=0.7, patience=40.0,
                 think=0.0, key=None, history=None):
        self.ports, self.events, self.requests, self.users, self.most = ports, events, requests, users, most
        self.keyed, self.calm, self.patience, self.think = keyed, calm, patience, think
        self.head = "Host: x\r\n" + (f"X-API-Key: {key}\r\n" if key else "")
        self.seed, self.rng, self.history = seed, random.Random(seed), history or History()
        self.sent = self.answered = 0
        self.over = threading.Event()    # asks nothing new, and waits for what is under way
        self.callers = [_Caller() for _ in range(connections)]
        self.mine = []                   # asks with a booking, newest last
        self.again = []                  # (when, n, ask): to be sent again under their keys
        self.resting = []                # (when, n, caller)
        self.turn = 0
        self.poll = select.epoll()
        self.by_fd = {}

    # ---- what to do next ----

    def _later(self, heap, what, seconds):
        self.turn += 1
        heapq.heappush(heap, (time.monotonic() + seconds, self.turn, what))

    def _new(self):
        rng = self.rng
        n = len(self.history.asks)
        who = str(rng.choice(self.users)) if self.users else f"s{self.seed}-{n}"
        a = Ask(who, rng.choice(self.events), rng.randint(1, self.most), f"s{self.seed}-{n}" if rng.random() < self.keyed else None)
        self.history.asks.append(a)
        if a.key and rng.random() < 0.05:
            self._later(self.again, a, 0)  # twice at once
        return a

    def _draw(self, c):
        """(what, ask); None: nothing to do now."""
        if c.fresh:  # the moment at which a cancellation may still come before the payment
            c.fresh = False
            if self.rng.random() < 0.2 and self.sent < self.requests * self.calm:
                return "cancel", c.ask
        if self.again and self.again[0][0] <= time.monotonic():
            return "book", heapq.heappop(self.again)[2]
        if self.sent >= self.requests or self.over.is_set():
            return None
        r = self.rng.random()
        if r < 0.15 and self.mine:
            recent = self.mine[-1 - min(int(self.rng.expovariate(0.1)), len(self.mine) - 1)]
            if r < 0.08:
                return "look", recent
            if r < 0.1 and self.sent < self.requests * self.calm:
                return "cancel", recent
            if recent.key:
                self.sent += 1
                return "book", recent
        self.sent += 1
        return "book", self._new()

    # ---- sending ----

    def _request(self, what, a):
        if what != "book":
            return f"{'GET' if what == 'look' else 'DELETE'} /api/bookings/{a.booking} HTTP/1.1\r\n{self.head}\r\n".encode()
        who = a.who if self.users else f'"{a.who}"'
        body = f'{{"user_id":{who},"event_id":"{a.event}","ticket_count":{a.count}}}'
        key = f"Idempotency-Key: {a.key}\r\n" if a.key else ""
        return (f"POST /api/bookings HTTP/1.1\r\n{self.head}Content-Type: application/json\r\n{key}"
                f"Content-Length: {len(body)}\r\n\r\n{body}").encode()

    def _connect(self, c):
        try:
            s = socket.create_connection(("127.0.0.1", self.rng.choice(self.ports)), timeout=1)
        except OSError:
            return False
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setblocking(False)
        c.sock, c.buffer = s, b""
        self.by_fd[s.fileno()] = c
        self.poll.register(s.fileno(), select.EPOLLIN)
        return True

    def _drop(self, c):
        if c.sock:
            self.poll.unregister(c.sock.fileno())
            del self.by_fd[c.sock.fileno()]
            c.sock.close()
            c.sock = None

    def _next(self, c):
        """The caller's next request, or it goes when there is none."""
        if c.sock is None and not self._connect(c):
            self._later(self.resting, c, 0.05)
            return
        job = self._draw(c)
        if not job:
            if self.again or self._busy_with_asks():
                self._later(self.resting, c, 0.01)
            else:
                self._drop(c)
            return
        c.todo, c.ask = job
        c.sent_us, c.since = now_us(), time.monotonic()
        try:
            sent = c.sock.send(self._request(*job))
            assert sent > 20, "a request of some hundred bytes fits into a socket's buffer"
        except OSError:
            self._lost(c)

    def _busy_with_asks(self):
        return any(c.todo == "book" and c.ask.key for c in self.by_fd.values())

    # ---- answers ----

    def _lost(self, c):
        """No answer to what was under way."""
        self._drop(c)
        self.history.lost += 1
        if c.todo == "book":
            c.ask.maybe = True
            if c.ask.key:
                self._later(self.again, c.ask, 0.05)
        c.todo = None
        self._later(self.resting, c, 0.05)

    def _booked(self, c, a, status, body, replayed):
        h = self.history
        if status == 201:
            uuid = _value(body, b'"booking_id":"', 36)
            if a.booking is None:
                a.booking, a.body, a.booked_us = uuid, body, now_us()
                c.fresh = True
                self.mine.append(a)
                h.told.append((uuid, _status(body)))
            elif body != a.body:
                h.odd.append(("answered otherwise", a, body[:300]))
            h.replays += replayed
        elif status == 409 and b"/sold-out" in body:
            if a.booking and c.sent_us > a.booked_us:
                h.odd.append(("refused after it was acknowledged", a))
            h.refusals.append(Refusal(a.event, a.count, c.sent_us, now_us()))
        elif status in UNKNOWN_ANSWERS:
            a.maybe = True
            h.lost += 1
            if a.key:
                self._later(self.again, a, 0.05)
        elif status == 503 or status == 409 and b"/request-in-flight" in body:
            if a.key and not a.booking:
                self._later(self.again, a, 0.05)
        else:
            h.odd.append((status, a, body[:300]))

    def _heard(self, c, status, head, body):
        """What an answer says; the caller is free then."""
        h, a = self.history, c.ask
        if c.todo == "book":
            self._booked(c, a, status, body, b"dempotency-Replayed" in head or b"dempotency-replayed" in head)
        elif c.todo == "look" and status == 200:
            h.told.append((a.booking, _status(body)))
        elif c.todo == "cancel" and status == 200:
            h.told.append((a.booking, _status(body)))
            h.cancelled.add(a.booking)
        elif status in (*UNKNOWN_ANSWERS, 503):
            h.lost += 1
        elif not (c.todo == "cancel" and status == 409 and b"/wrong-state" in body):
            h.odd.append((c.todo, status, a, body[:300]))
        c.todo = None
        self.answered += 1

    def _read(self, c):
        try:
            chunk = c.sock.recv(65536)
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return
            chunk = b""
        if not chunk:
            if c.todo:
                self._lost(c)
            else:  # it rests, and connects again
                self._drop(c)
            return
        c.buffer += chunk
        end = c.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = c.buffer[:end + 2]
        at = head.find(b"Content-Length: ") + 16
        length = int(head[at:head.index(b"\r\n", at)])
        if len(c.buffer) < end + 4 + length:
            return
        body, c.buffer = c.buffer[end + 4:end + 4 + length], c.buffer[end + 4 + length:]
        self._heard(c, int(head[9:12]), head, body)
        if b"onnection: close" in head:
            self._drop(c)
        if self.think:
            self._later(self.resting, c, self.rng.uniform(0, 2 * self.think))
        else:
            self._next(c)

    # ---- all of it ----

    def run(self):
        try:
            for c in self.callers:
                self._next(c)
            looked = moved = time.monotonic()
            decided = 0
            while self.by_fd or self.resting:
                for fd, _ in self.poll.poll(0.01):
                    if fd in self.by_fd:
                        self._read(self.by_fd[fd])
                now = time.monotonic()
                while self.resting and self.resting[0][0] <= now:
                    self._next(heapq.heappop(self.resting)[2])
                if now > looked + 1:
                    looked = now
                    if decided != len(self.mine) + len(self.history.refusals):
                        decided, moved = len(self.mine) + len(self.history.refusals), now
                    elif self.over.is_set() or self.sent < self.requests or self.again:
                        assert now < moved + 2 * self.patience, "nobody is sold or refused anything any more"
                    for c in [c for c in self.by_fd.values() if c.todo and c.since < now - self.patience]:
                        self._lost(c)
        except Exception as e:  # pylint: disable=broad-except
            self.history.odd.append(("the callers", repr(e)))
            raise
        finally:
            for c in self.callers:
                self._drop(c)
            self.poll.close()
        return self.history

    # ---- while something else happens to the servers ----

    def __enter__(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        self.thread.join(3 * self.patience)
        assert kind or not self.thread.is_alive(), "a caller was never answered"

    def goes_on(self, by=20, timeout=60):
        """So many more bookings are made."""
        begin, end = len(self.mine), time.monotonic() + timeout
        while len(self.mine) < begin + by:
            assert time.monotonic() < end and self.thread.is_alive(), \
                f"{len(self.mine) - begin} bookings in {timeout} s: {self.history.odd[:3]}"
            time.sleep(0.01)


def _value(body, name, length):
    at = body.index(name) + len(name)
    return body[at:at + length].decode()


def _status(body):
    at = body.index(b'"status":"') + 10
    return body[at:body.index(b'"', at)].decode()
