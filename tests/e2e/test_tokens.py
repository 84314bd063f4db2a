"""Credentials: forged and worn-out tokens, key rotation, and what prod mode refuses to start with."""
import hashlib
import json
import re
import time

import pytest

from harness import (PASSWORD, SECRET, b64, claims, cli, environment, forge, free_port, new_user, ok, problem, unb64,
                     unique)

ME = "/api/v1/balances/current"
SAMPLE = "your-super-secret-jwt-key-change-in-production"


def refused(server, token):
    problem(server.client(jwt=token).get(ME), 401, "invalid-credentials")


@pytest.fixture
def token(user):
    return user.jwt


def test_our_forgery_is_good_enough_to_be_taken(dev, token):
    """The control: with the right claims and secret a token made here is accepted, so refusals below mean something."""
    assert ok(dev.client(jwt=forge(claims(token))).get(ME))["balance"] == 1000
    assert json.loads(unb64(token.split(".")[0]))["alg"] == "HS256"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "RS256", "HS384", "HS512", "ES256", "", None, 5,
                                 ["HS256"], "hs256"])
@pytest.mark.parametrize("signature", ["hs256", "empty", "kept"])
def test_alg(dev, token, alg, signature):
    header = {"alg": alg, "typ": "JWT"}
    signed = forge(claims(token), header)
    if signature == "empty":
        signed = signed.rsplit(".", 1)[0] + "."
    elif signature == "kept":
        signed = signed.rsplit(".", 1)[0] + "." + token.split(".")[2]
    refused(dev, signed)


def test_hs512_signature(dev, token):
    refused(dev, forge(claims(token), {"alg": "HS512", "typ": "JWT"}, digest=hashlib.sha512))


@pytest.mark.parametrize("change", [
    {"exp": 1}, {"exp": int(time.time()) - 120}, {"exp": None}, {"exp": "9999999999"}, {"exp": -1}, {"exp": 1e400},
    {"iss": "someone"}, {"iss": None}, {"iss": ["payflow"]}, {"aud": "someone"}, {"aud": None}, {"aud": []},
    {"typ": "refresh"}, {"typ": None}, {"typ": "id"}, {"sub": None}, {"sub": ""}, {"sub": "999999999"},
    {"sub": "01890000-0000-7000-8000-000000000000"}, {"sub": {"id": 1}}, {"iat": int(time.time()) + 86_400},
    {"jti": None},
])
def test_claims_altered_and_signed(dev, token, change):
    c = {**claims(token), **change}
    refused(dev, forge({k: v for k, v in c.items() if v is not None}))


def test_role_in_the_token_is_not_believed_over_the_store(dev, user):
    """A user demoted after the token was made is no admin any more."""
    a = new_user(dev, role="admin")
    assert a.bank.get("/api/v1/users").status_code == 200
    ok(dev.admin.api.put(f"/api/users/{a.id}", json={"role": "user"}))
    assert a.bank.get("/api/v1/users").status_code in (401, 403)
    assert a.api.get("/api/users").status_code in (401, 403)


def test_altered_without_the_secret(dev, token):
    head, body, sign = token.split(".")
    altered = b64(json.dumps({**claims(token), "role": "admin"}).encode())
    flipped = ("A" if sign[0] != "A" else "B") + sign[1:]
    for bad in (f"{head}.{altered}.{sign}", f"{head}.{body}.{flipped}", f"{head}.{body}.", f"{head}.{body}",
                f"{head}..{sign}", f".{body}.{sign}", "..", ".", "x", f"{token}.x", f"{token}=", token[:-1],
                f"{head}.{body}.{sign}A", token + " x", f"{head}.{body}.{sign[:-2]}", token.upper(),
                "a." * 5000, b64(b"{}") + "." + b64(b"{}") + "." + sign, "%00." + body + "." + sign):
        r = dev.client(headers={"Authorization": "Bearer " + bad}).get(ME)
        assert r.status_code in (400, 401, 431), (bad[:40], r.status_code)
    refused(dev, forge(claims(token), secret="another secret of thirty-two bytes or so"))
    refused(dev, forge(claims(token), secret=""))
    refused(dev, forge(claims(token), secret=SAMPLE))


def test_other_schemes(dev, user):
    for value in ("Basic " + b64(b"root:root"), user.jwt, "Bearer", "Token " + user.jwt, "Digest username=x"):
        assert dev.client(headers={"Authorization": value}).get(ME).status_code in (400, 401), value
    ok(dev.client(headers={"Authorization": "bearer " + user.jwt}).get(ME))


def test_bad_credential_is_refused_even_where_dev_is_open(dev, user):
    path = f"/api/balances?user_id={user.id}"
    ok(dev.anon.get(path))
    problem(dev.client(key="pf_wrong").get(path), 401)
    problem(dev.client(jwt="a.b.c").get(path), 401)
    problem(dev.client(key="").get(path, headers={"X-API-Key": "pf_" + "0" * 43}), 401)


def test_two_credentials_must_not_disagree(dev, user, other):
    r = dev.client(key=user.key, jwt="a.b.c").get(ME)
    assert r.status_code in (400, 401)
    r = dev.client(key=user.key, jwt=other.jwt).get(ME)
    assert r.status_code in (200, 400, 401)
    if r.status_code == 200:
        assert ok(r)["balance"] in (0, 1000)


def test_refresh_is_no_access_token(dev, user):
    refused(dev, user.tokens["refresh_token"])
    problem(dev.anon.post("/api/v1/auth/refresh", json={"refresh_token": user.jwt}), 401)


def refresh(server, token):
    return server.anon.post("/api/v1/auth/refresh", json={"refresh_token": token})


def test_rotation(dev, user):
    first = user.login()
    second = ok(refresh(dev, first["refresh_token"]))
    assert second["refresh_token"] != first["refresh_token"] and second["access_token"] != first["access_token"]
    ok(dev.client(jwt=second["access_token"]).get(ME))
    third = ok(refresh(dev, second["refresh_token"]))
    ok(dev.client(jwt=third["access_token"]).get(ME))
    c = claims(first["refresh_token"]) if first["refresh_token"].count(".") == 2 else None
    if c:
        assert c["exp"] - c["iat"] == 7 * 86_400 and c["typ"] == "refresh"


def test_reuse_revokes_the_family(dev, user):
    first, elsewhere = user.login(), user.login()
    second = ok(refresh(dev, first["refresh_token"]))
    problem(refresh(dev, first["refresh_token"]), 401)
    problem(refresh(dev, second["refresh_token"]), 401)
    ok(refresh(dev, elsewhere["refresh_token"]))


def test_reuse_is_found_across_restart(fresh):
    s = fresh()
    u = new_user(s)
    first = u.login()
    second = ok(refresh(s, first["refresh_token"]))
    s.restart(kill=True)
    problem(refresh(s, first["refresh_token"]), 401)
    problem(refresh(s, second["refresh_token"]), 401)


@pytest.mark.parametrize("body", [{}, {"refresh_token": None}, {"refresh_token": 5}])
def test_refresh_shape(dev, body):
    problem(dev.anon.post("/api/v1/auth/refresh", json=body), 422, loc="refresh_token")


def test_refresh_garbage(dev, user):
    for bad in ("x", "a.b.c", "x" * 3000, forge({**claims(user.jwt), "typ": "refresh"})):
        problem(refresh(dev, bad), 401)


def test_logout(dev, user):
    t = user.login()
    r = dev.client(jwt=t["access_token"]).post("/api/v1/auth/logout", json={"refresh_token": t["refresh_token"]})
    assert r.status_code in (200, 204), r.text
    problem(refresh(dev, t["refresh_token"]), 401)
    refused(dev, t["access_token"])
    ok(user.bank.get(ME))


def test_logout_without_a_body(dev, user):
    t = user.login()
    assert dev.client(jwt=t["access_token"]).post("/api/v1/auth/logout").status_code in (200, 204)
    problem(refresh(dev, t["refresh_token"]), 401)
    problem(dev.anon.post("/api/v1/auth/logout"), 401)


def test_password_change_ends_the_sessions(dev):
    u = new_user(dev)
    t = u.login()
    ok(dev.client(jwt=t["access_token"]).put("/api/users", json={"id": u.id, "password": "quite another 1"}))
    problem(refresh(dev, t["refresh_token"]), 401)


def test_key_format_and_rotation(dev, user):
    k = user.key
    assert re.fullmatch(r"pf_[0-9A-Za-z]{40,44}", k)
    second = ok(dev.anon.post("/api/login", json={"username": user.username, "password": user.password}))["api_key"]
    assert second != k
    new = ok(dev.client(key=k).post("/api/users/api-key"))["api_key"]
    assert len({k, second, new}) == 3
    problem(dev.client(key=k).get(ME), 401, "invalid-credentials")
    for alive in (second, new):
        ok(dev.client(key=alive).get(ME))
    problem(dev.anon.post("/api/users/api-key"), 401)


def test_key_near_misses(dev, user):
    k = user.key
    for bad in (k[:-1], k + "0", k.lower() if k.lower() != k else k.upper(), k[3:], "pf_", k[:10] + "0" * (len(k) - 10),
                "pf_" + "z" * 5000, "' OR 1=1 --"):
        assert dev.client(key=bad).get(ME).status_code in (400, 401), bad


def test_keys_survive_restart_and_are_stored_hashed(fresh):
    s = fresh()
    u = new_user(s)
    k = u.key
    token = u.jwt
    s.restart(kill=True)
    ok(u.api.get(ME))
    s.stop()
    blob = b"".join(p.read_bytes() for p in s.data.rglob("*") if p.is_file())
    assert k.encode() not in blob and k[3:].encode() not in blob
    assert PASSWORD.encode() not in blob and SECRET.encode() not in blob
    assert b"$2b$" in blob
    assert k not in s.log_text() and PASSWORD not in s.log_text() and token not in s.log_text()


def test_user_deletion_ends_its_credentials(dev):
    u = new_user(dev)
    assert u.key and u.jwt
    ok(dev.admin.api.delete(f"/api/users/{u.id}"))
    problem(u.bank.get(ME), 401)
    problem(u.api.get(ME), 401)
    problem(refresh(dev, u.tokens["refresh_token"]), 401)


def serve_refused(tmp_path, env, *args):
    r = cli("serve", "--listen", f"127.0.0.1:{free_port()}", "--data", tmp_path / "d", *args, env=env, timeout=20)
    assert r.returncode == 78, (r.returncode, r.stderr)
    assert r.stderr.strip(), "nothing says why"
    assert "Traceback" not in r.stderr
    return r


@pytest.mark.parametrize("env", ["prod", "staging"])
@pytest.mark.parametrize("secret", [None, "", "short", "x" * 31, SAMPLE])
def test_prod_refuses_secrets(tmp_path, env, secret):
    r = serve_refused(tmp_path, environment(ENV=env, JWT_SECRET=secret))
    assert "JWT_SECRET" in r.stderr
    assert not secret or secret == "short" or secret not in r.stderr


@pytest.mark.parametrize("env", [{"ENV": "production"}, {"PORT": "x"}, {"PORT": "70000"}, {"BCRYPT_COST": "3"},
                                 {"BCRYPT_COST": "32"}, {"RATE_LIMIT": "-1"}, {"DEFAULT_CURRENCY": "XXQ"},
                                 {"LOG_LEVEL": "loud"}, {"DB_URL": "mysql://x"}])
def test_bad_configuration(tmp_path, env):
    r = serve_refused(tmp_path, environment(**env))
    assert next(iter(env)) in r.stderr
    assert len(r.stderr.strip().splitlines()) == 1, "one clear line"


def test_dev_binds_to_loopback_only(tmp_path):
    r = cli("serve", "--listen", f"0.0.0.0:{free_port()}", "--data", tmp_path / "d", timeout=20)
    assert r.returncode == 78 and "ALLOW_OPEN_BIND" in r.stderr


def test_prod_passwords(prod):
    for password, status in (("1234567", 422), ("12345678", 201), ("x" * 73, 422)):
        n = unique()
        r = prod.anon.post("/api/users", json={"username": n, "email": n + "@example.com", "password": password})
        assert r.status_code == status, (password, r.text)


def test_secret_from_a_file(fresh, tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    s = fresh(env={"ENV": "prod", "JWT_SECRET": None, "JWT_SECRET_FILE": path})
    ok(s.client(jwt=forge(claims(s.admin.jwt))).get(ME))


def test_unknown_names_take_as_long(fresh):
    s = fresh(env={"BCRYPT_COST": "10"})

    def took(body):
        begin = time.monotonic()
        problem(s.anon.post("/api/login", json=body), 401)
        return time.monotonic() - begin
    users = [new_user(s).username for _ in range(15)]
    # one right after the other: what the machine adds it adds to both
    ratios = sorted(took({"username": u, "password": "wrong"}) / took({"username": unique("ghost"), "password": "wrong"}) for u in users)
    assert 0.5 < ratios[7] < 2, ratios
