#!/usr/bin/python3
"""kill -9 at random moments under 32 writers, again and again.

After each kill: `payflow verify` is clean; the journal holds every acknowledged movement exactly once, no other one
twice, and batches whole or not at all; the server is ready again within PAYFLOW_READY_S seconds; an unanswered request
sent again with its key ends up there exactly once.

    tests/e2e/crash.py --rounds 100 [--writers 32] [--seed N] [--data DIR]
"""
import os
import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import harness
from history import Connection

READY_S = 1.0       # the contract's bound, on a machine of its own; among other tests ten times that
ROUNDS_PER_DIR = 10  # a new DATA_DIR after so many rounds, so that reading the whole journal each round stays cheap
USERS = 8


class Deeds:
    """What was asked and what was acknowledged; each deed's mark stands in its description and key."""

    def __init__(self):
        self.lock = threading.Lock()
        self.asked = {}         # mark -> (path, body, how many journal entries it makes)
        self.acknowledged = {}  # mark -> the 201's body
        self.odd = []           # answers that are neither 201 nor insufficient funds

    def ask(self, mark, path, body, entries):
        with self.lock:
            self.asked[mark] = (path, body, entries)

    def answer(self, mark, status, body):
        with self.lock:
            if status == 201:
                self.acknowledged[mark] = body
            elif status == 422 and b"insufficient-funds" in body or b"batch-refused" in body:
                self.asked.pop(mark)
            elif status == 503:
                self.asked.pop(mark)
            else:
                self.odd.append((mark, status, body[:200]))


def writer(server, key, users, deeds, tag, rng):
    try:
        connection = Connection(server.port, key)
        n = 0
        while True:
            n += 1
            mark = f"{tag}-{n}"
            a, b = rng.sample(users, 2)
            amount = f"0.{rng.randint(1, 99):02d}"
            kind = rng.random()
            if kind < 0.4:
                path, entries = "/api/transactions/transfer", 1
                body = {"from_user_id": a, "to_user_id": b, "amount": amount, "description": mark}
            elif kind < 0.7:
                path, entries = "/api/transactions/deposit", 1
                body = {"user_id": a, "amount": amount, "description": mark}
            elif kind < 0.9:
                path, entries = "/api/transactions/withdraw", 1
                body = {"user_id": a, "amount": amount, "description": mark}
            else:
                path, entries = "/api/transactions/batch", 4
                body = {"transactions": [{"sender_id": a, "receiver_id": b, "amount": "0.01", "description": mark}] * 4}
            deeds.ask(mark, path, body, entries)
            deeds.answer(mark, *connection.post(path, mark, body))
    except (OSError, ConnectionError, ValueError, IndexError):
        pass  # the server was killed under us: what was unanswered stays in deeds.asked


def check_journal(data, env, deeds):
    """The exported journal against what was asked and acknowledged."""
    entries = harness.export(data, env)
    seqs = [e["seq"] for e in entries]
    assert seqs == list(range(1, len(seqs) + 1)), "the journal has gaps or is out of order"
    count, total = Counter(), Counter()
    for e in entries:
        if e["description"]:
            count[e["description"]] += 1
        total[e["currency"], e["debit"]] -= Decimal(str(e["amount"]))
        total[e["currency"], e["credit"]] += Decimal(str(e["amount"]))
    for mark in deeds.acknowledged:
        want = deeds.asked[mark][2]
        assert count[mark] == want, f"{mark} was acknowledged but is there {count[mark]} of {want} times"
    for mark, (_, _, want) in deeds.asked.items():
        assert count[mark] in (0, want), f"{mark}: {count[mark]} of {want} entries"
    strangers = set(count) - set(deeds.asked) - {"seed money"}
    assert not strangers, f"entries that nobody is owed: {list(strangers)[:3]}"
    assert sum(total.values()) == 0
    return len(entries)


def check_books(server):
    r = server.admin.bank.get("/api/v1/admin/reconciliation")
    assert r.status_code == 200 and harness.reconciled(r), r.text


def settle(server, key, deeds, rng):
    """Some unanswered deeds are sent again, some acknowledged ones too: each exactly once, and the same answer."""
    connection = Connection(server.port, key)
    open_marks = [m for m in deeds.asked if m not in deeds.acknowledged]
    for mark in rng.sample(open_marks, min(12, len(open_marks))):
        path, body, _ = deeds.asked[mark]
        deeds.answer(mark, *connection.post(path, mark, body))
    done = list(deeds.acknowledged)
    for mark in rng.sample(done, min(5, len(done))):
        path, body, _ = deeds.asked[mark]
        status, answer = connection.post(path, mark, body)
        assert (status, answer) == (201, deeds.acknowledged[mark]), f"{mark} was answered otherwise: {status} {answer}"


class Campaign:
    def __init__(self, base, writers=32, seed=None, load=(0.05, 0.6)):
        self.base = Path(base)
        self.writers = writers
        self.seed = seed if seed is not None else random.randrange(1 << 32)
        self.rng = random.Random(self.seed)
        self.load = load
        self.server = None
        self.deeds = None
        self.users = []
        self.slowest = 0.0
        self.acknowledged = 0

    def open(self, round_no):
        self.server = harness.start_server(self.base / f"data{round_no}", env={"LOG_LEVEL": "warn"})
        self.deeds = Deeds()
        self.users = [harness.new_user(self.server).id for _ in range(USERS)]
        for u in self.users:
            r = self.server.admin.api.post("/api/transactions/deposit",
                                           json={"user_id": u, "amount": 20, "description": "seed money"})
            assert r.status_code == 201, r.text
        assert self.server.admin.key and self.server.admin.jwt

    def close(self):
        if self.server:
            check_books(self.server)
            assert self.server.stop() == 0
            self.verify()
            check_journal(self.server.data, self.server.env, self.deeds)
            shutil.rmtree(self.server.data)
            self.server = None

    def verify(self):
        r = harness.cli("verify", "--data", self.server.data, env=self.server.env)
        assert r.returncode == 0, f"verify: {r.stdout}{r.stderr}"

    def round(self, number):
        if self.server is None:
            self.open(number)
        s, key = self.server, self.server.admin.key
        threads = [threading.Thread(target=writer, args=(s, key, self.users, self.deeds, f"r{number}w{w}",
                                                         random.Random(self.rng.random())), daemon=True)
                   for w in range(self.writers)]
        for t in threads:
            t.start()
        time.sleep(self.rng.uniform(*self.load))
        s.kill9()
        for t in threads:
            t.join(15)
        assert not self.deeds.odd, self.deeds.odd[:3]
        self.verify()
        check_journal(s.data, s.env, self.deeds)
        s.start()
        self.slowest = max(self.slowest, s.ready_s)
        assert s.ready_s <= float(os.environ.get("PAYFLOW_READY_S", 10 * READY_S)), f"ready only after {s.ready_s:.2f} s"
        settle(s, key, self.deeds, self.rng)
        self.acknowledged += len(self.deeds.acknowledged)
        if number % ROUNDS_PER_DIR == ROUNDS_PER_DIR - 1:
            self.close()

    def run(self, rounds, tell=lambda line: None):
        try:
            for n in range(rounds):
                self.round(n)
                tell(f"round {n + 1}: {len(self.deeds.acknowledged)} acknowledged in this journal, "
                     f"ready again in {self.slowest * 1000:.0f} ms at worst")
            self.close()
        except AssertionError as e:
            raise AssertionError(f"seed {self.seed}: {e}") from e
        finally:
            if self.server:
                self.server.kill9()
                if self.server in harness.LIVE:
                    harness.LIVE.remove(self.server)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=100)
    p.add_argument("--writers", type=int, default=32)
    p.add_argument("--seed", type=int)
    p.add_argument("--data", help="where the journals are made; default: a temporary directory, kept on failure")
    a = p.parse_args()
    os.environ.setdefault("PAYFLOW_READY_S", str(READY_S))
    base = Path(a.data or tempfile.mkdtemp(prefix="payflow-crash-"))
    campaign = Campaign(base, a.writers, a.seed)
    print(f"seed {campaign.seed}, {a.rounds} rounds, {a.writers} writers, in {base}", flush=True)
    begin = time.monotonic()
    try:
        campaign.run(a.rounds, lambda line: print(line, flush=True))
    except AssertionError as e:
        print(f"FAILED: {e}\nkept: {base}", file=sys.stderr)
        return 1
    if not a.data:
        shutil.rmtree(base)
    print(f"{a.rounds} rounds in {time.monotonic() - begin:.0f} s: nothing lost, nothing twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
