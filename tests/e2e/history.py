"""Load that remembers what it was answered, and the check of the books against what it remembers.

A client has a purse that nobody else touches, so it knows to the cent what each read of it must say. Every movement has an
Idempotency-Key, which stands in its description too; what fails is sent again with its key until it is acknowledged. `check`
then holds the exported journal against all that was asked, answered and read. It is given data only, so that a test can
give it a journal in which something is missing.
"""
import json
import random
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

ASK_AGAIN = (0, 409, 500, 502, 503, 504)  # 0: no answer
UNKNOWN = (0, 500, 502, 504)              # of a write: it may have been done
SEED = 100_00                             # what a purse begins with, in cents


class Connection:
    """HTTP/1.1 with as little as a load generator needs."""

    def __init__(self, port, key, timeout=10, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = f"Host: x\r\nX-API-Key: {key}\r\n"
        self.buffer = b""

    def close(self):
        self.sock.close()

    def post(self, path, key, body):
        status, _, answer = self.ask("POST", path, f"Idempotency-Key: {key}\r\n", json.dumps(body).encode())
        return status, answer

    def ask(self, method, path, head="", data=b""):
        """(status, headers as lower-case text, body)"""
        if data:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        self.sock.sendall(f"{method} {path} HTTP/1.1\r\n{self.head}{head}\r\n".encode() + data)
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        head = self.buffer[:end + 2].decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        while len(self.buffer) < end + 4 + length:
            self._more()
        body, self.buffer = self.buffer[end + 4:end + 4 + length], self.buffer[end + 4 + length:]
        return int(head.split(" ")[1]), head, body

    def _more(self):
        chunk = self.sock.recv(65536)
        if not chunk:
            raise ConnectionError("closed")
        self.buffer += chunk


@dataclass
class Deed:
    """A movement, or several that stand or fall together."""
    key: str
    path: str
    body: dict
    moves: list            # (type, from user or None, to user or None, cents), in the journal's order
    answer: bytes = None   # of its 201
    maybe: bool = False    # a try of it ended in a way that says nothing
    refused: bool = False  # given up after answers that all said "nothing was done"


@dataclass
class Read:
    user: int
    what: str
    own: object    # what the caller's own acknowledged writes imply
    seen: object
    stale: bool    # the answer said so


class History:
    def __init__(self):
        self.lock = threading.Lock()
        self.deeds = {}
        self.reads = []
        self.purses = {}  # user -> (cents, id of the newest movement), between the loads
        self.odd = []     # answers that nothing explains

    def add(self, deed):
        with self.lock:
            assert deed.key not in self.deeds
            self.deeds[deed.key] = deed

    def strange(self, *what):
        with self.lock:
            self.odd.append(what)

    def acknowledged(self):
        with self.lock:
            return [d for d in self.deeds.values() if d.answer is not None]


def cents(amount):
    return int(amount * 100)


def _answered(deed):
    """The ids in the answer, in the order of deed.moves."""
    answer = json.loads(deed.answer, parse_float=Decimal)
    return [r["transaction"]["id"] for r in answer["results"]] if "results" in answer else [answer["id"]]


def check_journal(entries, history, others=()):
    """entries: as exported. others: descriptions of what was not done by the history's clients."""
    assert [e["seq"] for e in entries] == list(range(1, len(entries) + 1)), "the journal has gaps or is out of order"
    found, total = defaultdict(list), defaultdict(int)
    for e in entries:
        total[e["currency"], e["debit"]] -= cents(e["amount"])
        total[e["currency"], e["credit"]] += cents(e["amount"])
        if e["description"] not in others:
            found[e["description"]].append(e)
    for currency in {c for c, _ in total}:
        assert sum(v for (c, _), v in total.items() if c == currency) == 0
    for key, deed in history.deeds.items():
        mine = found.pop(key, ())
        there = [(e["type"], e["from_user_id"], e["to_user_id"], cents(e["amount"])) for e in mine]
        if deed.answer is not None:
            assert there, f"lost: {key} was acknowledged and is not there: {deed.answer[:200]}"
            assert len(there) <= len(deed.moves), f"twice: {key} is there {len(there)} times"
            assert there == deed.moves, f"{key} was acknowledged as {deed.moves} and is there as {there}"
            ids = [e["seq"] for e in mine]
            assert ids == _answered(deed), f"{key} was answered {_answered(deed)} and is {ids}"
        elif deed.refused and not deed.maybe:
            assert not there, f"{key} was answered 'nothing was done' and is there: {there}"
        else:
            assert there in ([], deed.moves), f"{key}, never acknowledged, is there as {there}"
    assert not found, f"entries that nobody asked for: {list(found.items())[:3]}"


def check_reads(reads):
    late = [r for r in reads if not r.stale and r.seen != r.own]
    assert not late, f"{len(late)} of {len(reads)} reads were not what the caller had written, such as {late[:3]}"


def check(entries, history, others=()):
    """All of the journal, and the reads since the last check."""
    assert not history.odd, f"{len(history.odd)} odd answers, such as {history.odd[:3]}"
    check_journal(entries, history, others)
    with history.lock:
        reads, history.reads = history.reads, []
    check_reads(reads)


# ---- load ----


class Client(threading.Thread):
    """One caller with a purse of its own and a partner that it pays; which of the ports it asks is drawn each time."""

    def __init__(self, load, tag, user, partner, ports, seed):
        super().__init__(daemon=True)
        self.load, self.history, self.tag, self.partner, self.ports = load, load.history, tag, partner, ports
        self.user, self.key = user
        self.rng = random.Random(seed)
        self.connections = {}
        self.own, self.newest = self.history.purses.get(self.user, (0, None))
        self.n = 0
        self.wrote_at = self.read_at = 0.0
        self.slowest = 0.0

    # ---- one request ----

    def ask(self, *args):
        where = self.rng.choice(self.ports)
        host, port = where if isinstance(where, tuple) else ("127.0.0.1", where)
        begin = time.monotonic()
        try:
            c = self.connections.pop(where, None) or Connection(port, self.key, self.load.timeout, host)
            answer = c.ask(*args)
            if "connection: close" in answer[1]:
                c.close()
            else:
                self.connections[where] = c
            return answer
        except (OSError, ValueError, IndexError):
            return 0, "", b""
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begin)

    # ---- movements ----

    def draw(self):
        self.n += 1
        key, me, cent = f"{self.tag}-{self.n}", self.user, self.rng.randint(1, 99)
        kind = self.rng.random() if self.own > 500 else 0.9
        amount = f"0.{cent:02d}"
        if kind < 0.5:
            body, moves = {"from_user_id": me, "to_user_id": self.partner}, [("transfer", me, self.partner, cent)]
        elif kind < 0.6:
            body, moves = {"user_id": me}, [("withdraw", me, None, cent)]
        elif kind < 0.7:
            one = {"sender_id": me, "receiver_id": self.partner, "amount": amount, "description": key}
            return Deed(key, "/api/transactions/batch", {"transactions": [one] * 3},
                        [("transfer", me, self.partner, cent)] * 3)
        else:
            body, moves = {"user_id": me}, [("deposit", None, me, cent)]
        return Deed(key, "/api/transactions/" + moves[0][0], {**body, "amount": amount, "description": key}, moves)

    def move(self, deed):
        """Until it is acknowledged; False: given up."""
        self.history.add(deed)
        data = json.dumps(deed.body).encode()
        while True:
            status, head, answer = self.ask("POST", deed.path, f"Idempotency-Key: {deed.key}\r\n", data)
            if status == 201:
                break
            if status not in ASK_AGAIN or (status == 409 and b"request-in-flight" not in answer):
                self.history.strange(deed.key, status, answer[:300])
                return False
            deed.maybe |= status in UNKNOWN
            if status == 503 and "retry-after" not in head:
                self.history.strange(deed.key, "503 without Retry-After")
            if time.monotonic() > self.load.until:
                self.history.strange(deed.key, "was never acknowledged", status, answer[:300])
                return False
            if status == 503 and not deed.maybe and self.rng.random() < 0.1:
                deed.refused = True  # a client that takes "nothing was done" at its word
                return True
            time.sleep(self.rng.uniform(0.01, 0.06))
        deed.answer = answer
        self.wrote_at = time.monotonic()
        for _, source, _, cent in deed.moves:
            self.own += -cent if source == self.user else cent
        self.newest = _answered(deed)[-1]
        return True

    def replay(self):
        """One of its own that was acknowledged: the same answer, byte for byte."""
        deed = self.history.deeds[f"{self.tag}-{self.rng.randint(max(1, self.n - 20), self.n)}"]
        if deed.answer is None:
            return
        status, head, answer = self.ask("POST", deed.path, f"Idempotency-Key: {deed.key}\r\n", json.dumps(deed.body).encode())
        if status == 201 and (answer != deed.answer or "idempotency-replayed: true" not in head):
            self.history.strange(deed.key, "answered otherwise", deed.answer[:300], answer[:300])
        elif status not in (201, *ASK_AGAIN):
            self.history.strange(deed.key, status, answer[:300])

    # ---- reads ----

    def look(self):
        balance = self.rng.random() < 0.5
        path = f"/api/balances?user_id={self.user}" if balance else f"/api/transactions?user_id={self.user}&limit=1"
        status, head, answer = self.ask("GET", path)
        if status != 200:
            if status not in ASK_AGAIN:
                self.history.strange(path, status, answer[:300])
            return
        answer = json.loads(answer, parse_float=Decimal)
        stale = "x-payflow-stale: true" in head
        if balance:
            read = Read(self.user, "balance", self.own, cents(answer["balance"]), stale)
        else:
            read = Read(self.user, "newest", self.newest, answer["data"][0]["id"] if answer["data"] else None, stale)
        self.history.reads.append(read)
        if not stale:
            self.read_at = time.monotonic()

    def run(self):
        load = self.load
        seed = Deed(f"{self.tag}-0", "/api/transactions/deposit",
                    {"user_id": self.user, "amount": SEED // 100, "description": f"{self.tag}-0"},
                    [("deposit", None, self.user, SEED)])
        try:
            going = self.move(seed)
            while going and not load.over.is_set():
                going = self.move(self.draw())
                for _ in range(self.rng.randint(0, 2)):
                    if going and not load.over.is_set():
                        self.look()
                if self.rng.random() < 0.05:
                    self.replay()
                time.sleep(self.rng.uniform(0, 2 * load.think))
        except Exception as e:  # pylint: disable=broad-except
            self.history.strange(self.tag, repr(e))
        finally:
            self.history.purses[self.user] = self.own, self.newest
            for c in self.connections.values():
                c.close()


class Load:
    """Clients at work; as a context manager it stops them, and all have then been answered.

    users: (id, API key) each, two for a client: itself, and whom it pays. ports: those that each client asks (a port, or
    (host, port)); by_client: each asks one of them only."""
    number = 0

    def __init__(self, history, users, ports, think=0.02, timeout=12.0, by_client=False, seed=None):
        Load.number += 1
        self.history, self.think, self.timeout = history, think, timeout
        self.over, self.until = threading.Event(), float("inf")
        self.seed = random.randrange(1 << 32) if seed is None else seed
        print(f"load {Load.number}: seed {self.seed}")
        rng = random.Random(self.seed)
        half = len(users) // 2
        self.clients = [Client(self, f"l{Load.number}c{i}", users[i], users[half + i % 2][0],
                               [ports[i % len(ports)]] if by_client else ports, rng.random()) for i in range(half)]

    def __enter__(self):
        for c in self.clients:
            c.start()
        self.came_back(20)
        return self

    def __exit__(self, kind, *_):
        self.until = time.monotonic() + 20
        self.over.set()
        for c in self.clients:
            c.join(40)
        if kind is None:
            assert not any(c.is_alive() for c in self.clients), "a client was never answered"

    def came_back(self, seconds=10.0, since=None, clients=None):
        """Every client, or these, has a movement acknowledged and a read that is not stale answered after `since` (now),
        within so many seconds of it; how long that took."""
        since = since or time.monotonic()
        clients = clients or self.clients
        while True:
            waiting = [c for c in clients if min(c.wrote_at, c.read_at) <= since]
            if not waiting:
                return time.monotonic() - since
            assert not self.history.odd, self.history.odd[:3]
            assert time.monotonic() < since + seconds, \
                f"after {seconds} s {len(waiting)} of {len(clients)} clients wait still: {waiting[0].tag}, " \
                f"write {waiting[0].wrote_at - since:.1f} s, read {waiting[0].read_at - since:.1f} s"
            time.sleep(0.01)
