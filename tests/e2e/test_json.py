"""Bodies: what is JSON, what is not, and what is JSON of the wrong shape."""
import json

import pytest

from harness import new_user, ok, problem, unique

JSON = {"Content-Type": "application/json"}
DEPOSIT = "/api/transactions/deposit"


@pytest.fixture(scope="module")
def post(dev):
    u = new_user(dev)

    def send(body, headers=JSON, path=DEPOSIT):
        if isinstance(body, str):
            body = body.encode()
        return u.api.post(path, content=body.replace(b"ID", str(u.id).encode()), headers=headers)
    send.user = u
    return send


@pytest.mark.parametrize("body", [
    b'{"user_id":ID,"user_id":ID,"amount":1}', b'{"user_id":ID,"amount":1,"amount":2}',
    b'{"user_id":ID,"amount":1,"x":{"a":1,"a":2}}', b'{"user_id":ID,"amount":1,"unknown":1,"unknown":1}',
    b'{"user_id":ID,"amount":1,"\\u0061mount":2}', b'{"user_id":ID,"amount":1,"x":[{"b":0,"b":0}]}',
    b'{"user_id":ID,"amount":1,"":1,"":2}',
])
def test_duplicate_keys(post, body):
    problem(post(body), 400, "malformed-json")


@pytest.mark.parametrize("body", [
    b'{"user_id":ID,"amount":1}x', b'{"user_id":ID,"amount":1}{}', b'{"user_id":ID,"amount":1}]',
    b'{"user_id":ID,"amount":1},', b'{"user_id":ID,"amount":1}\x00', b'{"user_id":ID,"amount":1} //',
    b'{"user_id":ID,"amount":1}\n1', b'{"user_id":ID,"amount":1}/**/',
])
def test_trailing_bytes(post, body):
    problem(post(body), 400, "malformed-json")


@pytest.mark.parametrize("body", [b' \t\r\n{"user_id":ID,"amount":1}\r\n\t ', b'{"user_id":ID,"amount":1}\n'])
def test_white_space_around_is_fine(post, body):
    ok(post(body), 201)


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_depth(post, opening, closing):
    def nested(levels):
        inner = levels - 1
        value = opening * inner + ("1" if opening != "[" else "") + closing * inner
        return f'{{"user_id":ID,"amount":1,"x":{value}}}'
    ok(post(nested(32)), 201)
    problem(post(nested(33)), 400, "malformed-json")
    problem(post(nested(100_000)), 400, "malformed-json")
    problem(post(opening * 200_000), 400, "malformed-json")


@pytest.mark.parametrize("text", [
    b"\xff", b"\xc3", b"\xc3(", b"\xc0\xaf", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\x80", b"caf\xe9",
])
def test_bad_utf8(post, text):
    body = b'{"user_id":ID,"amount":1,"description":"' + text + b'"}'
    problem(post(body), 400)
    problem(post(b'{"user_id":ID,"amount":1,"' + text + b'":1}'), 400)
    problem(post(b'{"user_id":ID,"amount":1}' + text), 400)


@pytest.mark.parametrize("body", [
    b"\x00", b'{"user_id":ID,\x00"amount":1}', b'{"user_id":ID,"amount":1,"description":"a\x00b"}',
    b'{"user_id":ID,"amount":1,"description":"a\nb"}', b'{"user_id":ID,"amount":1,"description":"\x1f"}',
])
def test_raw_control_bytes(post, body):
    problem(post(body), 400, "malformed-json")


def test_escaped_nul(dev, post):
    assert post(b'{"user_id":ID,"amount":1,"description":"a\\u0000b"}').status_code in (400, 422)
    n = unique()
    for field in ("username", "email", "password"):
        body = {"username": n, "email": n + "@example.com", "password": "password1"}
        body[field] = body[field][:3] + "\0" + body[field][3:]
        assert dev.anon.post("/api/users", json=body).status_code in (400, 422), field


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00", b"\\ud800x", b"\\ud800\\ud800"])
def test_lone_surrogates(post, escape):
    assert post(b'{"user_id":ID,"amount":1,"description":"' + escape + b'"}').status_code in (400, 422)


@pytest.mark.parametrize("escape, text", [(b"\\ud83d\\udcb8", "💸"), (b"\\u00e7", "ç"), (b"\\/\\\"\\\\\\n", '/"\\\n')])
def test_escapes(post, escape, text):
    assert ok(post(b'{"user_id":ID,"amount":1,"description":"' + escape + b'"}'), 201)["description"] == text


@pytest.mark.parametrize("body", [
    b" ", b"{", b"}", b'{"user_id"', b'{"user_id":ID,"amount":}', b'{"user_id":ID "amount":1}',
    b"{'user_id':ID,'amount':1}", b'{user_id:ID,amount:1}', b'{"user_id":ID,"amount":1,}', b"not json", b"tru", b"nul",
    b'{"user_id":ID,"amount":1,"d":"\\x"}', b'{"user_id":ID,"amount":1,"d":"\\u12"}', b'"abc', b"[1,]", b"[1 2]",
    b'{"user_id":ID,,"amount":1}', b'{1:2}', b'{"a"}', b'\xef\xbb\xbf{"user_id":ID,"amount":1}',
    '{"user_id":ID,"amount":1}'.encode("utf-16"), b"<xml/>", b"user_id=1&amount=1", b'{"user_id":ID,"amount":1//}',
    b'{/**/"user_id":ID,"amount":1}',
])
def test_not_json(post, body):
    problem(post(body), 400, "malformed-json")


def test_no_body_at_all(post):
    assert post(b"").status_code in (400, 422)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true", b'[{"user_id":ID,"amount":1}]', b"{}"])
def test_json_but_not_an_object_of_fields(post, body):
    problem(post(body), 422)


@pytest.mark.parametrize("field, value", [
    ("user_id", [1]), ("user_id", {}), ("user_id", None), ("user_id", True), ("user_id", 1.5), ("user_id", "x"),
    ("user_id", ""), ("user_id", -1), ("user_id", 0), ("user_id", 2 ** 63), ("user_id", 10 ** 40),
    ("description", 1), ("description", {}), ("description", False), ("currency", 1), ("currency", ["USD"]),
])
def test_wrong_types(post, field, value):
    body = {"user_id": post.user.id, "amount": 1, field: value}
    r = post(json.dumps(body))
    if field == "user_id" and isinstance(value, (int, str)) and not isinstance(value, bool):
        assert r.status_code in (403, 404, 422), r.text
    else:
        problem(r, 422, loc=field)


def test_unknown_fields_are_ignored(post):
    ok(post(b'{"user_id":ID,"amount":1,"zzz":{"amount":5},"balance":7,"id":99,"type":"withdraw","status":[]}'), 201)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON",
                                  "application/json;charset=UTF-8"])
def test_content_types_taken(post, kind):
    ok(post(b'{"user_id":ID,"amount":1}', {"Content-Type": kind}), 201)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/xml", "json",
                                  "text/json", "application/jsonx", "multipart/form-data; boundary=x", "", "*/*"])
def test_content_types_refused(post, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    problem(post(b'{"user_id":ID,"amount":1}', headers), 415, "unsupported-media-type")


def test_a_compressed_body_is_not_taken_for_json(post):
    import gzip
    r = post(gzip.compress(b'{"user_id":1,"amount":1}'), {**JSON, "Content-Encoding": "gzip"})
    assert r.status_code in (400, 415)


def test_two_mebibytes(post):
    pad = "x" * (2 << 20)
    problem(post(f'{{"user_id":ID,"amount":1,"x":"{pad}"}}'), 413, "body-too-large")
    problem(post(" " * (2 << 20)), 413, "body-too-large")
    ok(post(b'{"user_id":ID,"amount":1}'), 201)


def test_one_mebibyte_is_the_bound(post):
    frame = f'{{"user_id":{post.user.id},"amount":1,"x":""}}'
    ok(post(frame[:-2] + "y" * ((1 << 20) - len(frame)) + frame[-2:]), 201)
    problem(post(frame[:-2] + "y" * ((1 << 20) - len(frame) + 1) + frame[-2:]), 413, "body-too-large")


def test_a_batch_may_have_sixteen(dev):
    u, v = new_user(dev, fund="1"), new_user(dev)
    def body(size):
        frame = json.dumps({"transactions": [{"sender_id": u.id, "receiver_id": v.id, "amount": "0.01"}], "pad": ""})
        return (frame[:-2] + "y" * (size - len(frame)) + frame[-2:]).encode()
    ok(u.api.post("/api/transactions/batch", content=body(2 << 20), headers=JSON), 201)
    ok(u.api.post("/api/transactions/batch", content=body(16 << 20), headers=JSON), 201)
    problem(u.api.post("/api/transactions/batch", content=body((16 << 20) + 1), headers=JSON), 413, "body-too-large")


def test_many_keys(post):
    many = ",".join(f'"k{i}":{i}' for i in range(20_000))
    ok(post(f'{{"user_id":ID,"amount":1,{many}}}'), 201)
    problem(post(f'{{"user_id":ID,"amount":1,{many},"k777":0}}'), 400, "malformed-json")
