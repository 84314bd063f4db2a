"""The curl lines of the two seeds, word for word and in their order, with the real curl against a dev server.

Only the address and <your_api_key> are substituted. Lines for other programs (nginx, docker, jq's absence) are left out.
"""
import json
import shlex
import shutil
import subprocess
from decimal import Decimal

import pytest

from harness import PASSWORD, UUID7, new_user

CURL = shutil.which("curl")


class Shell:
    def __init__(self, server):
        self.server = server
        self.key = ""
        self.jwt = ""

    def __call__(self, line, status):
        """Runs one line of a seed; asserts the HTTP status; the decoded body (Decimal for numbers with decimals)."""
        assert CURL, "the seeds' examples need curl"
        line, _, jq = line.partition(" | jq")
        for place in ("http://localhost:8080", "http://localhost"):
            if place in line:
                line = line.replace(place, f"http://localhost:{self.server.port}")
                break
        for mark, value in (("<your_api_key>", self.key), ("<admin_api_key>", self.key), ("{{accessToken}}", self.jwt)):
            line = line.replace(mark, value)
        argv = shlex.split(line.replace("\\\n", " "))
        assert argv[0] == "curl"
        r = subprocess.run([CURL, "-sS", "--max-time", "20", "-w", "\n%{http_code}", *argv[1:]],
                           capture_output=True, timeout=30, check=False)
        assert r.returncode == 0, r.stderr
        body, _, code = r.stdout.decode().rpartition("\n")
        assert int(code) == status, f"{line}\n{code} {body}"
        data = json.loads(body, parse_float=Decimal) if body else None
        for step in shlex.split(jq)[0].strip(".").split(".") if jq.strip() else ():
            data = data[step]
        return data


def test_payflow_api(fresh):
    s = fresh(admin=False)
    sh = Shell(s)
    health = sh("curl http://localhost/health", 200)
    assert health["status"] == "UP" and health["services"]

    d = sh('''curl -X POST http://localhost/api/users -H "Content-Type: application/json" -d '{
  "username": "admin",
  "email": "admin@example.com",
  "password": "securepassword",
  "role": "admin"
}\'''', 201)
    assert d["id"] == 1 and d["role"] == "admin" and UUID7.match(d["uuid"])
    d = sh('''curl -X POST http://localhost/api/login -H "Content-Type: application/json" -d '{
  "username": "admin",
  "password": "securepassword"
}\'''', 200)
    sh.key = first = d["api_key"]
    d = sh('curl -X POST http://localhost/api/users/api-key -H "X-API-Key: <your_api_key>"', 200)
    sh.key = d["api_key"]
    assert sh.key != first
    assert s.client(key=first).get("/api/users/1").status_code == 401, "the replaced key still works"

    d = sh('curl -X GET "http://localhost/api/users?id=1" -H "X-API-Key: <your_api_key>"', 200)
    assert d["username"] == "admin"
    d = sh('''curl -X PUT http://localhost/api/users -H "Content-Type: application/json" -H "X-API-Key: <your_api_key>" \\
     -d '{"id": 1, "username": "updateduser", "email": "updated@example.com", "role": "admin"}\'''', 200)
    assert (d["username"], d["email"], d["role"]) == ("updateduser", "updated@example.com", "admin")
    d = sh('curl -X DELETE "http://localhost/api/users?id=1" -H "X-API-Key: <your_api_key>"', 409)
    assert d["type"] == "/problems/last-admin"

    sh('curl -X POST "http://localhost/api/balances/initialize?user_id=1" -H "X-API-Key: <your_api_key>"', 201)
    d = sh('curl -X GET "http://localhost/api/balances?user_id=1" -H "X-API-Key: <your_api_key>"', 200)
    assert d["balance"] == 0
    d = sh('curl -X GET "http://localhost/api/balances/history?user_id=1&limit=10&offset=0" '
           '-H "X-API-Key: <your_api_key>"', 200)
    assert d["data"] == []

    d = sh('''curl -X POST http://localhost/api/transactions/deposit -H "Content-Type: application/json" -H "X-API-Key: <your_api_key>" \\
     -d '{"user_id": 1, "amount": 100.50, "description": "Para yatırma"}\'''', 201)
    assert d["amount"] == Decimal("100.50") and d["description"] == "Para yatırma"
    d = sh('''curl -X POST http://localhost/api/transactions/withdraw -H "Content-Type: application/json" -H "X-API-Key: <your_api_key>" \\
     -d '{"user_id": 1, "amount": 50.25, "description": "Para çekme"}\'''', 201)
    assert d["balance_after"] == Decimal("50.25")
    assert (new_user(s).id, new_user(s).id) == (2, 3)
    d = sh('''curl -X POST http://localhost/api/transactions/transfer -H "Content-Type: application/json" -H "X-API-Key: <your_api_key>" \\
     -d '{"from_user_id": 1, "to_user_id": 2, "amount": 25.00, "description": "Transfer"}\'''', 201)
    assert (d["from_user_id"], d["to_user_id"], d["balance_after"]) == (1, 2, Decimal("25.25"))
    batch = '''curl -X POST http://localhost/api/transactions/batch -H "Content-Type: application/json" -H "X-API-Key: <your_api_key>" \\
     -d '{
       "transactions": [
         {"sender_id": 1, "receiver_id": 2, "amount": 100, "description": "Test işlem 1"},
         {"sender_id": 1, "receiver_id": 3, "amount": 150, "description": "Test işlem 2"}
       ]
     }\''''
    sh(batch, 422)
    r = s.client(key=sh.key).post("/api/transactions/deposit", json={"user_id": 1, "amount": "224.75"})
    assert r.status_code == 201
    sh(batch, 201)
    d = sh('curl -X GET "http://localhost/api/balances?user_id=1" -H "X-API-Key: <your_api_key>"', 200)
    assert d["balance"] == 0

    for part in ("connection_manager", "load_balancer", "fallback_manager"):
        assert sh(f"curl http://localhost/health | jq '.services.{part}'", 200)
    assert sh("curl http://localhost/api/cache/stats", 200)
    d = sh("curl -X POST http://localhost/api/cache/warmup", 200)
    assert isinstance(d["warmed"], int)
    assert sh('curl -X GET http://localhost/api/transactions/stats -H "X-API-Key: <admin_api_key>"', 200)


def test_event_sourcing_flow(fresh):
    """The flow without any key, on a server that has nobody else."""
    sh = Shell(fresh(admin=False))
    d = sh('''curl -X POST -H "Content-Type: application/json" -d '{"username": "testuser", "email": "test@example.com", "password": "password123"}' http://localhost:8080/api/users''', 201)
    assert d["id"] == 1 and d["role"] == "user"
    sh("curl -X POST http://localhost:8080/api/balances/initialize?user_id=1", 201)
    sh('''curl -X POST -H "Content-Type: application/json" -d '{"user_id": 1, "amount": 100}' http://localhost:8080/api/transactions/deposit''', 201)
    sh('''curl -X POST -H "Content-Type: application/json" -d '{"user_id": 1, "amount": 30}' http://localhost:8080/api/transactions/withdraw''', 201)
    assert sh("curl http://localhost:8080/api/balances?user_id=1", 200)["balance"] == 70
    d = sh("curl -X POST http://localhost:8080/api/balances/replay?user_id=1", 200)
    assert (d["balance"], d["stored_balance"], d["events_replayed"], d["consistent"]) == (70, 70, 2, True)
    d = sh("curl -X POST http://localhost:8080/api/balances/rebuild?user_id=1", 200)
    assert (d["balance"], d["consistent"]) == (70, True)
    assert sh("curl http://localhost:8080/api/balances?user_id=1", 200)["balance"] == 70


def test_caching_layer(fresh):
    sh = Shell(fresh())
    d = sh('''curl -X POST "http://localhost:8080/api/cache/warmup" -H "Content-Type: application/json" -d '{"type": "user", "user_id": 1}' | jq''', 200)
    assert d["warmed"] >= 1
    keys = "curl -X GET \"http://localhost:8080/api/cache/keys?pattern=user:*\" | jq"
    assert "user:1" in str(sh(keys, 200))
    d = sh('''curl -X POST "http://localhost:8080/api/cache/invalidate" -H "Content-Type: application/json" -d '{"user_id": 1}' | jq''', 200)
    assert d["invalidated"] >= 1
    sh('''curl -X POST "http://localhost:8080/api/cache/invalidate" -H "Content-Type: application/json" -d '{"pattern": "user:*"}' | jq''', 200)
    assert "user:1" not in str(sh(keys, 200))


def test_banking_probes(fresh):
    sh = Shell(fresh())
    assert sh("curl http://localhost:8080/healthz", 200)
    assert sh("curl http://localhost:8080/api/v1/ping", 200) == {"message": "pong"}
    assert sh("curl http://localhost:8080/metrics/basic", 200)


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_postman_flow(fresh, prefix):
    """The Postman flow with base_url as the guide sets it (no prefix), and with the documented prefix."""
    s = fresh()
    target = new_user(s)
    sh = Shell(s)
    base = "http://localhost:8080" + prefix

    def call(method, path, body=None, status=200, auth=True):
        line = f"curl -X {method} '{base}{path}'"
        if auth:
            line += ' -H "Authorization: Bearer {{accessToken}}"'
        if body:
            line += f""" -H "Content-Type: application/json" -d '{body}'"""
        return sh(line, status)

    d = call("POST", "/auth/register", '''{
    "username": "johndoe",
    "email": "john.doe@example.com",
    "password": "password123",
    "role": "user"
}''', 201, auth=False)
    assert UUID7.match(d.get("user", d)["id"])
    login = '{ "email": "john.doe@example.com", "password": "password123" }'
    sh.jwt = call("POST", "/auth/login", login, auth=False)["access_token"]
    assert call("GET", "/balances/current")["balance"] == 0
    assert call("POST", "/transactions/credit", '{ "amount": 1000.00, "currency": "USD" }', 201)["balance_after"] == 1000
    t = call("POST", "/transactions/transfer",
             f'{{ "to_user_id": "{target.uuid}", "amount": 100.00, "currency": "USD" }}', 201)
    d = call("GET", "/transactions/history?limit=10&type=transfer")["data"]
    assert [x["id"] for x in d] == [t["id"]]
    assert target.balance() == 100
    assert call("GET", f"/transactions/{t['id']}")["amount"] == 100


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_redis_cache_workflow(fresh, prefix):
    """The seed's cache guide: user cache, update, balance, transaction, six logins, warm-up."""
    s = fresh()
    u = new_user(s)
    c = s.admin.bank
    assert s.anon.get("/metrics/basic").status_code == 200
    for _ in range(2):
        assert c.get(f"{prefix}/users/{u.uuid}").json()["username"] == u.username
    r = c.put(f"{prefix}/users/{u.uuid}", json={"username": "cache_test_user", "email": "cache.test@example.com"})
    assert r.status_code == 200
    assert c.get(f"{prefix}/users/{u.uuid}").json()["username"] == "cache_test_user"
    assert c.get(prefix + "/balances/current").json()["balance"] == 0
    t = c.post(prefix + "/transactions/credit", json={"amount": 50.00, "currency": "USD"}).json()
    assert c.get(prefix + "/balances/current").json()["balance"] == 50
    for _ in range(2):
        assert c.get(f"{prefix}/transactions/{t['id']}").json()["id"] == t["id"]
    codes = [s.anon.post(prefix + "/auth/login", json={"email": "cache.test@example.com",
                                                       "password": PASSWORD}).status_code for _ in range(6)]
    assert codes == [200] * 5 + [429]
