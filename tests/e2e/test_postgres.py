"""The binary on PostgreSQL: settings that are wrong, the commands, a server that goes away and comes back, two instances."""
import json
import subprocess
import threading
import time

import httpx
import pytest

import harness
from harness import TRUST, cli, environment, new_user, unique
from postgres import PASSWORD, Cluster


@pytest.fixture(autouse=True)
def empty_database(cluster):
    cluster.sql("DROP SCHEMA public CASCADE")
    cluster.sql("CREATE SCHEMA public AUTHORIZATION payflow")


def lines(text):
    return [line for line in text.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize("change, says", [
    ({"DB_PASSWORD": "hunter2hunter2"}, "password authentication failed"),
    ({"DB_USER": "nobody"}, "password authentication failed"),
    ({"DB_NAME": "elsewhere"}, "does not exist"),
    ({"DB_PORT": "1"}, "refused"),
    ({"DB_HOST": "no-such-host.invalid"}, "no-such-host.invalid"),
    ({"DB_SSLMODE": "require"}, "SSL"),
    ({"DB_SSLMODE": "sometimes"}, "DB_SSLMODE"),
    ({"DB_URL": "sqlite:/tmp/x"}, "DB_HOST"),
    ({"DB_URL": "postgres://u:hunter2hunter2@[h/db", "DB_HOST": None}, "DB_URL"),
])
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("verify",), ("migrate", "up"), ("journal", "export")])
def test_wrong_settings_end_with_78_and_one_line(cluster, tmp_path, command, change, says):
    r = cli(*command, "--data", tmp_path / "d", env=environment(**{**cluster.env(), **change}))
    assert r.returncode == 78, r.stderr
    assert len(lines(r.stderr)) == 1 and says in r.stderr, r.stderr
    assert "hunter2" not in r.stderr + r.stdout and PASSWORD not in r.stderr + r.stdout
    assert cluster.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"


def everything(cluster):
    """All that is in the database, as text; a dump begins and ends with a word of its own making."""
    dump = cluster.dump()
    return "\n".join(line for line in dump.splitlines() if not line.startswith(("--", "\\")))


def test_an_older_or_newer_schema_ends_with_78(cluster, tmp_path):
    env = environment(**cluster.env())
    looks = (("verify",), ("replay",), ("journal", "export"))
    r = cli("verify", env=env)
    assert r.returncode == 78 and "migrate first" in r.stderr
    assert cli("migrate", "up", env=env).returncode == 0
    newest = int(cluster.sql("SELECT max(version) FROM schema_migration"))
    assert cli("migrate", "down", env=env).returncode == 0
    before = everything(cluster)
    for command in looks:
        r = cli(*command, env=env)
        assert r.returncode == 78 and len(lines(r.stderr)) == 1 and "migrate first" in r.stderr, r.stderr
    assert everything(cluster) == before
    assert cli("migrate", "up", env=env).returncode == 0
    assert cli("verify", env=env).returncode == 0
    cluster.sql(f"INSERT INTO schema_migration VALUES ({newest + 1}, 'later', '\\x00', 0)")
    before = everything(cluster)
    for command in (("serve", "--port", "0", "--data", tmp_path / "d"), ("migrate", "up"), ("migrate", "down"), ("migrate", "status"), *looks):
        r = cli(*command, env=env)
        assert r.returncode == 78 and len(lines(r.stderr)) == 1 and "newer" in r.stderr, (command, r.returncode, r.stderr)
    assert everything(cluster) == before


def certificate(path, name):
    """A certificate of its own authority for that name; (it, its key)."""
    cert, key = path / f"{name}.pem", path / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(cert)],
                   check=True, capture_output=True)
    return cert, key


def test_what_tls_refuses_ends_with_78(tmp_path):
    """The server speaks TLS only, as a name that is not the one it is reached by."""
    cluster = Cluster()
    try:
        cert, key = certificate(tmp_path, "db.example.com")
        other, _ = certificate(tmp_path, "other.example.com")
        cluster.use_tls(cert, key)
        for change, says in (({"DB_SSLMODE": "disable"}, "no encryption"),
                             ({"DB_SSLMODE": "verify-ca", "DB_SSLROOTCERT": other}, "certificate verify failed"),
                             ({"DB_SSLMODE": "verify-ca", "DB_SSLROOTCERT": tmp_path / "none"}, "does not exist"),
                             ({"DB_SSLMODE": "verify-full", "DB_SSLROOTCERT": cert}, "does not match host name")):
            for command in (("serve", "--port", "0", "--data", tmp_path / "d"), ("migrate", "up"), ("verify",)):
                r = cli(*command, env=environment(**{**cluster.env(), **change}))
                assert r.returncode == 78 and len(lines(r.stderr)) == 1 and says in r.stderr, (change, command, r.returncode, r.stderr)
                assert PASSWORD not in r.stderr
            assert cluster.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"
        good = environment(**cluster.env(DB_SSLMODE="verify-ca", DB_SSLROOTCERT=cert))
        assert cli("migrate", "up", env=good).returncode == 0 and cli("verify", env=good).returncode == 0
    finally:
        cluster.close()


def test_commands(cluster, fresh, tmp_path):
    s = fresh(env=cluster.env())
    env = s.env
    a, b = new_user(s, fund="100.00"), new_user(s)
    for i in range(20):
        r = a.api.post("/api/transactions/transfer", headers={"Idempotency-Key": f"k{i % 10}"},
                       json={"from_user_id": a.id, "to_user_id": b.id, "amount": "1.25"})
        assert r.status_code == 201 and ("idempotency-replayed" in r.headers) == (i >= 10), r.text
    assert (a.balance(), b.balance()) == (harness.Decimal("87.50"), harness.Decimal("12.50"))
    r = s.admin.api.get("/health")
    assert r.status_code == 200 and r.json()["status"] == "UP", r.text

    assert cli("verify", env=env).returncode == 0  # beside the server
    out = cli("journal", "export", env=env).stdout.splitlines()
    assert [json.loads(x)["seq"] for x in out] == list(range(1, 12))
    assert s.stop() == 0
    r = cli("replay", "--write", env=env)
    assert r.returncode == 0, r.stderr
    assert cli("verify", "-o", "json", env=env).returncode == 0
    while cli("migrate", "down", env=env).returncode != 1:  # what holds no records may go
        assert int(cluster.sql("SELECT max(version) FROM schema_migration")) > 1
    assert cli("backup", tmp_path / "x", env=env).returncode == 2
    printed = cli("config", "print", env=env).stdout
    for text in (printed, s.log_text()):
        assert PASSWORD not in text
    s.start()
    assert b.balance() == harness.Decimal("12.50")
    cluster.sql("ALTER TABLE account DISABLE TRIGGER ALL")
    cluster.sql("UPDATE account SET balance = balance + 1 WHERE owner = 3")
    r = cli("verify", env=env)
    assert r.returncode == 1, r.stdout


class Load:
    """Clients that transfer with a key each until told to stop; a key is tried again until it is answered."""

    def __init__(self, servers, users, threads=6):
        self.servers, self.users, self.acked, self.worst = servers, users, 0, 0.0
        self.end, self.lock, self.errors = threading.Event(), threading.Lock(), []
        self.keys = [u.key for u in users]  # a login may fail once faults have begun
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]
        for t in self.threads:
            t.start()

    def _run(self, i):
        n = len(self.users)
        payer, payee, payers_key = self.users[i % n], self.users[(i + 1) % n], self.keys[i % n]
        base = self.servers[i % len(self.servers)].base
        with httpx.Client(base_url=base, headers={"X-API-Key": payers_key}, timeout=30, verify=TRUST, trust_env=False) as c:
            while not self.end.is_set():
                key, begin = unique("k"), time.monotonic()
                while True:
                    t0 = time.monotonic()
                    try:
                        r = c.post("/api/transactions/transfer", headers={"Idempotency-Key": key},
                                   json={"from_user_id": payer.id, "to_user_id": payee.id, "amount": "0.01"})
                        status, text = r.status_code, r.text
                    except httpx.TransportError as e:  # the instance is gone
                        status, text = 503, str(e)
                    self.worst = max(self.worst, time.monotonic() - t0)
                    if status == 201:
                        break
                    if status not in (500, 503, 409) or time.monotonic() - begin > 40:
                        self.errors.append((status, text))
                        return
                    time.sleep(0.02)
                with self.lock:
                    self.acked += 1

    def progress(self, seconds):
        """Waits until something is acknowledged anew; fails when it is not within that time."""
        before, end = self.acked, time.monotonic() + seconds
        while self.acked == before:
            assert time.monotonic() < end, "nothing was acknowledged"
            time.sleep(0.02)

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join(60)
        assert not self.errors, self.errors[:3]


def settled(cluster, load, env):
    """Every acknowledged transfer is there once, and the books prove themselves."""
    assert cluster.sql("SELECT count(*) FROM journal WHERE kind = 3") == str(load.acked)
    assert cluster.sql("SELECT sum(balance) FROM account") == "0"
    r = cli("verify", env=env)
    assert r.returncode == 0, r.stdout + r.stderr


def test_a_server_that_is_killed_and_one_that_stops(cluster, fresh):
    s = fresh(env=cluster.env())
    users = [new_user(s, fund="100.00") for _ in range(3)]
    load = Load([s], users)
    load.progress(5)
    for _ in range(3):
        cluster.kill9()
        time.sleep(0.5)
        cluster.start()
        load.progress(10)
        time.sleep(0.3)
    cluster.freeze()
    time.sleep(7)
    cluster.thaw()
    load.progress(10)
    time.sleep(0.3)
    load.stop()
    assert load.worst < 20
    settled(cluster, load, s.env)
    assert s.stop() == 0


def test_two_instances_share_one_ledger(cluster, fresh):
    s = fresh("one", env=cluster.env())
    t = fresh("two", env=cluster.env(), admin=False)
    t.admin = s.admin
    users = [new_user(s, fund="100.00") for _ in range(4)]
    load = Load([s, t], users, threads=8)
    load.progress(5)
    time.sleep(1)
    t.kill9()
    t.start()
    time.sleep(1)
    load.stop()
    settled(cluster, load, s.env)
    payer = users[0]
    results = []

    def one(server):
        with server.client(key=payer.key) as c:
            results.append(c.post("/api/transactions/transfer", headers={"Idempotency-Key": "both"},
                                  json={"from_user_id": payer.id, "to_user_id": users[1].id, "amount": "0.01"}))
    before = int(cluster.sql("SELECT count(*) FROM journal"))
    pair = [threading.Thread(target=one, args=(x,)) for x in (s, t)]
    for p in pair:
        p.start()
    for p in pair:
        p.join()
    assert {r.status_code for r in results} == {201} and results[0].text == results[1].text
    assert int(cluster.sql("SELECT count(*) FROM journal")) == before + 1
    assert cluster.sql("SELECT sum(balance) FROM account") == "0"
    assert cli("verify", env=s.env).returncode == 0
