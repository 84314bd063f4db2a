"""Whose request it is behind a proxy: the audit log, the login limit, the limit of anonymous callers, the access log, HSTS."""
import json
import subprocess

import httpx
import pytest

import harness
from harness import ROOT, eventually, new_user, ok, problem

FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9", "Forwarded": "for=203.0.113.9"}


def login(client, user, password="wrong-password", **headers):
    return client.post("/api/v1/auth/login", json={"email": user.email, "password": password}, headers=headers)


def logged_address(server, user):
    """Where the last refused login of the user came from, by the audit log and by the access log."""
    rows = ok(server.admin.api.get("/api/v1/admin/audit", params={"action": "login.refused"}))["data"]
    row = next(r for r in rows if r["entity_id"] == user.username)

    def line():
        return [x for x in map(json.loads, server.log_text().splitlines()) if x.get("request_id") == row["request_id"]]
    eventually(line)
    return row["address"], line()[-1]["peer"]


@pytest.mark.parametrize("trusted", ["", "192.0.2.1,2001:db8::/32"])
def test_what_an_untrusted_peer_says_has_no_effect(fresh, trusted):
    s = fresh(env={"TRUSTED_PROXIES": trusted} if trusted else {})
    u = new_user(s)
    codes = [login(s.anon, u, **{"X-Forwarded-For": f"203.0.113.{i}"}).status_code for i in range(6)]
    assert codes == [401] * 5 + [429]
    u = new_user(s)
    r = login(s.anon, u, **FORGED, **{"X-Forwarded-Proto": "https"})
    assert r.status_code == 401 and "strict-transport-security" not in r.headers
    assert logged_address(s, u) == ("127.0.0.1", "127.0.0.1")


def test_clients_of_a_trusted_proxy(fresh):
    s = fresh(env={"TRUSTED_PROXIES": " 127.0.0.0/8, ::1 ", "RATE_LIMIT": "1000"})
    u = new_user(s)
    one, two = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "6.6.6.6, 203.0.113.2, 127.0.0.9"}
    assert [login(s.anon, u, **one).status_code for _ in range(6)] == [401] * 5 + [429]
    assert [login(s.anon, u, **two).status_code for _ in range(5)] == [401] * 5, "another client, with tries of its own"
    assert logged_address(s, u) == ("203.0.113.2", "203.0.113.2")
    # What the client put before its own address does not make another of it, nor does what cannot be read.
    problem(login(s.anon, u, **{"X-Forwarded-For": "198.51.100.7, 203.0.113.2"}), 429)
    problem(login(s.anon, u, **{"X-Forwarded-For": "\"'; garbage, 203.0.113.2"}), 429)
    assert login(s.anon, u, **{"X-Forwarded-For": "203.0.113.2, garbage"}).status_code == 401
    assert logged_address(s, u) == ("127.0.0.1", "127.0.0.1")
    v = new_user(s)
    assert login(s.anon, v, **{"X-Forwarded-For": "2001:DB8:0:0::17"}).status_code == 401
    assert logged_address(s, v) == ("2001:db8::17", "2001:db8::17")
    # The limit of anonymous callers is each client's own.
    for client, left in (("203.0.113.30", 999), ("203.0.113.30", 998), ("203.0.113.31", 999)):
        r = s.anon.post("/api/login", json={"username": "nobody", "password": "x"}, headers={"X-Forwarded-For": client})
        assert f"r={left}" in r.headers["ratelimit"], r.headers
    assert "strict-transport-security" in s.anon.get("/health/live", headers={"X-Forwarded-Proto": "https"}).headers
    assert "strict-transport-security" not in s.anon.get("/health/live", headers={"X-Forwarded-Proto": "http"}).headers


def test_a_wrong_list_ends_the_start(tmp_path):
    for bad in ("proxy.example.com", "10.0.0.1/8", "10.0.0.0/40", "::1,", ",".join(["10.0.0.1"] * 65)):
        r = harness.cli("serve", "--port", "0", "--data", tmp_path / "d", env=harness.environment(TRUSTED_PROXIES=bad))
        assert r.returncode == 78 and "TRUSTED_PROXIES" in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr


@pytest.fixture
def nginx(tmp_path):
    """The real one, with deploy/nginx as it is, before a server; its ports for HTTP and HTTPS."""
    process = []

    def start(server):
        values = dict(line.split("=", 1) for line in (ROOT / "deploy/nginx/defaults.env").read_text("utf-8").splitlines()
                      if line and not line.startswith("#"))
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                        "1", "-subj", "/CN=localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
        ports = [harness.free_port() for _ in range(3)]
        app = f"127.0.0.1:{server.port}"
        values |= {"APP1": app, "APP2": app, "LISTEN": "127.0.0.1:", "HTTP_PORT": str(ports[0]), "HTTPS_PORT": str(ports[1]),
                   "STATUS_PORT": str(ports[2]), "TLS_CERT": str(cert), "TLS_KEY": str(key), "PASSWORD_RATE_PER_S": "1000",
                   "PASSWORD_BURST": "1000"}
        text = (ROOT / "deploy/nginx/payflow.conf.template").read_text("utf-8")
        for name, value in values.items():
            text = text.replace("${" + name + "}", value.strip('"'))
        temp = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (tmp_path / "conf").write_text(f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\n"
                                       f"events {{}}\nhttp {{\naccess_log off;\n{temp}{text}\n}}\n", "utf-8")
        process.append(subprocess.Popen(["nginx", "-p", tmp_path, "-c", tmp_path / "conf"], stderr=subprocess.DEVNULL))

        def up():
            try:
                return httpx.get(f"http://127.0.0.1:{ports[0]}/health/live").status_code == 200
            except httpx.HTTPError:
                return False
        eventually(up)
        return ports[:2]
    yield start
    for p in process:
        p.terminate()
        p.wait(10)


def test_nobody_forges_through_nginx(fresh, nginx):
    s = fresh(env={"TRUSTED_PROXIES": "127.0.0.1"})
    plain, tls = nginx(s)
    u = new_user(s)
    # Two clients at addresses of their own.
    one, two = (httpx.Client(base_url=f"http://127.0.0.1:{plain}", transport=httpx.HTTPTransport(local_address=a))
                for a in ("127.0.0.21", "127.0.0.22"))
    with one, two:
        codes = [login(one, u, **{**FORGED, "X-Forwarded-For": f"203.0.113.{i}"}).status_code for i in range(6)]
        assert codes == [401] * 5 + [429], "what it says of itself gives it no further tries"
        assert login(two, u, **{"X-Forwarded-For": "127.0.0.21"}).status_code == 401, "nor does it use up another's"
        assert logged_address(s, u) == ("127.0.0.22", "127.0.0.22")
        lines = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "198.51.100.2, 127.0.0.1")]
        v = new_user(s)
        r = two.post("/api/v1/auth/login", json={"email": v.email, "password": "x"}, headers=lines)
        assert r.status_code == 401
        assert logged_address(s, v) == ("127.0.0.22", "127.0.0.22")
        assert "strict-transport-security" not in two.get("/health/live", headers={"X-Forwarded-Proto": "https"}).headers
    r = httpx.get(f"https://127.0.0.1:{tls}/health/live", verify=False)
    assert r.headers.get_list("strict-transport-security") == ["max-age=31536000"]
