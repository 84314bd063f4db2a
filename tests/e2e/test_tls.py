"""TLS when a certificate and key are given: 1.2 and newer, HSTS, nothing in the clear."""
import shutil
import socket
import ssl
import subprocess

import pytest

from harness import cli, free_port, new_user, ok, raw, start_server


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    openssl = shutil.which("openssl")
    assert openssl, "the TLS tests make their certificate with openssl"
    d = tmp_path_factory.mktemp("tls")
    cert, key = d / "cert.pem", d / "key.pem"
    subprocess.run([openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def tls(pair, tmp_path_factory):
    cert, key = pair
    s = start_server(tmp_path_factory.mktemp("tls") / "data", args=["--tls-cert", cert, "--tls-key", key],
                     scheme="https", verify=str(cert))
    yield s
    assert s.stop() == 0


def handshake(server, cert, low, high):
    ctx = ssl.create_default_context(cafile=str(cert))
    ctx.set_ciphers("ALL:@SECLEVEL=0")
    ctx.minimum_version, ctx.maximum_version = low, high
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as s:
        with ctx.wrap_socket(s, server_hostname="localhost") as t:
            return t.version()


def test_money_moves(tls):
    u = new_user(tls, fund="5")
    assert u.balance() == 5
    r = tls.anon.get("/health")
    ok(r)
    assert int(r.headers["strict-transport-security"].split("max-age=")[1].split(";")[0]) > 0


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_new_versions(tls, pair, version):
    v = ssl.TLSVersion[version]
    assert handshake(tls, pair[0], v, v) == version.replace("_", ".")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(tls, pair, version):
    v = ssl.TLSVersion[version]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(tls, pair[0], v, v)


@pytest.mark.parametrize("ciphers", ["RC4", "3DES", "aNULL", "eNULL", "NULL"])
def test_weak_ciphers_are_refused(tls, pair, ciphers):
    ctx = ssl.create_default_context(cafile=str(pair[0]))
    ctx.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        ctx.set_ciphers(ciphers + ":@SECLEVEL=0")
    except ssl.SSLError:
        return
    with socket.create_connection(("127.0.0.1", tls.port), timeout=5) as s:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ctx.wrap_socket(s, server_hostname="localhost")


def test_plain_http_gets_nothing(tls):
    answer = raw(tls.port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 2)
    assert b"200 OK" not in answer and b"UP" not in answer


def test_garbage_does_not_harm(tls):
    for data in (b"\x16\x03\x01\xff\xff" + b"\x00" * 2000, b"\x15\x03\x03\x00\x02\x02\x28", b"\x00" * 50):
        raw(tls.port, data, 1, shutdown=True)
    ok(tls.anon.get("/health"))


def test_half_a_pair_is_refused(pair, tmp_path):
    cert, key = pair
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for code, args in (
            ({78}, ["--tls-cert", cert]), ({78}, ["--tls-key", key]), ({1, 78}, ["--tls-cert", bad, "--tls-key", key]),
            ({1, 78}, ["--tls-cert", tmp_path / "absent.pem", "--tls-key", key]),
            ({1, 78}, ["--tls-cert", key, "--tls-key", cert])):
        r = cli("serve", "--listen", f"127.0.0.1:{free_port()}", "--data", tmp_path / "d", *args, timeout=20)
        assert r.returncode in code and r.stderr.strip(), (args, r.returncode, r.stderr)
