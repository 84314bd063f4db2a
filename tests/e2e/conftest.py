"""Fixtures: each module (and each xdist worker) has its own servers on its own DATA_DIR."""
import os
import signal

import pytest

import backends
import harness
from postgres import Cluster
from rabbit import Rabbit


def pytest_sessionstart(session):
    if not os.access(harness.BIN, os.X_OK):
        pytest.exit(f"no binary at {harness.BIN}: build first, or set PAYFLOW_BIN", returncode=2)


def pytest_collection_modifyitems(items):
    """The longest files first, so that the workers end together; within a file as it is written."""
    longest = "test_promotion.py", "test_faults.py", "test_crash.py"
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for server in harness.LIVE:
            report.sections.append((f"log of {server.base} ({server.log_path})", server.log_tail(25)))


def module_server(tmp_path_factory, name, **kw):
    server = harness.start_server(tmp_path_factory.mktemp(name) / "data", **kw)
    yield server
    code = server.stop()
    assert code == 0, f"SIGTERM ended serve with {code}:\n{server.log_tail()}"


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """A server in dev mode with an admin."""
    yield from module_server(tmp_path_factory, "dev")


@pytest.fixture(scope="module")
def prod(tmp_path_factory):
    """A server with ENV=prod and an admin."""
    yield from module_server(tmp_path_factory, "prod", env={"ENV": "prod"})


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL of its own, with an empty database."""
    c = Cluster()
    yield c
    c.close()


@pytest.fixture(scope="module")
def rabbit():
    """A RabbitMQ of its own."""
    r = Rabbit()
    yield r
    r.close()


@pytest.fixture
def fresh(tmp_path):
    """Makes servers for one test; whatever still runs at its end is killed."""
    made = []

    def make(name="data", start=True, admin=True, **kw):
        server = harness.Server(tmp_path / name, **kw)
        made.append(server)
        if start:
            server.start()
            if admin:
                server.admin = harness.new_user(server, role="admin", name="root")
        return server

    yield make
    for server in made:
        server.kill9()
        if server in harness.LIVE:
            harness.LIVE.remove(server)


@pytest.fixture
def user(dev):
    """A fresh user with 1000.00 USD."""
    return harness.new_user(dev, fund="1000.00")


@pytest.fixture
def other(dev):
    """A second fresh user, without money."""
    return harness.new_user(dev)


@pytest.fixture
def admin(dev):
    return dev.admin


@pytest.fixture
def make_gateway(tmp_path):
    """Makes gateways for one test, and scripted backends (make_gateway.backend); all end with it."""
    made = []

    def backend_of(act=backends.echo, **kw):
        b = backends.Backend(act, **kw)
        made.append(b)
        return b

    def gateway_of(config, name="gw", **kw):
        g = backends.Gateway(tmp_path / name, config, **kw)
        made.append(g)
        return g.start()
    gateway_of.backend = backend_of
    yield gateway_of
    for m in made:
        if isinstance(m, backends.Backend):
            m.close()
    for m in made:
        if isinstance(m, backends.Gateway):
            ended = m.process.poll()
            m.process.send_signal(signal.SIGINT)  # as SIGTERM, without its grace
            code = m.process.wait(40)
            if m in harness.LIVE:
                harness.LIVE.remove(m)
            assert code == 0 or ended is not None, f"ended with {code}:\n{m.log_tail()}"
