"""src/rpc as Debian's python3-grpcio sees it: a client that shares no line with ours."""
import subprocess
import threading
import time

import grpc
import pytest
from google.protobuf import descriptor_pb2

from kit import MESSAGES, Ask, Told, eventually, method, serving

SAY, LATER, FAIL = "/echo.v1.Echo/Say", "/echo.v1.Echo/Later", "/echo.v1.Echo/Fail"
HEALTH = MESSAGES["grpc.health.v1.HealthCheckRequest"], MESSAGES["grpc.health.v1.HealthCheckResponse"]
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@pytest.fixture(scope="module")
def server():
    with serving(threads=2) as s:
        yield s


@pytest.fixture
def channel(server):
    with server.channel() as c:
        yield c


def refused(code, path, channel, request=None, **kw):
    with pytest.raises(grpc.RpcError) as e:
        method(channel, path)(Ask() if request is None else request, **{"timeout": 20, **kw})
    assert e.value.code() == code, (e.value.code(), e.value.details())
    return e.value


def test_unary_with_metadata_and_trailers(channel):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer, call = method(channel, SAY).with_call(
        Ask(text="grüße", blob=bytes(range(256))), timeout=20,
        metadata=[("x-echo", "there and back"), ("x-request-id", "my-id.7"), ("traceparent", trace),
                  ("authorization", "Bearer x"), ("data-bin", b"\x00\xff")])
    assert (answer.text, answer.blob) == ("grüße", bytes(range(256)))
    assert answer.request_id == "my-id.7" and answer.traceparent == trace
    assert answer.peer == "127.0.0.1" and answer.authority.startswith("127.0.0.1:")
    assert 15000 < answer.left_ms <= 21000  # grpc-timeout is rounded up
    assert ("x-request-id", "my-id.7") in call.initial_metadata()
    assert dict(call.trailing_metadata()) == {"x-echo": "there and back", "x-authorized": "yes"}


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "ü".encode().hex() + "/"])
def test_a_request_id_that_is_none_is_replaced(channel, sent):
    answer = method(channel, SAY)(Ask(), metadata=[("x-request-id", sent)], timeout=20)
    assert len(answer.request_id) == 32 and int(answer.request_id, 16) >= 0


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c != grpc.StatusCode.OK])
def test_every_status(channel, code):
    e = refused(code, FAIL, channel, Ask(code=code.value[0], text="100 %: grüße\n\t\x7f"))
    assert e.details() == "100 %: grüße\n\t\x7f"
    # what is no trailer (CR LF, upper case, gRPC's own) was left out
    assert [p for p in e.trailing_metadata() if p[0] != "x-request-id"] == [("x-why", "asked for")]


def test_unknown_methods(channel):
    for path in "/echo.v1.Echo/Nope", "/echo.v1.Nope/Say", "/", "/x", "/echo.v1.Echo/Say/", "/" + "x" * 5000:
        e = refused(grpc.StatusCode.UNIMPLEMENTED, path, channel)
        assert len(e.details()) < 200
    refused(grpc.StatusCode.INTERNAL, "/echo.v1.Echo/Mute", channel)


def test_messages_that_are_none(channel):
    refused(grpc.StatusCode.INTERNAL, SAY, channel, b"\x0a\x05hi")
    refused(grpc.StatusCode.INTERNAL, SAY, channel, b"\xff" * 40)
    refused(grpc.StatusCode.INVALID_ARGUMENT, SAY, channel, b"\x0a\x03a\x00b")
    refused(grpc.StatusCode.INVALID_ARGUMENT, SAY, channel, b"\x0a\x02\xc3\x28")
    refused(grpc.StatusCode.INTERNAL, SAY, channel, nested(40))
    assert method(channel, SAY)(nested(20), timeout=20).text == ""
    assert method(channel, SAY)(b"\xfa\x3f\x03\xff\xff\xff\x0a\x02hi", timeout=20).text == "hi"  # unknown field
    assert method(channel, SAY)(b"", timeout=20).text == ""


def nested(depth):
    """So many messages inside each other."""
    data = b""
    for _ in range(depth):
        n, size = len(data), b""
        while n > 127:
            size, n = size + bytes([n & 127 | 128]), n >> 7
        data = b"\x32" + size + bytes([n]) + data
    return data


def test_sizes(server):
    with server.channel(("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)) as c:
        blob = b"x" * (4 * 1024 * 1024 - 100)
        assert method(c, SAY)(Ask(blob=blob), timeout=30).blob == blob
        refused(grpc.StatusCode.RESOURCE_EXHAUSTED, SAY, c, Ask(blob=blob + b"x" * 200), timeout=30)
        refused(grpc.StatusCode.RESOURCE_EXHAUSTED, SAY, c, Ask(answer_bytes=5_000_000), timeout=30)
        assert len(method(c, SAY)(Ask(answer_bytes=4_000_000), timeout=30).blob) == 4_000_000
        refused(grpc.StatusCode.RESOURCE_EXHAUSTED, SAY, c, metadata=[("x-big", "y" * 17000)])
        refused(grpc.StatusCode.RESOURCE_EXHAUSTED, SAY, c, metadata=[(f"x-{i}", "y") for i in range(80)])
        assert method(c, SAY)(Ask(text="fine"), timeout=20).text == "fine"


def test_compression_is_refused_and_said_so(server):
    with server.channel() as c:
        call = c.unary_unary(SAY, Ask.SerializeToString, Told.FromString)
        with pytest.raises(grpc.RpcError) as e:
            call(Ask(text="x" * 5000), compression=grpc.Compression.Gzip, timeout=20)
        assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_deadline_reaches_the_handler(server, channel):
    before = method(channel, SAY)(Ask(), timeout=20).cancelled
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, LATER, channel, Ask(delay_ms=20000), timeout=0.3)
    eventually(lambda: method(channel, SAY)(Ask(), timeout=20).cancelled == before + 1)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, LATER, channel, Ask(delay_ms=20000), timeout=0)


def test_cancellation_reaches_the_handler(server, channel):
    before = method(channel, SAY)(Ask(), timeout=20).cancelled
    future = method(channel, LATER).future(Ask(delay_ms=20000), timeout=30)
    eventually(lambda: server.counters()["payflow_grpc_in_flight"] >= 2)
    future.cancel()
    eventually(lambda: method(channel, SAY)(Ask(), timeout=20).cancelled == before + 1)


def test_calls_without_a_deadline_get_one():
    with serving(deadline_max_ms=300) as s, s.channel() as c:
        refused(grpc.StatusCode.DEADLINE_EXCEEDED, LATER, c, Ask(delay_ms=20000), timeout=None)
        refused(grpc.StatusCode.DEADLINE_EXCEEDED, LATER, c, Ask(delay_ms=20000), timeout=50)
        eventually(lambda: method(c, SAY)(Ask()).cancelled == 2)  # long before their 20 s


def test_many_at_once(server):
    with server.channel() as c:
        futures = [method(c, LATER if i % 2 else SAY).future(Ask(text=str(i), delay_ms=i % 5), timeout=60)
                   for i in range(1000)]
        assert [f.result().text for f in futures] == [str(i) for i in range(1000)]


def test_unary_methods_take_one_message(channel):
    call = channel.stream_unary(SAY, Ask.SerializeToString, Told.FromString)
    for messages in [], [Ask(), Ask()], [Ask(), Ask(), Ask()]:
        with pytest.raises(grpc.RpcError) as e:
            call(iter(messages), timeout=20)
        assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert call(iter([Ask(text="one")]), timeout=20).text == "one"


# ---- health


def health(channel, service, **kw):
    return method(channel, "/grpc.health.v1.Health/Check", *HEALTH)(HEALTH[0](service=service), timeout=20, **kw).status


def test_health_check(channel):
    assert [health(channel, s) for s in ("", "echo.v1.Echo", "grpc.health.v1.Health")] == [SERVING] * 3
    with pytest.raises(grpc.RpcError) as e:
        health(channel, "no.such.Service")
    assert e.value.code() == grpc.StatusCode.NOT_FOUND
    setter = method(channel, "/echo.v1.Echo/Health")
    setter(Ask(text="echo.v1.Echo", code=0), timeout=20)
    assert (health(channel, "echo.v1.Echo"), health(channel, "")) == (NOT_SERVING, SERVING)
    setter(Ask(text="echo.v1.Echo", code=1), timeout=20)
    assert health(channel, "echo.v1.Echo") == SERVING


def test_health_watch_tells_changes(server, channel):
    watch = method(channel, "/grpc.health.v1.Health/Watch", *HEALTH, kind="unary_stream")
    seen, unknown = watch(HEALTH[0](service="echo.v1.Echo"), timeout=30), watch(HEALTH[0](service="nope"), timeout=30)
    setter = method(channel, "/echo.v1.Echo/Health")
    assert next(seen).status == SERVING and next(unknown).status == SERVICE_UNKNOWN
    for code, status in (0, NOT_SERVING), (1, SERVING), (0, NOT_SERVING), (1, SERVING):
        setter(Ask(text="echo.v1.Echo", code=code), timeout=20)
        assert next(seen).status == status
    seen.cancel()
    unknown.cancel()
    eventually(lambda: server.counters()["payflow_grpc_in_flight"] == 1)


def test_health_watch_outlives_the_default_deadline():
    with serving(deadline_max_ms=200, write_ms=200) as s, s.channel() as c:
        watch = method(c, "/grpc.health.v1.Health/Watch", *HEALTH, kind="unary_stream")
        endless, ended = watch(HEALTH[0]()), watch(HEALTH[0](), timeout=0.5)
        assert next(endless).status == SERVING and next(ended).status == SERVING
        with pytest.raises(grpc.RpcError) as e:
            next(ended)
        assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        method(c, "/echo.v1.Echo/Health")(Ask(text="", code=0), timeout=20)
        assert next(endless).status == NOT_SERVING
        endless.cancel()


# ---- reflection


def reflect(channel, version, *requests):
    package = f"grpc.reflection.{version}"
    ask, told = (MESSAGES[f"{package}.ServerReflection{x}"] for x in ("Request", "Response"))
    call = method(channel, f"/{package}.ServerReflection/ServerReflectionInfo", ask, told, "stream_stream")
    return list(call(iter(ask(**r) for r in requests), timeout=20))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(channel, version):
    listed, by_name, by_symbol, by_method, missing, odd = reflect(
        channel, version, {"list_services": ""}, {"file_by_filename": "echo.proto"},
        {"file_containing_symbol": "echo.v1.Echo"}, {"file_containing_symbol": "echo.v1.Echo.Say"},
        {"file_containing_symbol": "echo.v1.Nope"}, {"host": "h"})
    names = {s.name for s in listed.list_services_response.service}
    assert names == {"echo.v1.Echo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                     "grpc.reflection.v1alpha.ServerReflection"}
    for answer in by_name, by_symbol, by_method:
        data, = answer.file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        assert file.name == "echo.proto" and file.package == "echo.v1"
        assert [m.name for m in file.service[0].method][:2] == ["Say", "Later"]
    assert missing.error_response.error_code == 5 and missing.original_request.file_containing_symbol == "echo.v1.Nope"
    assert odd.error_response.error_code == 3 and odd.valid_host == "h"


def test_reflection_finds_every_symbol_of_every_file(channel):
    for name in ("echo.proto", "booking/v1/booking.proto", "grpc/health/v1/health.proto",
                 "grpc/reflection/v1alpha/reflection.proto"):
        answer, = reflect(channel, "v1", {"file_by_filename": name})
        file = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        symbols = [f"{file.package}.{m.name}" for m in [*file.message_type, *file.enum_type, *file.service]]
        symbols += [f"{file.package}.{m.name}.{f.name}" for m in file.message_type for f in m.field]
        for symbol, a in zip(symbols, reflect(channel, "v1", *({"file_containing_symbol": s} for s in symbols))):
            assert name.encode() in a.file_descriptor_response.file_descriptor_proto[0], symbol


# ---- TLS, keep-alive, age, going down


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    d = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", d / "key.pem", "-out", d / "cert.pem"], check=True, capture_output=True)
    return d / "cert.pem", d / "key.pem"


def test_tls(certificate):
    cert, key = certificate
    with serving(tls_cert=cert, tls_key=key) as s:
        trusted = grpc.ssl_channel_credentials(cert.read_bytes())
        with grpc.secure_channel(f"localhost:{s.port}", trusted) as c:
            blob = b"t" * 1_000_000
            assert method(c, SAY)(Ask(blob=blob), timeout=20).blob == blob
            futures = [method(c, LATER).future(Ask(text=str(i)), timeout=60) for i in range(200)]
            assert [f.result().text for f in futures] == [str(i) for i in range(200)]
        with grpc.secure_channel(f"localhost:{s.port}", grpc.ssl_channel_credentials()) as c:
            refused(grpc.StatusCode.UNAVAILABLE, SAY, c, timeout=5)
        with s.channel() as plain:
            refused(grpc.StatusCode.UNAVAILABLE, SAY, plain, timeout=5)
        for options in ["-alpn", "http/1.1"], [], ["-alpn", "h2", "-tls1_1"]:
            done = subprocess.run(["openssl", "s_client", "-connect", s.target, "-quiet", *options], input=b"GET /\r\n\r\n",
                                  capture_output=True, timeout=20, check=False)
            assert done.stdout == b"", options
        with grpc.secure_channel(f"localhost:{s.port}", trusted) as c:
            assert method(c, SAY)(Ask(text="on"), timeout=20).text == "on"


def test_connections_of_age_go_without_a_failed_call():
    with serving(age_s=1, threads=1) as s, s.channel() as c:
        stop, faults = threading.Event(), []

        def work():
            while not stop.is_set():
                try:
                    assert method(c, LATER)(Ask(text="a", delay_ms=2), timeout=20).text == "a"
                except grpc.RpcError as e:
                    faults.append(e)
        workers = [threading.Thread(target=work) for _ in range(4)]
        for w in workers:
            w.start()
        try:
            eventually(lambda: s.counters()['payflow_grpc_goaways_total{reason="age"}'] >= 2)
        finally:
            stop.set()
            for w in workers:
                w.join()
        assert not faults, faults[0]


def test_idle_connections_are_told_to_go():
    with serving(idle_s=1) as s, s.channel() as c:
        assert method(c, SAY)(Ask(text="a"), timeout=20).text == "a"
        with s.channel() as other:
            method(other, SAY)(Ask(), timeout=20)
            eventually(lambda: s.counters()["payflow_grpc_connections"] == 1)  # that of counters() itself
        assert method(c, SAY)(Ask(text="again"), timeout=20).text == "again"


def test_going_down_answers_what_has_begun():
    with serving() as s, s.channel() as c:
        watch = method(c, "/grpc.health.v1.Health/Watch", *HEALTH, kind="unary_stream")(HEALTH[0]())
        assert next(watch).status == SERVING
        futures = [method(c, LATER).future(Ask(text=str(i), delay_ms=700), timeout=30) for i in range(50)]
        eventually(lambda: s.counters()["payflow_grpc_in_flight"] >= 50)
        s.process.terminate()
        began = time.monotonic()
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)  # ended by the server, which would wait for it otherwise
        assert [f.result().text for f in futures] == [str(i) for i in range(50)]
        assert s.process.wait(20) == 0
        assert time.monotonic() - began < 4.5  # of the five seconds that it would have waited
        refused(grpc.StatusCode.UNAVAILABLE, SAY, c, timeout=3)
