"""`payflow copy`: an embedded installation with some of everything, moved to a real PostgreSQL and served on from there."""
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

import harness
from harness import BIN, cli, environment, eventually, new_user, ok, utc
from postgres import PASSWORD

V1 = "/api/v1"
LATER = "2099-01-01T10:30:00Z"
ENTRIES = 220_000


@pytest.fixture(autouse=True)
def empty_database(cluster):
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'payflow'")
    cluster.sql("DROP SCHEMA public CASCADE")
    cluster.sql("CREATE SCHEMA public AUTHORIZATION payflow")


def url(cluster, password=PASSWORD):
    return f"postgres://payflow:{password}@127.0.0.1:{cluster.port}/payflow"


def copy(cluster, data, *more, **kw):
    return cli("copy", "--from", f"sqlite:{data}", "--to", url(cluster), *more, **kw)


def rows(cluster):
    """Rows by table; {} when there is no schema."""
    tables = cluster.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").split()
    return {t: int(cluster.sql(f"SELECT count(*) FROM {t}")) for t in tables}


def is_empty(cluster):
    """But for the schema and its one-row tables, which are as they were made."""
    n = rows(cluster)
    kept = {t for t in n if n[t]} - {"schema_migration", "ledger_head", "record_ids", "ticket_ids", "lease", "cache_word"}
    return not kept and (not n or (cluster.sql("SELECT head_seq, next_account, accounts FROM ledger_head") == "0|1000|0" and
                                   cluster.sql("SELECT * FROM record_ids") == "t|0|0|0|0|0" and
                                   cluster.sql("SELECT * FROM ticket_ids") == "t|1|1"))


def prints(data):
    """What is in the directory, byte for byte. An empty log and its index are left by whoever reads the database."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in data.iterdir()
            if not p.name.endswith("-shm") and not (p.name.endswith("-wal") and p.stat().st_size == 0)}


def one_line(r):
    lines = [line for line in r.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1 and PASSWORD not in r.stderr + r.stdout, r.stderr
    return lines[0]


def lively(server):
    """Some of everything that the program can record; what was answered, for later."""
    w = type("World", (), {})()
    root, anon = server.admin, server.anon
    w.root = root
    w.ann, w.bob, w.gone = new_user(server, fund="1000.00"), new_user(server), new_user(server)
    ok(root.api.post("/api/transactions/deposit", json={"user_id": w.ann.id, "amount": 500, "currency": "JPY"}), 201)
    ok(root.api.post("/api/transactions/deposit", json={"user_id": w.bob.id, "amount": "1.234", "currency": "KWD"}), 201)
    w.keyed = []
    for i in range(150):  # marks: more than 64 entries of an account
        body = {"from_user_id": w.ann.id, "to_user_id": w.bob.id, "amount": "1.25", "description": f"çay \t\\N {i}"}
        r = w.ann.api.post("/api/transactions/transfer", json=body, headers={"Idempotency-Key": f"rent {i} '\"\\"})
        assert r.status_code == 201, r.text
        w.keyed.append((r.request.headers["idempotency-key"], body, r.content, r.status_code))
    body = {"transactions": [{"sender_id": w.ann.id, "receiver_id": w.bob.id, "amount": 1} for _ in range(40)]}
    r = w.ann.api.post("/api/transactions/batch", json=body, headers={"Idempotency-Key": "batch"})
    assert r.status_code == 201, r.text
    w.batch = (body, r.content)
    r = w.ann.api.post("/api/transactions/transfer", headers={"Idempotency-Key": "too much"},
                       json={"from_user_id": w.ann.id, "to_user_id": w.bob.id, "amount": 99999})
    w.refused = (json.loads(r.request.content), r.status_code)
    t = ok(w.bob.bank.post(V1 + "/transactions/transfer", json={"to_user_id": w.ann.uuid, "amount": 7}), 201)
    w.back = t["id"]
    ok(root.bank.post(f"{V1}/transactions/{t['id']}/rollback", json={"reason": "oops"}), 201)
    ok(root.bank.post(f"{V1}/admin/users/{w.bob.uuid}/freeze", json={"currency": "KWD", "reason": "held"}), 201)
    ok(anon.put(f"/api/users/{w.ann.id}", json={"email": "Ann@Example.com"}, headers={"X-API-Key": w.ann.key}))
    w.ann.email = "Ann@Example.com"
    ok(root.api.delete(f"/api/users/{w.gone.id}"))
    w.plan = ok(w.ann.bank.post(V1 + "/scheduled-transactions", json={
        "type": "transfer", "to_user_id": w.bob.uuid, "amount": 3, "scheduled_at": LATER, "recurrence": "monthly",
        "description": "plan"}), 201)["id"]
    run = ok(w.ann.bank.post(V1 + "/scheduled-transactions", json={
        "type": "credit", "amount": 5, "scheduled_at": utc(0.3), "description": "soon"}), 201)["id"]
    eventually(lambda: ok(w.ann.bank.get(f"{V1}/scheduled-transactions/{run}"))["status"] == "completed")
    w.due = ok(w.ann.bank.post(V1 + "/scheduled-transactions", json={
        "type": "credit", "amount": 11, "scheduled_at": LATER, "description": "when it has moved"}), 201)["id"]
    w.session = w.bob.login()
    ended = w.ann.login()
    r = anon.post(V1 + "/auth/refresh", json={"refresh_token": ended["refresh_token"]})
    w.used, w.renewed = ended["refresh_token"], ok(r)["refresh_token"]
    old = w.bob.key
    w.bob._cache.clear()
    assert w.bob.key != old
    keys = ok(w.bob.api.get(f"/api/users/{w.bob.id}/api-keys"))["data"]
    ok(w.bob.api.delete(f"/api/users/{w.bob.id}/api-keys/{keys[-1]['id']}"))
    return w


def questions(w):
    """(who, path): every list and figure that the two servers must agree on."""
    for u in (w.ann, w.bob):
        for c in ("USD", "JPY", "KWD"):
            yield u, f"/api/balances?user_id={u.id}&currency={c}"
            yield u, f"/api/balances/history?user_id={u.id}&currency={c}&limit=100"
        yield u, f"/api/users/{u.id}"
        yield u, f"/api/users/{u.id}/api-keys"
        for offset in (0, 90, 180):
            yield u, f"/api/transactions?user_id={u.id}&limit=100&offset={offset}"
        yield u, f"/api/transactions?user_id={u.id}&status=rolled_back"
    yield w.root, "/api/users?limit=100"
    yield w.root, "/api/transactions/stats"
    yield w.root, f"/api/transactions/{w.back}"


def bank_questions(w):
    for u in (w.ann, w.bob):
        yield u, V1 + "/balances/current"
        yield u, V1 + "/balances/historical?limit=100"
        yield u, V1 + "/transactions/history?limit=100"
    yield w.ann, f"{V1}/scheduled-transactions/{w.plan}"
    yield w.root, V1 + "/admin/reconciliation"
    for offset in (0, 100):
        yield w.root, f"{V1}/admin/audit?limit=100&offset={offset}"
    for after in (0, 100, 200):
        yield w.root, f"{V1}/admin/journal?limit=100&after_seq={after}"


def answers(server, w):
    out = {}
    for banking, asked in ((False, questions(w)), (True, bank_questions(w))):
        for u, path in asked:
            with server.client(jwt=u.jwt) if banking else server.client(key=u.key) as c:
                r = c.get(path)
            body = r.json()
            if path.endswith("reconciliation"):
                body = {k: v for k, v in body.items() if k in ("consistent", "currencies", "trial_balance", "entries")}
            body.pop("request_id", None)
        out[u.username, path] = (r.status_code, body)
    return out


def sell_tickets(data):
    """Rows of ticketing, as they would be: an event, a booking that holds two tickets, messages out and in."""
    with sqlite3.connect(data / "payflow.db") as db:
        event, booking, message = os.urandom(16), os.urandom(16), os.urandom(16)
        db.execute("INSERT INTO event VALUES (3, ?, 2, 10, 2, 0, 0, 840, 0, 0, 1)", (event,))
        db.execute("INSERT INTO booking VALUES (7, ?, 3, -5, 0, 'guest\t\\N', 2, 0, 840, 0, 0, 1, 0, 0, 9, 1, 1)", (booking,))
        db.execute("INSERT INTO outbox VALUES (5, ?, 'BookingCreated', x'00ff', '{}', 1)", (message,))
        db.execute("INSERT INTO inbox VALUES (?, 'payment')", (message,))
        db.execute("INSERT INTO event_document VALUES (?, 1, 0, 'caf\u00e9', '{\"title\":\"caf\u00e9 \\\\ \\\"x\\\"\"}')", (event,))
        db.execute("UPDATE ticket_ids SET booking = 8, outbox = 6")
    db.close()


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_everything_goes_over(cluster, fresh, killed):
    s = fresh("embedded", env={"FLUSH_ENTRIES": "64"} if killed else None)
    w = lively(s)
    before = answers(s, w)
    journal = cli("journal", "export", "--data", s.data, env=s.env).stdout
    if killed:  # accounts and statistics in their tables are then older than the journal
        s.kill9()
    else:
        assert s.stop() == 0
    sell_tickets(s.data)
    as_it_was = prints(s.data)

    r = copy(cluster, s.data, "-o", "json")
    assert r.returncode == 0 and not r.stderr, r.stderr
    d = json.loads(r.stdout)
    assert d["ok"] and d["verify"]["ok"] and d["rows"] == sum(d["tables"].values())
    assert all(d["tables"][t] > 0 for t in d["tables"] if t != "open_hold"), d["tables"]
    assert all(t["sum"] == 0 for t in d["trial_balance"]) and len(d["trial_balance"]) == 3
    assert prints(s.data) == as_it_was, "the source was changed"
    with sqlite3.connect(f"file:{s.data}/payflow.db?mode=ro", uri=True) as db:
        head = db.execute("SELECT last_seq, lower(hex(hash)) FROM seal ORDER BY last_seq DESC LIMIT 1").fetchone()
    assert (d["head_seq"], d["seal"]) == head
    assert cluster.sql("SELECT head_seq, encode(seal, 'hex') FROM ledger_head") == "|".join(map(str, head))

    assert cluster.sql("SELECT event FROM record_ids") == "3" and cluster.sql("SELECT * FROM ticket_ids") == "t|8|6"
    assert cluster.sql("SELECT guest FROM booking") == "guest\t\\N"

    env = cluster.env()
    r = cli("verify", "-o", "json", env=environment(**env))
    assert r.returncode == 0 and json.loads(r.stdout)["entries"] == head[0], r.stdout
    assert cli("journal", "export", env=environment(**env)).stdout == journal

    t = fresh("shared", env=env, admin=False)
    after = answers(t, w)
    for question, answer in before.items():
        assert after[question] == answer, question
    for key, body, content, status in w.keyed:
        with t.client(key=w.ann.key) as c:
            r = c.post("/api/transactions/transfer", json=body, headers={"Idempotency-Key": key})
        assert (r.status_code, r.content) == (status, content) and r.headers["idempotency-replayed"] == "true", key
    with t.client(key=w.ann.key) as c:
        r = c.post("/api/transactions/batch", json=w.batch[0], headers={"Idempotency-Key": "batch"})
        assert r.content == w.batch[1] and r.headers["idempotency-replayed"] == "true"
        other = {**w.keyed[0][1], "amount": "2"}
        r = c.post("/api/transactions/transfer", json=other, headers={"Idempotency-Key": w.keyed[0][0]})
        assert r.status_code == 422 and "idempotency" in r.json()["type"], r.text

    # what proves who somebody is, used and unused, went over as it was
    login = t.anon.post("/api/login", json={"username": w.ann.username.upper(), "password": w.ann.password})
    assert ok(login)["user_id"] == w.ann.id if "user_id" in login.json() else login.status_code == 200
    ok(t.anon.post(V1 + "/auth/login", json={"email": "ann@example.com", "password": w.ann.password}))
    assert t.anon.post("/api/login", json={"username": w.gone.username, "password": w.gone.password}).status_code == 401
    ok(t.anon.post(V1 + "/auth/refresh", json={"refresh_token": w.session["refresh_token"]}))
    assert t.anon.post(V1 + "/auth/refresh", json={"refresh_token": w.used}).status_code == 401

    # numbers go on where they were
    with sqlite3.connect(f"file:{s.data}/payflow.db?mode=ro", uri=True) as db:
        last = {x: db.execute(f"SELECT max(id) FROM {x}").fetchone()[0] for x in ("user", "api_key", "schedule", "audit")}
        accounts = db.execute("SELECT max(id) FROM account").fetchone()[0]
    u = new_user(t)
    assert u.id == last["user"] + 1
    with t.client(key=w.root.key) as c:
        ok(c.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 5}), 201)
    with t.client(jwt=u.jwt) as c:
        ok(c.post(V1 + "/scheduled-transactions", json={"type": "credit", "amount": 1, "scheduled_at": LATER}), 201)
    assert int(cluster.sql(f"SELECT max(id) FROM account WHERE owner = {u.id}")) == accounts + 1
    assert int(cluster.sql("SELECT max(id) FROM schedule")) == last["schedule"] + 1
    assert int(cluster.sql("SELECT max(id) FROM api_key")) > last["api_key"]
    assert int(cluster.sql("SELECT min(id) FROM audit WHERE actor = 0 OR id > " + str(last["audit"]))) > 0
    assert t.stop() == 0
    cluster.sql("UPDATE schedule SET next_us = 1, anchor_us = 1 WHERE description = 'when it has moved'")
    t.start()
    with t.client(jwt=w.ann.jwt) as c:
        eventually(lambda: ok(c.get(f"{V1}/scheduled-transactions/{w.due}"))["status"] == "completed")
        history = ok(c.get(V1 + "/transactions/history?limit=100"))["data"]
    assert sum(x["description"] == "when it has moved" for x in history) == 1
    assert t.stop() == 0
    assert cli("verify", env=environment(**env)).returncode == 0


def test_no_table_is_forgotten(cluster, fresh):
    """Whoever adds a table says what becomes of it: it is copied, or is one of these."""
    s = fresh()
    assert s.stop() == 0
    d = json.loads(copy(cluster, s.data, "-o", "json").stdout)
    engine = {"schema_migration", "ledger_head", "record_ids", "receipt", "ticket_ids", "lease", "cache_word"}
    assert set(rows(cluster)) == set(d["tables"]) | engine
    with sqlite3.connect(f"file:{s.data}/payflow.db?mode=ro", uri=True) as db:
        tables = {x[0] for x in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    engine = {"schema_migration", "projection", "idempotency_index", "sqlite_sequence", "ticket_ids"}
    assert tables - engine == {"user" if t == "users" else t for t in d["tables"]}


def test_an_empty_installation_and_what_is_said(cluster, fresh):
    s = fresh(admin=False)
    assert s.stop() == 0
    env = environment(**cluster.env(), DATA_DIR=s.data)
    r = cli("copy", env=env)  # both ends by the settings
    assert r.returncode == 0 and "ok: 0 rows" in r.stdout and r.stdout.count(" rows\n") >= 15, r.stdout + r.stderr
    assert cli("verify", env=env).returncode == 0
    assert new_user(fresh("shared", env=cluster.env(), admin=False)).id == 1
    text = cli("copy", "--help").stdout
    assert "--from" in text and "--to" in text and "\n  copy" in cli("--help").stdout


def test_a_target_that_is_not_empty(cluster, fresh):
    s = fresh()
    new_user(s, fund="5")
    assert s.stop() == 0
    assert copy(cluster, s.data).returncode == 0
    before = cluster.sql("SELECT * FROM ledger_head"), rows(cluster)
    r = copy(cluster, s.data)
    assert r.returncode == 78 and "not empty" in one_line(r), r.stderr
    assert (cluster.sql("SELECT * FROM ledger_head"), rows(cluster)) == before


@pytest.mark.parametrize("statement", [
    "INSERT INTO session VALUES (decode(repeat('00', 16), 'hex'), 1, 1, 1, 0)",
    "INSERT INTO idempotency VALUES (0, 'k', decode(repeat('00', 32), 'hex'), 200, 0, '')",
    "UPDATE record_ids SET users = 3",
    "UPDATE ledger_head SET next_account = 1001",
    "DELETE FROM ledger_head",
])
def test_anything_in_the_target_counts(cluster, fresh, statement):
    s = fresh()
    assert s.stop() == 0 and cli("migrate", "up", env=environment(**cluster.env())).returncode == 0
    cluster.sql(statement)
    before = rows(cluster)
    r = copy(cluster, s.data)
    assert r.returncode == 78 and "not empty" in one_line(r), r.stderr
    assert rows(cluster) == before


def test_a_source_in_use_or_absent(cluster, fresh, tmp_path):
    s = fresh()
    r = copy(cluster, s.data)
    assert r.returncode == 78 and "in use" in one_line(r), r.stderr
    assert s.stop() == 0
    r = copy(cluster, tmp_path / "nowhere")
    assert r.returncode == 78 and "no database" in one_line(r), r.stderr
    assert not (tmp_path / "nowhere").exists()
    assert rows(cluster) == {}
    # and the other way round: no server starts on the source while it is being copied
    holder = subprocess.Popen(["flock", str(s.data / "lock"), "sleep", "60"], start_new_session=True)
    try:
        eventually(lambda: copy(cluster, s.data).returncode == 78)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
    assert eventually(lambda: copy(cluster, s.data).returncode == 0)


@pytest.mark.parametrize("change, says", [
    ("UPDATE journal SET amount = amount + 1 WHERE seq = 2", "entry 2"),
    ("DELETE FROM journal WHERE seq = 2", "entry 2"),
    ("UPDATE journal SET description = 'x' WHERE seq = 1", "does not verify"),
    ("DELETE FROM seal WHERE last_seq = (SELECT max(last_seq) FROM seal)", "does not verify"),
    ("UPDATE account SET balance = balance + 1, held = 0 WHERE id = 1000", "does not verify"),
    ("UPDATE account SET balance = -5 WHERE id = 1000", "does not verify"),
    ("DELETE FROM mark WHERE account = 1000", "does not verify"),
    ("UPDATE journal SET kind = 70000 WHERE seq = 3", "does not verify"),
    # no proof covers these: PostgreSQL refuses them, or its rules do
    ("UPDATE user SET username = CAST(x'6100' AS TEXT) WHERE id = 1", "table users"),
    ("UPDATE user SET username = CAST(x'ff' AS TEXT) WHERE id = 1", "table users"),
    ("UPDATE account SET flags = 40000 WHERE id = 1000", "verify"),
    ("DROP INDEX user_username; UPDATE user SET username_fold = 'root'", "table users"),
    ("INSERT INTO idempotency SELECT id + 1000, hash, principal, key, request, status, seq, body FROM idempotency",
     "table idempotency"),
], ids=range(13))
def test_a_source_that_was_tampered_with(cluster, fresh, change, says):
    s = fresh()
    u, v = new_user(s, fund="500"), new_user(s)
    for i in range(70):
        ok(u.api.post("/api/transactions/transfer", json={"from_user_id": u.id, "to_user_id": v.id, "amount": 1},
                      headers={"Idempotency-Key": f"k{i}"}), 201)
    assert s.stop() == 0
    db = sqlite3.connect(s.data / "payflow.db", isolation_level=None)
    for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    db.executescript("PRAGMA ignore_check_constraints = ON;" + change)
    db.close()
    before = prints(s.data)
    r = copy(cluster, s.data)
    assert r.returncode in (1, 78) and says in one_line(r), r.stdout + r.stderr
    if "does not verify" in says or "entry" in says:
        assert r.returncode == 1 and "does not verify" in r.stderr and rows(cluster) == {}
    assert is_empty(cluster) and prints(s.data) == before


@pytest.mark.parametrize("trigger", [
    ("users", "NEW.email := 'x' || NEW.email; RETURN NEW"),
    ("idempotency", "NEW.status := 500; RETURN NEW"),
    ("journal", "NEW.description := ''; RETURN NEW"),
    ("audit", "RETURN NULL"),
], ids=lambda t: t[0])
def test_a_difference_is_found_and_nothing_is_kept(cluster, fresh, trigger):
    """The database changes a row on its way in."""
    s = fresh()
    u = new_user(s)
    ok(s.admin.api.post("/api/transactions/deposit", headers={"Idempotency-Key": "k"},
                        json={"user_id": u.id, "amount": 1, "description": "text"}), 201)
    assert s.stop() == 0 and cli("migrate", "up", env=environment(**cluster.env())).returncode == 0
    cluster.sql(f"CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {trigger[1]}; END $$")
    cluster.sql(f"CREATE TRIGGER spoil BEFORE INSERT ON {trigger[0]} FOR EACH ROW EXECUTE FUNCTION spoil()")
    r = copy(cluster, s.data)
    assert r.returncode == 1 and f"DIFFERENCE: table {trigger[0]}" in r.stdout, r.stdout + r.stderr
    assert is_empty(cluster)
    r = copy(cluster, s.data, "-o", "json")
    assert r.returncode == 1 and json.loads(r.stdout)["ok"] is False and trigger[0] in json.loads(r.stdout)["what"]
    cluster.sql(f"DROP TRIGGER spoil ON {trigger[0]}")
    assert copy(cluster, s.data).returncode == 0


def test_wrong_words(cluster, fresh):
    s = fresh()
    assert s.stop() == 0
    good, here = url(cluster), f"sqlite:{s.data}"
    for source, target, code, says in [
            (here, url(cluster, "hunter2hunter2"), 78, "password authentication failed"),
            (here, good[:good.rindex("/")] + "/elsewhere", 78, "does not exist"),
            (here, good.replace(str(cluster.port), "1"), 78, "refused"),
            (here, good + "?sslmode=require", 78, "SSL"),
            (here, "postgres://payflow:hunter2hunter2@[h/x", 78, "not a well-formed"),
            (here, "mysql://payflow:hunter2hunter2@h/x", 2, "--to postgres://"),
            (here, here, 2, "--to postgres://"),
            (good, good, 2, "--from sqlite:"),
            ("sqlite:" + str(s.data / "other.db"), good, 2, "--from sqlite:")]:
        r = cli("copy", "--from", source, "--to", target)
        assert r.returncode == code and says in one_line(r), (target, r.returncode, r.stderr)
        assert "hunter2" not in r.stderr + r.stdout
        assert rows(cluster) == {}
    assert cli("copy", "--from", here).returncode == 2
    secret = s.data / "password"
    secret.write_text(PASSWORD + "\n")
    bare = url(cluster).replace(":" + PASSWORD, "")
    env = environment(DB_PASSWORD_FILE=secret, DB_HOST="not-this-one.invalid", DB_NAME="nor-this")
    assert cli("copy", "--from", str(s.data / "payflow.db"), "--to", bare, env=env).returncode == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Many entries; its directory."""
    s = harness.start_server(tmp_path_factory.mktemp("large") / "data")
    users = [new_user(s, fund="1000000") for _ in range(8)]
    for i in range(ENTRIES // 10_000):
        items = [{"sender_id": users[(i + k) % 8].id, "receiver_id": users[(i + k + 1 + k % 7) % 8].id, "amount": "0.01",
                  "description": f"number {k} of batch {i}, with a text of some length to make rows as they are"}
                 for k in range(10_000)]
        ok(s.admin.api.post("/api/transactions/batch", json={"transactions": items}), 201)
    assert s.stop() == 0
    return s.data


def peak_kib(*args):
    """Exit code, output and the most memory that was seen in use."""
    p = subprocess.Popen([BIN, *map(str, args)], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    most = 0
    while p.poll() is None:
        for line in Path(f"/proc/{p.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # of this program alone, unlike what wait4 tells
                most = max(most, int(line.split()[1]))
        time.sleep(0.005)
    return p.returncode, p.stdout.read(), most


def test_many_entries_in_little_memory(cluster, large, fresh):
    small = fresh()
    assert small.stop() == 0
    code, _, least = peak_kib("copy", "--from", f"sqlite:{small.data}", "--to", url(cluster))
    assert code == 0
    cluster.sql("DROP SCHEMA public CASCADE")
    cluster.sql("CREATE SCHEMA public AUTHORIZATION payflow")
    code, out, most = peak_kib("copy", "--from", f"sqlite:{large}", "--to", url(cluster), "-o", "json")
    d = json.loads(out)
    assert code == 0 and d["tables"]["journal"] >= ENTRIES
    print(f"{d['rows']} rows, {d['rows'] * 1e6 / d['copy_us']:.0f}/s, verified in {d['verify_us'] / 1e6:.1f} s, "
          f"{least} and {most} KiB")
    size = (large / "payflow.db").stat().st_size // 1024
    assert most - least < size // 4 or "ASAN_OPTIONS" in os.environ, (least, most, size)


@pytest.mark.parametrize("moment", ["COPY journal%FROM STDIN%", "COPY journal%TO STDOUT%", "SELECT j.seq%"])
def test_killed_in_the_middle(cluster, large, moment):
    p = subprocess.Popen([BIN, "copy", "--from", f"sqlite:{large}", "--to", url(cluster)], env=environment(),
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while cluster.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'payflow' AND query LIKE '{moment}'") == "0":
        assert p.poll() is None and time.monotonic() < end, p.communicate()
    p.kill()
    assert p.wait() == -signal.SIGKILL
    p.communicate()
    eventually(lambda: cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'payflow'") == "0", timeout=30)
    assert is_empty(cluster)
    r = copy(cluster, large)
    assert r.returncode == 0, r.stderr
    assert cli("verify", env=environment(**cluster.env())).returncode == 0


def test_the_server_dies_in_the_middle(cluster, large):
    p = subprocess.Popen([BIN, "copy", "--from", f"sqlite:{large}", "--to", url(cluster)], env=environment(),
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while cluster.sql("SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 1000") == "0":
        assert p.poll() is None and time.monotonic() < end, p.communicate()
    cluster.kill9()
    out, err = p.communicate(timeout=60)
    cluster.start()
    assert p.returncode == 1 and len(err.splitlines()) == 1 and "PostgreSQL" in err, (p.returncode, out, err)
    assert is_empty(cluster)
    assert copy(cluster, large).returncode == 0
