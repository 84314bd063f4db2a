"""Documents of events in MongoDB, end to end: a FerretDB of the test's own, which dies, hangs and comes back."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import harness
from harness import eventually, ok, page, problem
from test_ticketing import LATER, available, book, make_event, settled, verified

FERRETDB = os.environ.get("PAYFLOW_TEST_FERRETDB")
pytestmark = pytest.mark.skipif(not FERRETDB, reason="PAYFLOW_TEST_FERRETDB names no ferretdb (./dev interop builds one)")
WAIT_S = 3  # what a call costs while it does not answer


class Ferret:
    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="payflow-ferret-", dir="/tmp"))
        self.port = harness.free_port()
        self.url = f"mongodb://127.0.0.1:{self.port}/tickets"
        self.process = None

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(
                [FERRETDB, f"--listen-addr=127.0.0.1:{self.port}", "--handler=sqlite", f"--sqlite-url=file:{self.dir}/",
                 "--telemetry=disable", "--debug-addr=-", "--log-level=error", f"--state-dir={self.dir}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self.listens)
        return self

    def listens(self):
        assert self.process.poll() is None, (self.dir / "log").read_text()
        try:
            harness.socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill9()
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture
def ferret():
    f = Ferret()
    yield f
    f.close()


def documents(server):
    return ok(server.anon.get("/health"))["services"]["documents"]


def test_events_live_there(tmp_path, ferret):
    ferret.start()
    s = harness.start_server(tmp_path / "data", env={"MONGO_URL": ferret.url})
    assert documents(s)["engine"] == "mongodb" and documents(s)["status"] == "UP"
    text = ('{"title":"Şölen","location":"İzmir","date":"2099-01-02T03:04:05Z","total_tickets":7,"category":"rock","hall":3,'
            '"exact":0.30000000000000000000000000000000000001,"big":12345678901234567890,"nested":{"$set":[true,null,{"a.b":"}"}]},'
            '"_id":"mine","$where":"1","emoji":"\\ud83c\\udfab"}')
    made = s.anon.post("/api/events", content=text.encode(), headers={"Content-Type": "application/json"})
    event = ok(made, 201)
    for body in (made.text, s.anon.get("/api/events/" + event["id"]).text):
        for kept in ('"exact":0.30000000000000000000000000000000000001,', '"big":12345678901234567890,',
                     '"nested":{"$set":[true,null,{"a.b":"}"}]}', '"_id":"mine"', '"$where":"1"', '"category":"rock"', '"hall":3'):
            assert kept in body, (kept, body)
        assert json.loads(body)["emoji"] == "🎫"
    others = [make_event(s.anon, 10, category=c, hall=h, date=d)
              for c, h, d in (("rock", 1, "2098-01-01T00:00:00Z"), ("jazz", 3, LATER), ("rock", 3, LATER))]

    def listed(query):
        return [e["id"] for e in page(s.anon.get("/api/events?" + query))["data"]]
    ids = [e["id"] for e in (*reversed(others), event)]
    assert listed("") == ids
    assert listed("category=rock&hall=3") == [ids[0], event["id"]]
    assert listed("q=%C5%9F%C3%B6len") == [event["id"]] and listed("q=evening&category=jazz") == [ids[1]]
    assert listed("to=2098-06-01T00:00:00Z") == [ids[2]]
    assert listed("page=2&limit=3") == [event["id"]]
    assert settled(s.anon, book(s.anon, event, "guest", 3))["status"] == "CONFIRMED" and available(s.anon, event) == 4
    assert s.stop() == 0
    ferret.kill9()
    refused = harness.cli("serve", "--data", s.data, "--port", harness.free_port(), env=harness.environment(MONGO_URL=ferret.url))
    assert refused.returncode == 1 and len(re.findall(r"^payflow: MongoDB: .+$", refused.stderr, re.M)) == 1, refused.stderr
    ferret.start()
    s.start()
    assert listed("") == ids and available(s.anon, event) == 4, "it keeps them"
    assert s.stop() == 0
    verified(s.data)


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_without_it_only_events_wait(tmp_path, ferret, how):
    ferret.start()
    s = harness.start_server(tmp_path / "data", env={"MONGO_URL": ferret.url})
    event = make_event(s.anon, 100)
    path = "/api/events/" + event["id"]
    buyer = book(s.anon, event, "before", 2)
    if how == "dies":
        ferret.kill9()
    else:
        ferret.process.send_signal(signal.SIGSTOP)

    def looked():
        begin = time.monotonic()
        problem(s.anon.get(path), 503, "unavailable")
        return time.monotonic() - begin
    costs = [looked() for _ in range(8)]
    assert max(costs) < WAIT_S + 2, costs
    assert max(costs[-3:]) < 2, "soon answered at once"
    problem(s.anon.post("/api/events", json={"title": "t", "location": "l", "date": LATER, "total_tickets": 5}), 503)
    problem(s.anon.get("/api/events"), 503)
    eventually(lambda: documents(s)["status"] == "DOWN" and ok(s.anon.get("/health"))["status"] == "DEGRADED")
    assert s.anon.get("/health/ready").status_code == 200
    # the stock is in the store: tickets go on selling, and are paid
    late = book(s.anon, event, "meanwhile", 3)
    for b in (buyer, late):
        assert settled(s.anon, b)["status"] == "CONFIRMED"
    if how == "dies":
        ferret.start()
    else:
        ferret.process.send_signal(signal.SIGCONT)
    eventually(lambda: s.anon.get(path).status_code == 200)
    assert available(s.anon, event) == 95
    eventually(lambda: ok(s.anon.get("/health"))["status"] == "UP")
    assert s.stop() == 0
    verified(s.data)
