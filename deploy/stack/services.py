"""The parts that the ticketing stack has besides those of parts.py: its services, their gateway, and what these talk through."""
import contextlib
import json
import os
import re
import shutil
import socket
import struct
from pathlib import Path

from machine import HOST, fill, get
from parts import DEPLOY, Instance, Part

RABBIT_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EPMD = Path("/usr/bin/epmd")
INTEROP = ("consul", "ferretdb")  # Debian has neither; ./dev interop builds them


def interop_folder():
    return Path(os.environ.get("STACK_INTEROP") or DEPLOY.parent / "build-interop").absolute()


def interop_servers():
    """Those of them that are there."""
    return [name for name in INTEROP if os.access(interop_folder() / name, os.X_OK)]


class Borrowed(Part):
    """A server from the folder of ./dev interop."""
    user = "nobody"
    program = None

    @property
    def binary(self):
        return self.stack.dir / "bin" / self.program

    def prepare(self):
        self.folder(self.data)
        if not self.binary.exists():  # a copy, which its user can reach
            shutil.copyfile(interop_folder() / self.program, self.binary)
            self.binary.chmod(0o755)


class Consul(Borrowed):
    program = "consul"

    def prepare(self):
        super().prepare()
        http, server, lan, wan = self.ports
        self.write(self.stack.dir / "conf" / "consul.hcl", f"""
node_name = "stack"
bind_addr = "{HOST}"
client_addr = "{HOST}"
disable_update_check = true
ports {{ http = {http} server = {server} serf_lan = {lan} serf_wan = {wan} dns = -1 grpc = -1 }}
performance {{ raft_multiplier = 1 }}
""")

    def launch(self):
        # In memory: who is there tells it again.
        self.spawn([self.binary, "agent", "-dev", f"-config-file={self.stack.dir}/conf/consul.hcl"], env={"HOME": str(self.data)})

    def ready(self):
        status, leader = get(self.port, "/v1/status/leader")
        return status == 200 and ":" in leader

    def role(self):
        with contextlib.suppress(ValueError):
            checks = json.loads(get(self.port, "/v1/agent/checks")[1]).values()
            return f"{sum(c['Status'] == 'passing' for c in checks)} of {len(checks)} instances pass"
        return "does not answer"


class Mongo(Borrowed):
    """MongoDB's protocol, by FerretDB over SQLite."""
    program = "ferretdb"

    def launch(self):
        self.spawn([self.binary, f"--listen-addr={HOST}:{self.port}", "--handler=sqlite", f"--sqlite-url=file:{self.data}/",
                    "--telemetry=disable", "--debug-addr=-", "--log-level=warn", f"--state-dir={self.data}"])

    def ready(self):
        command = b"\x10ping\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0\0"
        body = struct.pack("<IB", 0, 0) + struct.pack("<i", len(command) + 4) + command
        message = struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body  # OP_MSG
        try:
            with socket.create_connection((HOST, self.port), timeout=3) as s:
                s.sendall(message)
                return b"\x01ok\0" + struct.pack("<d", 1.0) in s.recv(65536)
        except OSError:
            return False

    def role(self):
        return "FerretDB" if self.ready() else "does not answer"


class RabbitMq(Part):
    user = "rabbitmq"
    ready_seconds = 90

    def prepare(self):
        self.folder(self.data)
        conf = self.stack.dir / "conf"
        self.write(conf / "rabbitmq.conf", (DEPLOY / "rabbitmq" / "payflow.conf").read_text("utf-8") + f"""
listeners.tcp.1 = {HOST}:{self.port}
default_user = payflow
default_pass = {self.stack.secret("rabbitmq_password")}
""")
        self.write(conf / "rabbitmq.plugins", "[].\n")

    def launch(self):
        """With an epmd of its own in its session, so that it ends with it; a node would leave one behind for the machine."""
        conf = self.stack.dir / "conf"
        env = {"HOME": self.data, "ERL_EPMD_PORT": self.ports[2], "ERL_EPMD_ADDRESS": HOST,
               "ERL_CRASH_DUMP": self.data / "erl_crash.dump",
               "RABBITMQ_HOME": self.data, "RABBITMQ_NODENAME": "payflow@localhost", "RABBITMQ_DIST_PORT": self.ports[1],
               "RABBITMQ_CONFIG_FILE": conf / "rabbitmq", "RABBITMQ_ADVANCED_CONFIG_FILE": self.data / "none",
               "RABBITMQ_CONF_ENV_FILE": self.data / "none", "RABBITMQ_ENABLED_PLUGINS_FILE": conf / "rabbitmq.plugins",
               "RABBITMQ_MNESIA_BASE": self.data / "mnesia", "RABBITMQ_LOG_BASE": self.data / "logs",
               "RABBITMQ_PID_FILE": self.data / "pid",
               "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
               # as under systemd, where the script becomes the server instead of waiting for it
               "NOTIFY_SOCKET": self.data / "nobody"}
        self.spawn(["/bin/sh", "-c", f"{EPMD} & n=0; until {EPMD} -names >/dev/null 2>&1; do"
                    f" n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep 0.05; done; exec {RABBIT_SERVER}"],
                   env={name: str(value) for name, value in env.items()})

    def greeting(self):
        """The first frame of a connection, Connection.Start; empty if it does not answer."""
        try:
            with socket.create_connection((HOST, self.port), timeout=3) as s:
                s.sendall(b"AMQP\x00\x00\x09\x01")
                frame = s.recv(4096)
                return frame if frame[7:11] == struct.pack(">HH", 10, 10) else b""
        except OSError:
            return b""

    def ready(self):
        return bool(self.greeting())

    def role(self):
        found = re.search(rb"\x07versionS....([0-9.]+)", self.greeting(), re.S)
        return f"RabbitMQ {found[1].decode()}" if found else "does not answer"


class Service(Instance):
    """`payflow serve --role …`, with the settings of the ticketing stack."""

    def __init__(self, stack, name, serves, *ports):
        super().__init__(stack, name, *ports)
        self.serves = serves

    def consul(self):
        """Its address; empty where the stack has none."""
        return f"{HOST}:{self.stack.parts['consul'].port}" if "consul" in self.stack.parts else ""

    def settings(self):
        secrets = self.stack.dir / "secrets" / "app"
        text = fill((DEPLOY / "ticketing.env.template").read_text("utf-8"), {
            "SECRETS": secrets, "CONSUL_HTTP_ADDR": self.consul(),
            "MONGO_URL_FILE": secrets / "mongo_url" if "mongo" in self.stack.parts else ""})
        more = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
        if len(self.ports) > 1:
            more["GRPC_LISTEN"] = f"{HOST}:{self.ports[1]}"
        return super().settings() | {name: value for name, value in more.items() if value}

    def prepare(self):
        own, have = self.stack.dir / "secrets" / "app", self.stack.parts
        self.folder(own)
        self.write(own / "amqp_url", f"amqp://payflow:{self.stack.secret('rabbitmq_password')}@{HOST}:{have['rabbitmq'].port}/\n")
        if "mongo" in have:
            self.write(own / "mongo_url", f"mongodb://{HOST}:{have['mongo'].port}/payflow\n")
        values = {}
        for part in have.values():
            if isinstance(part, Service):
                values |= {f"{part.name.upper()}_{what}": value for what, value in zip(("HOST", "PORT", "GRPC"), (HOST, *part.ports))}
        self.write(self.config, fill((DEPLOY / "ticketing.yaml.template").read_text("utf-8"), values))
        super().prepare()

    @property
    def config(self):
        return self.stack.dir / "conf" / "ticketing.yaml"

    def launch(self):
        self.spawn([self.binary, "serve", "--role", self.serves, "--config", self.config], env=self.settings())


class Gateway(Service):
    """It has no store, and so no secrets."""

    def __init__(self, stack, name, port):
        super().__init__(stack, name, "gateway", port)

    def settings(self):
        own = {"ENV": "dev", "LISTEN": f"{HOST}:{self.port}", "SHUTDOWN_TIMEOUT": "10", "CONSUL_HTTP_ADDR": self.consul()}
        return {name: value for name, value in own.items() if value}

    def groups(self):
        """Of each group, how many backends take requests, and how many there are; empty if it does not answer."""
        with contextlib.suppress(ValueError, KeyError):
            groups = json.loads(get(self.port, "/health")[1])["services"]["load_balancer"]
            return {name: (g["in"], len(g["backends"])) for name, g in groups.items() if isinstance(g, dict)}
        return {}

    def ready(self):
        groups = self.groups()
        return bool(groups) and all(up for up, _ in groups.values())

    def role(self):
        return ", ".join(f"{name} {up} of {n}" for name, (up, n) in self.groups().items()) or "does not answer"


def ticketing_parts(stack, servers):
    """In the order of starting; servers: which of INTEROP there are."""
    parts = [RabbitMq(stack, "rabbitmq", 5672, 5673, 5674)]
    if "consul" in servers:
        parts.append(Consul(stack, "consul", 8500, 8300, 8301, 8302))
    if "ferretdb" in servers:
        parts.append(Mongo(stack, "mongo", 27017))
    # The first of a role has its usual port.
    return [*parts, Service(stack, "api1", "api", 8080), Service(stack, "api2", "api", 8180),
            Service(stack, "identity", "identity", 8081),
            Service(stack, "event1", "event", 8082), Service(stack, "event2", "event", 8182),
            Service(stack, "booking1", "booking", 8083, 50051), Service(stack, "booking2", "booking", 8183, 50151),
            Service(stack, "payment", "payment", 8084), Gateway(stack, "gateway", 3000)]
