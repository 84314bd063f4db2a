"""/openapi.json is a sound OpenAPI 3.1 document that has every route; /docs works with no network."""
import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import jsonschema
import pytest

from harness import ok

METHODS = {"get", "post", "put", "delete", "patch", "head", "options", "trace"}
CONTRACT = """
POST /api/users | POST /api/login | POST /api/users/api-key | GET /api/users | GET /api/users/{} | PUT /api/users
PUT /api/users/{} | DELETE /api/users | DELETE /api/users/{} | POST /api/balances/initialize | GET /api/balances
GET /api/balances/history | POST /api/balances/replay | POST /api/balances/rebuild | POST /api/transactions/deposit
POST /api/transactions/withdraw | POST /api/transactions/transfer | POST /api/transactions/batch
GET /api/transactions/{} | GET /api/transactions | GET /api/transactions/stats | GET /api/cache/stats
GET /api/cache/keys | POST /api/cache/warmup | POST /api/cache/invalidate | GET /health | GET /health/live
GET /health/ready | POST /api/v1/auth/register | POST /api/v1/auth/login | POST /api/v1/auth/refresh
POST /api/v1/auth/logout | GET /api/v1/users | GET /api/v1/users/{} | PUT /api/v1/users/{} | DELETE /api/v1/users/{}
GET /api/v1/balances/current | GET /api/v1/balances/historical | GET /api/v1/balances/at-time
POST /api/v1/transactions/credit | POST /api/v1/transactions/debit | POST /api/v1/transactions/transfer
POST /api/v1/transactions/{}/rollback | GET /api/v1/transactions/{} | GET /api/v1/transactions/history
POST /api/v1/scheduled-transactions | GET /api/v1/scheduled-transactions | GET /api/v1/scheduled-transactions/{}
DELETE /api/v1/scheduled-transactions/{} | GET /api/v1/ping | GET /api/v1/admin/audit | GET /api/v1/admin/journal
GET /api/v1/admin/reconciliation | GET /healthz | GET /metrics | GET /metrics/basic
POST /api/auth/register | POST /api/auth/login | POST /api/events | GET /api/events | GET /api/events/{}
POST /api/bookings | GET /api/bookings | GET /api/bookings/{} | DELETE /api/bookings/{}
"""
ROUTES = [tuple(r.split()) for r in re.split(r"[|\n]", CONTRACT) if r.strip()]
# The fixed frame of OpenAPI 3.1 that this document must have; schemas inside are checked as JSON Schema 2020-12.
FRAME = {
    "type": "object", "required": ["openapi", "info", "paths", "components"],
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
        "info": {"type": "object", "required": ["title", "version"],
                 "properties": {"title": {"type": "string", "minLength": 1},
                                "version": {"type": "string", "minLength": 1}}},
        "servers": {"type": "array", "items": {"type": "object", "required": ["url"]}},
        "paths": {"type": "object", "patternProperties": {"^/": {"$ref": "#/$defs/item"}},
                  "additionalProperties": False},
        "components": {"type": "object", "required": ["securitySchemes"]},
    },
    "$defs": {
        "item": {"type": "object", "patternProperties": {
            "^(get|put|post|delete|options|head|patch|trace)$": {"$ref": "#/$defs/operation"}}},
        "operation": {
            "type": "object", "required": ["operationId", "responses", "x-right"],
            "properties": {
                "operationId": {"type": "string", "pattern": "^[A-Za-z0-9_.-]+$"},
                "summary": {"type": "string", "minLength": 1},
                "tags": {"type": "array", "items": {"type": "string"}},
                "parameters": {"type": "array", "items": {"$ref": "#/$defs/parameter"}},
                "requestBody": {"type": "object"},
                "security": {"type": "array", "items": {"type": "object"}},
                "responses": {"type": "object", "minProperties": 1, "patternProperties": {
                    r"^([1-5]\d\d|[1-5]XX|default)$": {
                        "anyOf": [{"type": "object", "required": ["description"]},
                                  {"type": "object", "required": ["$ref"]}]}}, "additionalProperties": False},
            }},
        "parameter": {"anyOf": [
            {"type": "object", "required": ["$ref"]},
            {"type": "object", "required": ["name", "in", "schema"], "properties": {
                "in": {"enum": ["query", "path", "header", "cookie"]}, "required": {"type": "boolean"}}}]},
    },
}


@pytest.fixture(scope="module")
def doc(dev):
    r = dev.anon.get("/openapi.json")
    assert r.headers["content-type"].split(";")[0] in ("application/json", "application/vnd.oai.openapi+json")
    return ok(r)


def operations(doc):
    for path, item in doc["paths"].items():
        for method, op in item.items():
            if method in METHODS:
                yield method, path, op


def resolve(doc, ref):
    assert ref.startswith("#/"), f"reference that leaves the document: {ref}"
    node = doc
    for part in ref[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def walk(node):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def test_frame(doc):
    jsonschema.Draft202012Validator(FRAME).validate(doc)


def test_references_resolve(doc):
    for node in walk(doc):
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            resolve(doc, node["$ref"])


def test_schemas_are_schemas(doc):
    for schema in doc["components"].get("schemas", {}).values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for node in walk(doc["paths"]):
        if isinstance(node, dict) and isinstance(node.get("schema"), dict):
            jsonschema.Draft202012Validator.check_schema(node["schema"])


def test_operation_ids_are_unique(doc):
    ids = [op["operationId"] for _, _, op in operations(doc)]
    assert len(ids) == len(set(ids))


def test_path_parameters_are_declared(doc):
    for method, path, op in operations(doc):
        declared = {p["name"]: p for p in (resolve(doc, x["$ref"]) if "$ref" in x else x
                                           for x in op.get("parameters", []) + doc["paths"][path].get("parameters", []))
                    if p["in"] == "path"}
        assert set(declared) == set(re.findall(r"\{([^}.]+)(?:\.\.\.)?\}", path)), (method, path)
        assert all(p.get("required") is True for p in declared.values()), (method, path)


def test_security_is_declared(doc):
    schemes = doc["components"]["securitySchemes"]
    kinds = {(s["type"], s.get("scheme", s.get("name", "")).lower()) for s in schemes.values()}
    assert ("apiKey", "x-api-key") in kinds and ("http", "bearer") in kinds
    for method, path, op in operations(doc):
        security = op.get("security", doc.get("security", []))
        for requirement in security:
            assert set(requirement) <= set(schemes)
        if op["x-right"] != "public":
            assert any(requirement for requirement in security), f"{method} {path} shows no security"


def test_every_route_of_the_contract_is_in_it(doc):
    have = {(m.upper(), re.sub(r"\{[^}]+\}", "{}", p)) for m, p, _ in operations(doc)}
    assert set(ROUTES) - have == set()


def test_it_is_the_truth_about_methods(dev, doc):
    """Every method it lists is answered with something else than 404/405, every other one with 405."""
    for path, item in doc["paths"].items():
        target = re.sub(r"\{[^}]+\}", "1", path)
        listed = {m.upper() for m in item if m in METHODS}
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            r = dev.anon.request(method, target)
            if method in listed:
                assert r.status_code != 405, (method, path)
            elif not path.endswith("...}"):
                assert r.status_code == 405, (method, path, r.status_code)
                assert listed <= {m.strip() for m in r.headers["allow"].split(",")}


def test_moving_money_documents_the_key(doc):
    for method, path, op in operations(doc):
        if method == "post" and re.search(r"/transactions/(deposit|withdraw|transfer|batch|credit|debit)$", path):
            names = {(resolve(doc, p["$ref"]) if "$ref" in p else p)["name"].lower() for p in op.get("parameters", [])}
            assert "idempotency-key" in names, path
            assert "201" in op["responses"] and {"422", "4XX", "default"} & set(op["responses"]), path


class Assets(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.inline = [], 0

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag in ("script", "img", "iframe") and a.get("src"):
            self.found.append(a["src"])
        elif tag == "script":
            self.inline += 1
        if tag == "link" and a.get("href"):
            self.found.append(a["href"])


def test_docs_page_works_offline(dev):
    r = dev.anon.get("/docs", follow_redirects=True)
    assert r.status_code == 200 and r.headers["content-type"].startswith("text/html")
    page = Assets()
    page.feed(r.text)
    assert page.found, "no assets"
    base = str(r.url)
    kinds = set()
    for asset in page.found:
        assert not re.match(r"(?i)(https?:)?//", asset), f"{asset} is fetched from elsewhere"
        a = dev.anon.get(urljoin(base, asset))
        assert a.status_code == 200 and a.content, asset
        kinds.add(a.headers["content-type"].split(";")[0])
        if asset.endswith(".css"):
            assert not re.search(r"url\((['\"]?)https?:", a.text), f"{asset} loads from elsewhere"
    assert "text/css" in kinds and kinds & {"text/javascript", "application/javascript"}
    policy = r.headers["content-security-policy"]
    assert page.inline == 0 or "unsafe-inline" in policy or "sha256-" in policy or "nonce-" in policy, \
        "the page's own policy forbids its inline script"
    script = "".join(dev.anon.get(urljoin(base, x)).text for x in page.found if x.endswith(".js") and "bundle" not in x)
    assert "openapi.json" in r.text + script


def test_docs_assets_are_cached(dev):
    r = dev.anon.get("/docs", follow_redirects=True)
    page = Assets()
    page.feed(r.text)
    big = next(x for x in page.found if x.endswith(".js"))
    a = dev.anon.get(urljoin(str(r.url), big))
    if "etag" in a.headers:
        again = dev.anon.get(urljoin(str(r.url), big), headers={"If-None-Match": a.headers["etag"]})
        assert again.status_code == 304 and not again.content


@pytest.mark.parametrize("slug", ["insufficient-funds", "malformed-json", "validation-failed", "not-found",
                                  "rate-limited", "idempotency-key-reused", "last-admin", "unavailable"])
def test_each_problem_has_a_page(dev, slug):
    r = dev.anon.get("/problems/" + slug, follow_redirects=True)
    assert r.status_code == 200 and len(r.text) > 50
    assert dev.anon.get("/problems/no-such-problem").status_code == 404
