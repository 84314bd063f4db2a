#!/usr/bin/env python3
"""No SQL is built from input: every statement that the store runs is text of the program. Speaks TAP.

    sql.py REPOSITORY

The statement given to each function that takes one must be made of literals, macros and names of constant texts; nothing
that formats or joins text may have SQL in it; and only the engines speak to a database. Before that it checks snippets
with one known fault each and fails unless exactly that fault is found, and plants one in each file of each engine.
"""

import re
import sys
from pathlib import Path

ENGINES = ("sqlite", "postgres")
# which argument is the statement
TAKES = {"pg_q_begin": -1, "pg_read_begin": -1, "pg_q_on": -1, "pg_exec": -1, "pg_script": -1, "sqlite_q_begin": -1,
         "pg_copy_begin": -1,
         "sqlite_exec": -1, "sqlite3_exec": 1, "sqlite3_prepare_v3": 1, "sqlite3_prepare_v2": 1, "PQexec": 1,
         "PQexecParams": 1, "PQprepare": 2, "PQsendQuery": 1, "PQsendQueryParams": 1, "PQsendPrepare": 2}
STRING = r'"(?:[^"\\]|\\.)*"'
QUOTED = re.compile(STRING + r"|'(?:[^'\\]|\\.)+'")
COMMENT = re.compile(r"/\*.*?\*/", re.S)
FORMATS = re.compile(r"\b(?:v?snprintf|v?asprintf|sprintf|buf_\w+|str\w*cat|stp?n?cpy|str\w*cpy|memcpy|"
                     r"sqlite3_\w*mprintf|sqlite3_str_\w+)"
                     r"\s*\(")
SQL = re.compile(r"\b(?:SELECT|INSERT INTO|DELETE FROM|UPDATE \w+ SET|CREATE (?:TABLE|SCHEMA|INDEX)|DROP (?:TABLE|SCHEMA)|"
                 r"ALTER TABLE|TRUNCATE|WHERE|ORDER BY|LOCK TABLE|SAVEPOINT|NOTIFY|LISTEN|UNION|VALUES|SET LOCAL|PRAGMA|"
                 r"COPY \w+ (?:FROM|TO|\())\b|"
                 r"(?i:\b(?:select\s.*\sfrom|insert\s+into|delete\s+from|update\s+\w+\s+set|drop\s+table|union\s+select|"
                 r"\w+\s*=\s*'%)\b)")
# names that hold texts of the program where a function is handed them: parameters, and migrations' texts
CONSTANT = re.compile(r"\bconst\s+char\s*(?:\*\s*const\s*)?(\w+)\s*\[|,\s*(\w+)\[\]\s*=")
HANDED = {"sql", "text", "up", "down", "lock", "any"}
DATABASE = re.compile(r"\b(?:PQ[a-z]\w+|sqlite3_(?!libversion)\w+)\s*\(")


def arguments(text, at):
    """The arguments of the call whose parenthesis opens at text[at]."""
    out, depth, begin, i = [], 0, at + 1, at
    while i < len(text):
        c = text[i]
        literal = QUOTED.match(text, i)
        if literal:
            i = literal.end()
            continue
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                return out + [text[begin:i]]
        elif c == "," and depth == 1:
            out.append(text[begin:i])
            begin = i + 1
        i += 1
    return out


def strange(expr, constants):
    """Names in an expression that are not texts of the program, and "()" for a call."""
    expr = re.sub(STRING, " ", expr)
    expr = re.sub(r"[^?:]*\?", " ", expr)  # what a choice depends on
    expr = re.sub(r"\w+(?:->|\.)", " ", re.sub(r"\[[^\]]*\]", " ", expr))
    expr = re.sub(r"\b([A-Z][A-Z0-9_]+)\s*\(", r"\1 ", expr)  # a macro: what it is given counts
    known = constants | HANDED
    return [n for n in re.findall(r"\w+", expr) if not (re.fullmatch(r"[A-Z][A-Z0-9_]*|\d+", n) or n in known)] + \
        ["()"] * ("(" in expr)


def handed(text, name, constants):
    """What is wrong with how a file comes by the text of that name, which it hands to the database."""
    if re.search(rf"(?<!const )\b(?:char|struct buf)\s*\*?\s*{name}\s*[\[=;,)]", text):
        yield f"{name} may be written to"
    for m in re.finditer(rf"(?<![\w])(?:\w+(?:->|\.))?{name}\s*=(?!=)\s*([^;]+?);", text):
        if strange(m[1], constants):
            yield f"{name} is set to {strange(m[1], constants)[0]}"


def faults(text, constants, engine):
    """[(line, what)] of one file."""
    text = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    found = []

    def note(at, what):
        found.append((text.count("\n", 0, at) + 1, what))

    for m in re.finditer(r"\b(" + "|".join(TAKES) + r")\s*(\()", text):
        args = arguments(text, m.start(2))
        before = text[text.rfind("\n", 0, m.start()) + 1:m.start()]
        if re.match(r"\s*(?:enum|void|int|bool|static|struct)\b[^;{]*$", before):
            continue  # its own declaration
        sql = args[TAKES[m[1]]] if len(args) > TAKES[m[1]] else "?"
        for name in strange(sql, constants):
            note(m.start(), f"{m[1]} is given " + ("what a call returns" if name == "()" else name))
        for name in HANDED & set(re.findall(r"\w+", re.sub(STRING, " ", sql))):
            for what in handed(text, name, constants):
                note(m.start(), what)
    for m in FORMATS.finditer(text):
        call = " ".join(re.findall(STRING, ",".join(arguments(text, m.end() - 1))))
        if SQL.search(call):
            note(m.start(), "formats SQL")
    if not engine and DATABASE.search(text):
        note(DATABASE.search(text).start(), "speaks to a database")
    return found


def constants_of(text):
    return {n for pair in CONSTANT.findall(text) for n in pair if n}


BAD = [
    ('pg_q_begin(&q, c, name);', "given name"),
    ('pg_q_begin(&q, c, "SELECT " COLUMNS " FROM t WHERE x = " x);', "given x"),
    ('sqlite_q_begin(&q, c, a ? "SELECT 1" : statement_for(b));', "given statement_for"),
    ('PQexec(c->pg, buffer);', "given buffer"),
    ('snprintf(b, n, "SELECT * FROM t WHERE id = %d", id);', "formats SQL"),
    ('buf_printf(&b, "DROP TABLE %s", name);', "formats SQL"),
    ('buf_puts(&b, "SELECT id FROM users WHERE username = \'"); buf_str(&b, name);', "formats SQL"),
    ('snprintf(b, n, "select id from %s", table);', "formats SQL"),
    ('strcat(b, " UNION ALL "); strcat(b, more);', "formats SQL"),
    ('char sql[99]; snprintf(sql, 99, "%s", name); pg_q_begin(&q, c, sql);', "sql may be written to"),
    ('struct buf sql; buf_str(&sql, name); sqlite_exec(c, sql.p);', "sqlite_exec is given p"),
    ('char *sql = joined(a, b); sqlite_exec(c, sql);', "sql may be written to"),
    ('const char *sql = joined(a, b); pg_exec(c, sql);', "sql is set to joined"),
    ('w->sql = name; pg_q_begin(&q, c, w->sql);', "sql is set to name"),
    ('pg_copy_begin(c, line);', "given line"),
    ('pg_q_begin(&q, c, "SELECT 1 WHERE " MEMBER("$7", name));', "given name"),
    ('pg_q_begin(&q, c, (const char *)b->p);', "given char"),
]
# what a hurried hand might add to a file of an engine
PLANTED = {"postgres": ["""
static void planted(struct pg_conn *c, struct str name)
{
    char text[200];
    snprintf(text, sizeof text, "SELECT id FROM users WHERE username = '%.*s'", (int)name.n, name.p);
    (void)!pg_script(c, text);
}
""", """
static void planted(struct pg_conn *c, struct buf *b, struct str name)
{
    buf_str(b, name);
    (void)!pg_exec(c, b->p);
}
"""], "sqlite": ["""
static void planted(struct sqlite_conn *c, struct str name)
{
    char *sql = sqlite3_mprintf("DELETE FROM session WHERE user = '%s'", name.p);
    sqlite3_exec(c->db, sql, NULL, NULL, NULL);
}
""", """
static void planted(struct sqlite_conn *c, struct sqlite_q *q, struct buf *b, struct str name)
{
    buf_str(b, name);
    sqlite_q_begin(q, c, b->p);
}
"""]}
GOOD = ['pg_q_begin(&q, c, "SELECT 1 WHERE " MEMBER("$7", "$8") " LIMIT $9");',
        'pg_q_begin(&q, c, "SELECT " COLUMNS " FROM t WHERE id = $1");', 'pg_exec(c, wanted ? pg_begin : "ROLLBACK");',
        'snprintf(why, n, "the server (at %s) is away", host);', 'pg_q_begin(&q, c, n == 1 ? of_one : of_many);']


def main():
    root, n, bad, engines = Path(sys.argv[1]), 0, 0, set()

    def result(ok, name, why=""):
        nonlocal n, bad
        n, bad = n + 1, bad + (not ok)
        print(f"{'ok' if ok else 'not ok'} {n} - {name}" + (f"\n# {why}" if why and not ok else ""))

    for text, what in BAD:
        found = faults(text, {"pg_begin"}, True)
        result(any(what in w for _, w in found), f"refuses {text}", str(found))
    for text in GOOD:
        found = faults(text, {"pg_begin", "of_one", "of_many"}, True)
        result(not found, f"takes {text}", str(found))
    for path in sorted((root / "src").rglob("*.[ch]")):
        engine = path.parent.name if path.parent.name in ENGINES else None
        constants = set()
        if engine:
            for p in path.parent.glob("*.[ch]"):
                constants |= constants_of(p.read_text("utf-8"))
        found = faults(path.read_text("utf-8"), constants, engine)
        result(not found, str(path.relative_to(root)), "; ".join(f"line {line}: {what}" for line, what in found))
        if engine and path.suffix == ".c":
            text = path.read_text("utf-8")
            missed = [p for p in PLANTED[engine] if len(faults(text + p, constants, engine)) <= len(found)]
            result(not missed, f"would see a fault in {path.relative_to(root)}", "".join(missed).replace("\n", " "))
            engines.add(engine)
    result(engines == set(ENGINES), "there are files of each engine")
    print(f"1..{n}")
    return bad > 0


sys.exit(main())
