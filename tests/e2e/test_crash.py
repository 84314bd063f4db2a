"""The kill -9 campaign (see crash.py), and crashes in moments that chance rarely finds."""
import json
import os
import signal
import threading
import time

import pytest

import crash
from harness import cli, export, new_user, ok, page, reconciled, unique

ROUNDS = int(os.environ.get("PAYFLOW_CRASH_ROUNDS", "100"))
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_kill_9_under_32_writers(tmp_path, part):
    rounds = ROUNDS // PARTS + (part < ROUNDS % PARTS)
    campaign = crash.Campaign(tmp_path)
    campaign.run(rounds)
    assert rounds == 0 or campaign.acknowledged > rounds, "hardly anything was written"


def test_first_deposit_and_transfer(fresh):
    """The issue's first thing to finish: acknowledged, killed, read back."""
    s = fresh()
    u, v = new_user(s), new_user(s)
    ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": "100.50"}), 201)
    t = ok(u.api.post("/api/transactions/transfer",
                      json={"from_user_id": u.id, "to_user_id": v.id, "amount": 25}), 201)
    s.restart(kill=True)
    assert (str(u.balance()), str(v.balance())) == ("75.50", "25.00")
    assert ok(u.api.get(f"/api/transactions/{t['id']}"))["uuid"] == t["uuid"]


def test_users_and_keys_are_durable_too(fresh):
    s = fresh()
    for _ in range(8):
        u = new_user(s)
        key = u.key
        s.restart(kill=True)
        assert ok(s.client(key=key).get(f"/api/users/{u.id}"))["username"] == u.username


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1])
def test_killed_while_starting(fresh, delay):
    """Migrations and recovery may be cut anywhere."""
    s = fresh(start=False)
    for _ in range(3):
        thread = threading.Thread(target=lambda: time.sleep(delay) or s.process and s.process.kill())
        try:
            thread.start()
            s.start(timeout=5)
        except AssertionError:
            pass
        thread.join()
        s.kill9()
    s.start()
    s.admin = new_user(s, role="admin", name="root")
    assert s.admin.id == 1
    s.kill9()
    assert cli("verify", "--data", s.data).returncode == 0


def test_numbers_go_on_after_a_crash(fresh):
    s = fresh()
    u = new_user(s)
    last = 0
    for _ in range(5):
        for _ in range(3):
            t = ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
            assert t["id"] > last
            last = t["id"]
        s.restart(kill=True)
    s.stop()
    rows = export(s.data)
    assert [e["seq"] for e in rows] == list(range(1, len(rows) + 1))


def test_history_and_replay_after_crashes(fresh):
    s = fresh()
    u = new_user(s)
    for i in range(1, 151):
        ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
        if i % 50 == 7:
            s.restart(kill=True)
    d = ok(u.api.post(f"/api/balances/replay?user_id={u.id}"))
    assert (d["balance"], d["stored_balance"], d["events_replayed"], d["consistent"]) == (150, 150, 150, True)
    for offset in (0, 63, 64, 100, 148):
        rows = page(u.api.get(f"/api/balances/history?user_id={u.id}&limit=2&offset={offset}"))["data"]
        assert [r["balance"] for r in rows] == [150 - offset, 149 - offset]
    assert reconciled(s.admin.bank.get("/api/v1/admin/reconciliation"))


def test_stopped_and_continued(fresh):
    """A process that was frozen for a while goes on as if nothing was."""
    s = fresh()
    u = new_user(s)
    s.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    s.process.send_signal(signal.SIGCONT)
    ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
    assert u.balance() == 1


def test_in_flight_key_is_settled_by_a_retry(fresh):
    """Killed between sending and answering: a retry with the key gives 201, and the money moved once."""
    s = fresh()
    u = new_user(s)
    for i in range(12):
        key = unique("settle")
        body = {"user_id": u.id, "amount": 1}
        connection = crash.Connection(s.port, u.key)
        data = json.dumps(body).encode()
        connection.sock.sendall(f"POST /api/transactions/deposit HTTP/1.1\r\n{connection.head}Idempotency-Key: {key}"
                                f"\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        time.sleep(i * 0.0004)
        s.restart(kill=True)
        ok(u.api.post("/api/transactions/deposit", json=body, headers={"Idempotency-Key": key}), 201)
        assert u.balance() == i + 1
