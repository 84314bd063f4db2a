"""Fixtures: each module (and each xdist worker) has its own servers on its own DATA_DIR."""
import os

import pytest

import harness


def pytest_sessionstart(session):
    if not os.access(harness.BIN, os.X_OK):
        pytest.exit(f"no binary at {harness.BIN}: build first, or set PAYFLOW_BIN", returncode=2)


def pytest_collection_modifyitems(items):
    """The longest first, so that two workers end together."""
    items.sort(key=lambda item: "test_crash" not in item.nodeid)


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
