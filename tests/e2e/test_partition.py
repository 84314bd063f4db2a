"""The network between one instance and PostgreSQL is cut, one way or both, while the other instance has its own way there: the other
one goes on, the cut one comes back within 10 s of the network's return, and the books hold what was acknowledged, once.

The instance lives in a network namespace with two cables: one to its clients, one to the database. A cut is a wrong hardware address for
the other end: what is sent goes nowhere, and nobody is told. `PAYFLOW_FAULT_TURNS` (1) goes through all cuts so often."""
import os
import random
import subprocess
import time

import pytest

import harness
import history as past
from harness import cli, new_user
from history import History, Load
from postgres import Cluster

BACK_S = 10
TURNS = int(os.environ.get("PAYFLOW_FAULT_TURNS", "1"))
CLIENTS = 12
NOWHERE = "02:00:00:00:de:ad"


def ip(*words, check=True):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)


def missing():
    """Why there can be no network namespace here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        name = f"pf-try-{os.getpid()}"
        r = ip("netns", "add", name, check=False)
        if r.returncode == 0:
            r = ip("link", "add", f"pft{os.getpid()}", "type", "veth", "peer", "name", "t0", "netns", name, check=False)
            ip("netns", "del", name)
    except OSError:
        return "there is no `ip` here: package iproute2"
    return r.stderr.strip() or None if r.returncode else None


class Network:
    """self.name: the namespace. Each cable is a pair of (device, address) here and there."""

    def __init__(self):
        self.name = f"payflow-{os.getpid()}"
        net = f"198.18.{random.randrange(256)}."
        ip("netns", "add", self.name)
        self.database = self._cable("db", net + "1", net + "2", 30)
        self.clients = self._cable("cl", net + "5", net + "6", 30)
        ip("-n", self.name, "link", "set", "lo", "up")

    def _cable(self, kind, here, there, bits):
        device, other = f"pf{kind}{os.getpid()}", f"{kind}0"
        ip("link", "add", device, "type", "veth", "peer", "name", other, "netns", self.name)
        for where, name, address in ((), device, here), (("-n", self.name), other, there):
            ip(*where, "address", "add", f"{address}/{bits}", "dev", name)
            ip(*where, "link", "set", name, "up")
        return (device, here), (other, there)

    @staticmethod
    def _hardware(*where):
        return ip(*where).stdout.split("link/ether ")[1].split()[0]

    def cut(self, to_database=False, from_database=False):
        (device, here), (other, there) = self.database
        if to_database:
            ip("-n", self.name, "neigh", "replace", here, "lladdr", NOWHERE, "nud", "permanent", "dev", other)
        if from_database:
            ip("neigh", "replace", there, "lladdr", NOWHERE, "nud", "permanent", "dev", device)

    def mend(self):
        (device, here), (other, there) = self.database
        ip("-n", self.name, "neigh", "replace", here, "lladdr", self._hardware("link", "show", device), "nud", "permanent", "dev", other)
        ip("neigh", "replace", there, "lladdr", self._hardware("-n", self.name, "link", "show", other), "nud", "permanent", "dev", device)

    def close(self):
        ip("netns", "del", self.name, check=False)


@pytest.fixture(scope="module")
def network():
    why = missing()
    if why:
        pytest.skip(why)
    n = Network()
    yield n
    n.close()


@pytest.fixture(scope="module")
def cluster(network):
    c = Cluster(network.database[0][1])
    yield c
    c.close()


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("cut", [{"to_database": True}, {"from_database": True}, {"to_database": True, "from_database": True}],
                         ids=["towards the database", "from the database", "both ways"])
def test_partition(network, cluster, fresh, cut, turn):
    del turn
    cluster.sql("DROP SCHEMA IF EXISTS public CASCADE")
    cluster.sql("CREATE SCHEMA public AUTHORIZATION payflow")
    near = fresh("near", env=cluster.env())
    far = fresh("far", env=cluster.env(DB_HOST=network.database[0][1], ALLOW_OPEN_BIND="true"), admin=False,
                host=network.clients[1][1], prefix=("ip", "netns", "exec", network.name))
    users = [new_user(near) for _ in range(2 * CLIENTS)]
    history = History()
    ports = [near.port, (far.host, far.port)]
    with Load(history, [(u.id, u.key) for u in users], ports, by_client=True) as load:
        nearby, away = load.clients[::2], load.clients[1::2]
        network.cut(**cut)
        try:
            time.sleep(1)
            since = time.monotonic()
            others = load.came_back(BACK_S, clients=nearby)  # what the cut one holds on to is taken from it
            time.sleep(max(0.0, since + 7 - time.monotonic()))
            silent = [c for c in away if c.wrote_at < since]
        finally:
            network.mend()
        took = load.came_back(BACK_S)
    print(f"{cut}: the others after {others:.1f} s, all after {took:.1f} s, slowest answer {max(c.slowest for c in load.clients):.1f} s")
    assert len(silent) == len(away), "the network was not cut"
    env = harness.environment(**cluster.env())
    past.check(harness.export(near.data, env), history)
    r = cli("verify", env=env)
    assert r.returncode == 0, r.stdout + r.stderr
    assert near.stop() == 0 and far.stop() == 0
