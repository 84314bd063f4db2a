"""The command line: exit codes, reports, export, backup and restore, and that tampering is found."""
import csv
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
from decimal import Decimal

import pytest

from harness import BIN, PASSWORD, SECRET, UUID7, cli, environment, export, free_port, new_user, ok

COMMANDS = [["serve"], ["migrate"], ["user"], ["user", "create-admin"], ["verify"], ["replay"], ["backup"], ["restore"],
            ["journal"], ["journal", "export"], ["config"], ["config", "print"], ["bench"]]
FIELDS = ["seq", "id", "uuid", "type", "debit", "credit", "amount", "currency", "description", "created_at"]


@pytest.fixture
def stopped(fresh):
    """A store with a little history, and the server that made it, stopped."""
    s = fresh()
    u, v = new_user(s, fund="10.50"), new_user(s)
    t = ok(u.api.post("/api/transactions/transfer", json={
        "from_user_id": u.id, "to_user_id": v.id, "amount": 4, "description": 'kira, "Eylül"\nsatır'}), 201)
    ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 700, "currency": "JPY"}), 201)
    ok(v.bank.post(f"/api/v1/transactions/{t['id']}/rollback", json={}), 201)
    assert s.stop() == 0
    s.people = (u, v)
    return s


def database(server):
    found = [p for p in server.data.rglob("*") if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    assert len(found) == 1, found
    return found[0]


def test_version():
    r = cli("--version")
    assert r.returncode == 0 and r.stdout.startswith("payflow ")
    assert re.search(r"\b[0-9a-f]{7,40}\b|unknown", r.stdout), "the commit"
    assert re.search(r"(?i)gcc|clang", r.stdout) and "SQLite" in r.stdout and "OpenSSL" in r.stdout


def test_what_is_not_asked_for_is_not_loaded():
    """MongoDB's library begins by itself when it is linked, with files and warnings of its own."""
    linked = subprocess.run(["ldd", BIN], capture_output=True, text=True, check=True).stdout
    assert "libsqlite3" in linked and "libmongoc" not in linked


def test_help():
    r = cli("--help")
    assert r.returncode == 0 and not r.stderr
    for word in ("serve", "migrate", "user", "verify", "replay", "backup", "restore", "journal", "config", "bench"):
        assert word in r.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_each(command):
    r = cli(*command, "--help")
    assert r.returncode == 0 and command[-1] in r.stdout and not r.stderr


@pytest.mark.parametrize("args", [[], ["nothing"], ["--nothing"], ["serve", "--nothing"], ["verify", "--nothing"],
                                  ["migrate"], ["migrate", "sideways"], ["user"], ["user", "nothing"], ["journal"],
                                  ["config"], ["journal", "export", "--format", "xml"], ["serve", "--listen"],
                                  ["backup"], ["restore"], ["verify", "extra"], ["verify", "-o", "yaml"]],
                         ids=lambda a: " ".join(a) or "(none)")
def test_usage_errors(args, tmp_path):
    r = cli(*args, env=environment(DATA_DIR=tmp_path / "d"), timeout=20)
    assert r.returncode == 2, (r.returncode, r.stdout, r.stderr)
    assert r.stderr.strip() and not r.stdout


@pytest.mark.parametrize("args, env", [
    (["verify"], {"BCRYPT_COST": "99"}), (["config", "print"], {"PORT": "x"}),
    (["config", "print", "--config", "/nonexistent.yaml"], {}), (["serve"], {"ENV": "prod", "JWT_SECRET": None}),
])
def test_configuration_errors(args, env, tmp_path):
    r = cli(*args, env=environment(DATA_DIR=tmp_path / "d", **env), timeout=20)
    assert r.returncode == 78 and len(r.stderr.strip().splitlines()) == 1, (r.returncode, r.stderr)


def test_unknown_config_key_and_line(tmp_path):
    f = tmp_path / "c.yaml"
    f.write_text("default_currency: EUR\nno_such_setting: 1\n")
    r = cli("config", "print", "--config", f)
    assert r.returncode == 78 and "no_such_setting" in r.stderr.lower() + r.stderr


def test_config_print_masks_secrets_and_names_sources(tmp_path):
    (tmp_path / "c.yaml").write_text("default_currency: EUR\n")
    r = cli("config", "print", "--config", tmp_path / "c.yaml",
            env=environment(DB_PASSWORD="hunter2hunter2", DB_URL="postgres://u:s3cretpw@h/db", PORT="9191"))
    if r.returncode == 78 and "DB_URL" in r.stderr:
        r = cli("config", "print", "--config", tmp_path / "c.yaml",
                env=environment(DB_PASSWORD="hunter2hunter2", PORT="9191"))
    assert r.returncode == 0, r.stderr
    for secret in (SECRET, "hunter2hunter2", "s3cretpw"):
        assert secret not in r.stdout + r.stderr
    lines = {line.split()[0].rstrip(":=").split("=")[0]: line for line in r.stdout.splitlines() if line.strip()}
    assert "9191" in lines["PORT"] and "env" in lines["PORT"].lower()
    assert "EUR" in lines["DEFAULT_CURRENCY"] and ("c.yaml" in lines["DEFAULT_CURRENCY"]
                                                   or "file" in lines["DEFAULT_CURRENCY"].lower())
    assert "JWT_SECRET" in lines and "*" in lines["JWT_SECRET"]
    assert "default" in lines["RATE_LIMIT"].lower() or "env" in lines["RATE_LIMIT"].lower()
    r = cli("config", "print", "-o", "json")
    assert r.returncode == 0 and SECRET not in r.stdout
    json.loads(r.stdout)


def test_flags_beat_environment_beat_file(fresh, tmp_path):
    f = tmp_path / "c.yaml"
    f.write_text("default_currency: EUR\n")
    s = fresh(args=["--config", f])
    u = new_user(s)
    assert ok(u.bank.post("/api/v1/transactions/credit", json={"amount": 1}), 201)["currency"] == "EUR"
    s = fresh("second", args=["--config", f], env={"DEFAULT_CURRENCY": "JPY"})
    u = new_user(s)
    assert ok(u.bank.post("/api/v1/transactions/credit", json={"amount": 1}), 201)["currency"] == "JPY"


def test_create_admin(fresh, tmp_path):
    data = tmp_path / "data"
    args = ["user", "create-admin", "--data", data, "--username", "boss", "--email", "boss@example.com"]
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    r = cli(*args, "--password-file", password)
    assert r.returncode == 0, r.stderr
    assert PASSWORD not in r.stdout + r.stderr
    assert cli(*args, "--password-file", password).returncode == 1, "the name is taken"
    s = fresh(admin=False)
    d = ok(s.anon.post("/api/login", json={"username": "boss", "password": PASSWORD}))
    assert d["user"]["role"] == "admin"
    ok(s.client(key=d["api_key"]).get("/api/transactions/stats"))


def test_verify_and_replay(stopped):
    for command in ("verify", "replay"):
        r = cli(command, "--data", stopped.data)
        assert r.returncode == 0, r.stdout + r.stderr
        assert r.stdout.strip()
        r = cli(command, "--data", stopped.data, "-o", "json")
        assert r.returncode == 0
        json.loads(r.stdout)


def test_verify_while_it_runs(fresh):
    s = fresh()
    new_user(s, fund="5")
    r = cli("verify", "--data", s.data)
    assert r.returncode == 0, r.stdout + r.stderr
    assert ok(s.anon.get("/health"))["status"] == "UP"


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_absent_store(tmp_path, command):
    r = cli(command, "--data", tmp_path / "nowhere")
    assert r.returncode in (1, 78) and r.stderr.strip()
    assert not (tmp_path / "nowhere").exists(), "a reading command made a store"


def journal_table(path):
    """The table and columns of the journal, found by what they are called in the architecture."""
    db = sqlite3.connect(path)
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'"):
        columns = [c[1] for c in db.execute(f"PRAGMA table_info({table})")]
        if {"seq", "debit", "credit", "amount"} <= set(columns):
            return db, table, columns
    raise AssertionError("no journal table")


def tamper(path, *statements):
    """Edits the store behind the program's back, past whatever triggers protect it."""
    db, table, _ = journal_table(path)
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    for s in statements:
        db.execute(s.format(j=table))
    db.commit()
    db.close()


@pytest.mark.parametrize("statement", [
    "UPDATE {j} SET amount = amount + 1 WHERE seq = 1",
    "UPDATE {j} SET description = 'rent' WHERE seq = 2",
    "UPDATE {j} SET actor = actor + 1 WHERE seq = 2",
    "UPDATE {j} SET ts = ts + 1 WHERE seq = 1",
    "UPDATE {j} SET credit = debit, debit = credit WHERE seq = 2",
    "UPDATE {j} SET credit_balance = credit_balance + 1 WHERE seq = 1",
    "DELETE FROM {j} WHERE seq = 2",
    "DELETE FROM {j} WHERE seq = (SELECT max(seq) FROM {j})",
    "DELETE FROM {j} WHERE seq = 1",
    "UPDATE {j} SET seq = 100 WHERE seq = 2",
])
def test_verify_finds_tampering(stopped, statement):
    tamper(database(stopped), statement)
    r = cli("verify", "--data", stopped.data)
    assert r.returncode == 1, r.stdout + r.stderr
    assert (r.stdout + r.stderr).strip()


def test_verify_finds_a_wrong_projection(stopped):
    path = database(stopped)
    db = sqlite3.connect(path)
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
        columns = [c[1] for c in db.execute(f"PRAGMA table_info({table})")]
        if {"balance", "held", "owner"} <= set(columns):
            assert db.execute(f"UPDATE {table} SET balance = balance + 1 WHERE owner <> 0").rowcount > 0
            break
    else:
        raise AssertionError("no table of accounts")
    db.commit()
    db.close()
    assert cli("verify", "--data", stopped.data).returncode == 1


def test_export(stopped):
    rows = export(stopped.data)
    assert [e["seq"] for e in rows] == [1, 2, 3, 4]
    assert all(list(e)[:len(FIELDS)] == FIELDS for e in rows), "the fields, in the contract's order"
    assert [e["type"] for e in rows] == ["deposit", "transfer", "deposit", "rollback"]
    assert [e["amount"] for e in rows] == [Decimal("10.50"), 4, 700, 4]
    assert [e["currency"] for e in rows] == ["USD", "USD", "JPY", "USD"]
    assert rows[1]["description"] == 'kira, "Eylül"\nsatır'
    assert all(UUID7.match(e["uuid"]) and e["debit"] != e["credit"] for e in rows)
    assert (rows[3]["debit"], rows[3]["credit"]) == (rows[1]["credit"], rows[1]["debit"])
    r = cli("journal", "export", "--data", stopped.data)
    assert '"amount":10.50' in r.stdout.replace(" ", "") and r.stdout.endswith("\n")


def test_export_csv(stopped):
    r = cli("journal", "export", "--format", "csv", "--data", stopped.data, binary=True)
    assert r.returncode == 0
    rows = list(csv.DictReader(io.StringIO(r.stdout.decode(), newline="")))
    assert list(rows[0])[:len(FIELDS)] == FIELDS
    assert [(x["seq"], x["type"], x["amount"]) for x in rows] == [
        ("1", "deposit", "10.50"), ("2", "transfer", "4.00"), ("3", "deposit", "700"), ("4", "rollback", "4.00")]
    assert rows[1]["description"] == 'kira, "Eylül"\nsatır'


def test_csv_keeps_awkward_text(fresh):
    s = fresh()
    u = new_user(s)
    texts = ["=1+1", '"', '""', "a,b", "\r\n", "\n", " lead", "trail ", "'", ";", "\t"]
    for text in texts:
        ok(u.bank.post("/api/v1/transactions/credit", json={"amount": 1, "description": text}), 201)
    r = cli("journal", "export", "--format", "csv", "--data", s.data, binary=True)
    rows = csv.DictReader(io.StringIO(r.stdout.decode(), newline=""))
    assert [x["description"] for x in rows] == texts


def test_export_to_a_closed_pipe(stopped):
    assert os.system(f"'{__import__('harness').BIN}' journal export --data '{stopped.data}' | head -n 1 >/dev/null") == 0


def test_backup_and_restore(fresh, tmp_path):
    """Taken while it runs; proven before it is used; the copy serves with the same books and keys."""
    s = fresh()
    u = new_user(s, fund="33.30")
    assert u.key
    copy = tmp_path / "copy.backup"
    r = cli("backup", "--data", s.data, copy)
    assert r.returncode == 0, r.stderr
    ok(u.api.post("/api/transactions/deposit", json={"user_id": u.id, "amount": 1}), 201)
    other = tmp_path / "other"
    r = cli("restore", "--verify", "--data", other, copy)
    assert r.returncode == 0, r.stderr
    assert cli("verify", "--data", other).returncode == 0
    assert s.stop() == 0
    t = fresh("other", admin=False)
    d = ok(t.client(key=u.key).get(f"/api/balances?user_id={u.id}"))
    assert d["balance"] == Decimal("33.30")


def left(directory):
    """What a refused restore left there, beyond an empty lock file."""
    return [p for p in directory.rglob("*") if p.stat().st_size] if directory.exists() else []


def test_restore_refuses(fresh, stopped, tmp_path):
    copy = tmp_path / "copy.backup"
    assert cli("backup", "--data", stopped.data, copy).returncode == 0
    assert cli("backup", "--data", stopped.data, copy).returncode in (1, 2), "it would overwrite a backup"
    assert cli("restore", "--data", stopped.data, copy).returncode == 1, "it would overwrite a store in use"
    assert cli("restore", "--data", tmp_path / "n", tmp_path / "absent").returncode == 1
    broken = tmp_path / "broken"
    whole = copy.read_bytes() if copy.is_file() else database(stopped).read_bytes()
    broken.write_bytes(whole[:len(whole) // 2])
    assert cli("restore", "--verify", "--data", tmp_path / "m", broken).returncode == 1
    assert not left(tmp_path / "m"), "a broken copy was put in place"
    if copy.is_file():
        edited = tmp_path / "edited"
        shutil.copy(copy, edited)
        tamper(edited, "UPDATE {j} SET amount = amount + 1 WHERE seq = 1")
        assert cli("restore", "--verify", "--data", tmp_path / "k", edited).returncode == 1
        assert not left(tmp_path / "k"), "a forged copy was put in place"


def test_migrate(tmp_path, stopped):
    r = cli("migrate", "status", "--data", stopped.data)
    assert r.returncode == 0 and re.search(r"\b0*1\b", r.stdout), r.stderr
    assert cli("migrate", "up", "--data", stopped.data).returncode == 0
    new = tmp_path / "new"
    assert cli("migrate", "up", "--data", new).returncode == 0
    r = cli("migrate", "status", "--data", new, "-o", "json")
    assert r.returncode == 0
    json.loads(r.stdout)
    assert cli("verify", "--data", new).returncode == 0


def test_a_store_from_the_future_is_refused(stopped):
    path = database(stopped)
    db = sqlite3.connect(path)
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE name LIKE '%migration%'").fetchall():
        columns = [c[1] for c in db.execute(f"PRAGMA table_info({table})")]
        row = db.execute(f"SELECT * FROM {table} ORDER BY 1 DESC LIMIT 1").fetchone()
        db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(columns))})", (row[0] + 1000, *row[1:]))
        break
    else:
        raise AssertionError("no table of migrations")
    db.commit()
    db.close()
    r = cli("serve", "--listen", f"127.0.0.1:{free_port()}", "--data", stopped.data, timeout=20)
    assert r.returncode in (1, 78) and "1" in r.stderr


def test_an_edited_migration_is_refused(stopped):
    path = database(stopped)
    db = sqlite3.connect(path)
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE name LIKE '%migration%'").fetchall():
        column = next(c[1] for c in db.execute(f"PRAGMA table_info({table})") if "sum" in c[1] or "hash" in c[1])
        db.execute(f"UPDATE {table} SET {column} = x'00'")
        break
    else:
        raise AssertionError("no table of migrations")
    db.commit()
    db.close()
    r = cli("serve", "--listen", f"127.0.0.1:{free_port()}", "--data", stopped.data, timeout=20)
    assert r.returncode in (1, 78) and "migration" in r.stderr.lower()


def test_second_serve_is_refused(fresh):
    s = fresh()
    r = cli("serve", "--listen", f"127.0.0.1:{free_port()}", "--data", s.data, timeout=20)
    assert r.returncode in (1, 78) and r.stderr.strip()
    assert ok(s.anon.get("/health"))["status"] == "UP"
    s.restart(kill=True)


def test_a_taken_port_is_a_clear_failure(fresh, tmp_path):
    s = fresh()
    r = cli("serve", "--listen", f"127.0.0.1:{s.port}", "--data", tmp_path / "e", timeout=20)
    assert r.returncode in (1, 78) and str(s.port) in r.stderr


def test_an_unwritable_data_dir_is_a_clear_failure(tmp_path):
    (tmp_path / "file").write_text("")
    r = cli("serve", "--listen", f"127.0.0.1:{free_port()}", "--data", tmp_path / "file" / "d", timeout=20)
    assert r.returncode in (1, 78) and r.stderr.strip()


def test_data_is_private(stopped):
    for p in stopped.data.rglob("*"):
        assert p.stat().st_mode & 0o007 == 0, f"{p} is open to others"
