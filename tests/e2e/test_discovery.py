"""Instances that register with Consul, a gateway that finds them there, and `payflow discovery`; with a real agent."""
import json
import os
import signal
import subprocess
import time

import httpx
import pytest

import harness

CONSUL = os.environ.get("PAYFLOW_TEST_CONSUL")
needs_consul = pytest.mark.skipif(not CONSUL, reason="PAYFLOW_TEST_CONSUL names no consul (./dev interop builds one)")
TOKEN = "sesame-never-logged"


def until(yes, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = yes()
        if got:
            return got
        time.sleep(0.05)
    return yes()


class Agent:
    def __init__(self, folder, more="", https=False):
        self.ports = [harness.free_port() for _ in range(5)]
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.secure_url = f"https://127.0.0.1:{self.ports[4]}"
        self.more = more + (" ports { https = %d }" % self.ports[4] if https else "")
        self.token = ""
        self.log = open(folder / "consul.log", "wb")
        self.start()

    def start(self):
        ports = "ports { http = %d server = %d serf_lan = %d serf_wan = %d dns = -1 grpc = -1 }" % tuple(self.ports[:4])
        self.process = subprocess.Popen(
            [CONSUL, "agent", "-dev", "-bind=127.0.0.1", "-node=n1", "-hcl", ports + " performance { raft_multiplier = 1 }",
             "-hcl", self.more],
            stdout=self.log, stderr=self.log)
        assert until(self.has_leader), "consul does not come up"

    def has_leader(self):
        try:
            return httpx.get(self.url + "/v1/status/leader", timeout=2).json() != ""
        except (httpx.HTTPError, ValueError):
            return False

    def ids(self, service):
        """Of those whose checks pass."""
        return sorted(e["Service"]["ID"] for e in httpx.get(f"{self.url}/v1/health/service/{service}?passing=1",
                                                             headers={"X-Consul-Token": self.token}, timeout=5).json())

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def agent(tmp_path):
    a = Agent(tmp_path)
    yield a
    a.stop()
    a.log.close()


def config(folder, name, port, **extra):
    path = folder / f"{name}.yaml"
    service = {"name": "api-service", "id": name, "port": port, "tags": ["v1", "production"], "weight": 10,
               "checks": [{"name": "HTTP Health Check", "http": f"http://127.0.0.1:{port}/health/ready",
                           "interval": "1s", "timeout": "1s"}]}
    path.write_text(json.dumps({"consul_config": {"datacenter": "dc1", "services": {"mine": service}}, **extra}))
    return str(path)


def server(folder, agent, name, *args, **extra):
    s = harness.Server(folder / name, env={"CONSUL_HTTP_ADDR": agent.url, "CONSUL_HTTP_TOKEN": TOKEN})
    s.args = [*args, "--config", config(folder, name, s.port, **extra)]
    return s


def discovery(agent, *args):
    return harness.cli("discovery", *args, env=harness.environment(CONSUL_HTTP_ADDR=agent.url, CONSUL_HTTP_TOKEN=TOKEN))


def backends(gateway):
    groups = gateway.anon.get("/health").json()["services"]["load_balancer"]
    return sorted(b["name"] for b in groups["api"]["backends"] if b["state"] == "up")


def engine(gateway):
    return gateway.anon.get("/health").json()["services"]["discovery"]


@needs_consul
def test_a_gateway_finds_who_registers(tmp_path, agent):
    one, two = (server(tmp_path, agent, name).start() for name in ("api-1", "api-2"))
    # consul_config.services names the gateway itself; group api comes from Consul
    gateway = server(tmp_path, agent, "edge", "--role", "gateway",
                     load_balancer={"services": {"api": "api-service"}, "health_check": {"interval": "200ms", "timeout": "2s"}})
    gateway.yaml = tmp_path / "edge.yaml"
    gateway.yaml.write_text(gateway.yaml.read_text().replace('"api-service", "id"', '"edge-service", "id"'))
    try:
        gateway.start()
        assert until(lambda: agent.ids("api-service") == ["api-1", "api-2"])
        assert until(lambda: agent.ids("edge-service") == ["edge"])
        assert until(lambda: backends(gateway) == ["api-1", "api-2"]), gateway.log_text()
        assert engine(gateway)["engine"] == "consul" and engine(gateway)["status"] == "UP"
        for _ in range(4):
            assert gateway.anon.get("/api/v1/ping").json() == {"message": "pong"}

        out = discovery(agent)
        assert (out.returncode, out.stdout.split()) == (0, ["api-service", "consul", "edge-service"])
        out = discovery(agent, "api-service")
        assert out.returncode == 0 and out.stdout.splitlines() == [
            f"api-{n + 1} 127.0.0.1:{s.port} weight=10 passing v1 production" for n, s in enumerate((one, two))]
        out = discovery(agent, "api-service", "-o", "json")
        assert json.loads(out.stdout)[1] == {"id": "api-2", "address": "127.0.0.1", "port": two.port, "weight": 10,
                                             "health": "passing", "tags": ["v1", "production"]}
        assert json.loads(discovery(agent, "nobody", "-o", "json").stdout) == []
        assert "api-service" in json.loads(discovery(agent, "-o", "json").stdout)

        assert two.stop() == 0  # it signs off before it stops serving
        assert agent.ids("api-service") == ["api-1"]
        assert until(lambda: backends(gateway) == ["api-1"]), gateway.log_text()

        # an agent that hangs, then loses all it knew: requests go on, and it is told again
        agent.process.send_signal(signal.SIGSTOP)
        assert discovery(agent).returncode == 1
        assert gateway.anon.get("/api/v1/ping").status_code == 200
        agent.stop()
        assert until(lambda: engine(gateway)["status"] == "DEGRADED"), gateway.log_text()
        assert gateway.anon.get("/api/v1/ping").status_code == 200
        agent.start()
        assert until(lambda: agent.ids("api-service") == ["api-1"], 60), one.log_text()
        assert until(lambda: engine(gateway)["status"] == "UP", 60), gateway.log_text()
        assert backends(gateway) == ["api-1"] and gateway.anon.get("/api/v1/ping").status_code == 200
        assert "backend drains" not in gateway.log_text().split("registry does not answer", 1)[1]
    finally:
        for s in (one, two, gateway):
            s.stop()
    assert agent.ids("edge-service") == [] and agent.ids("api-service") == []
    for s in (one, two, gateway):
        assert TOKEN not in s.log_text()


@needs_consul
def test_tls_and_tokens(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                    "-out", cert, "-days", "2", "-subj", "/CN=consul", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)
    token = "11111111-2222-3333-4444-555555555555"
    (tmp_path / "token").write_text(token + "\n")
    agent = Agent(tmp_path, 'cert_file = "%s" key_file = "%s" acl { enabled = true default_policy = "deny" '
                            'tokens { initial_management = "%s" } }' % (cert, key, token), https=True)
    agent.token = token
    servers = []
    try:
        for name, env in {
            "good": {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token"), "CONSUL_CACERT": str(cert)},
            "tokenless": {"CONSUL_CACERT": str(cert)},
            "strange": {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token")},  # an authority that the system does not know
        }.items():
            s = server(tmp_path, agent, name)
            s.env.update({"CONSUL_HTTP_ADDR": agent.secure_url, **env})
            del s.env["CONSUL_HTTP_TOKEN"]
            servers.append(s.start())
        assert until(lambda: agent.ids("api-service") == ["good"]), servers[0].log_text()
        assert until(lambda: "HTTP 403" in servers[1].log_text())
        assert until(lambda: "certificate" in servers[2].log_text())
        for s in servers:
            assert s.stop() == 0 and token not in s.log_text()
        assert agent.ids("api-service") == []
    finally:
        for s in servers:
            s.stop()
        agent.stop()
        agent.log.close()


def test_no_agent_stops_nobody(tmp_path):
    class Nobody:
        url = f"http://127.0.0.1:{harness.free_port()}"
    s = server(tmp_path, Nobody, "api-1").start()
    assert until(lambda: "not registered yet" in s.log_text())
    assert s.anon.get("/api/v1/ping").status_code == 200
    assert s.stop() == 0
    assert discovery(Nobody).returncode == 1


def test_settings():
    def printed(**env):
        return harness.cli("config", "print", env=harness.environment(**env))
    out = printed(CONSUL_HTTP_ADDR="consul:8500", CONSUL_HTTP_TOKEN=TOKEN).stdout
    assert "consul:8500" in out and TOKEN not in out
    for args in (("serve",), ("serve", "--role", "gateway"), ("discovery",)):
        bad = harness.cli(*args, env=harness.environment(CONSUL_HTTP_ADDR="consul"))
        assert bad.returncode == 78 and "HOST:PORT" in bad.stderr
    assert harness.cli("discovery").returncode == 78
