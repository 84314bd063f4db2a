#!/usr/bin/env python3
"""Writes an assembler file that holds the given files, gzip-compressed, and a C table of them.

usage: embed.py OUT.S OUT.c SCHEMAS FILE...
SCHEMAS is held as it is, as web_schemas_start .. web_schemas_end.
"""
import gzip
import hashlib
import json
import os
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".png": "image/png", ".txt": "text/plain; charset=utf-8",
         "": "text/plain; charset=utf-8"}


def blob(asm, symbol, data, folder):
    path = os.path.join(folder, symbol + ".bin")
    with open(path, "wb") as f:
        f.write(data)
    asm.append(f'.global {symbol}_start\n.global {symbol}_end\n{symbol}_start:\n'
               f'.incbin "{os.path.abspath(path)}"\n{symbol}_end:\n.byte 0\n')


def main():
    out_s, out_c, schemas, *files = sys.argv[1:]
    folder = out_s + ".d"
    os.makedirs(folder, exist_ok=True)
    asm = ['.section .rodata\n']
    with open(schemas, encoding="utf-8") as f:
        blob(asm, "web_schemas", json.dumps(json.load(f), separators=(",", ":")).encode(), folder)
    rows, decls = [], []
    for i, name in enumerate(files):
        with open(name, "rb") as f:
            data = f.read()
        symbol = f"web_file_{i}"
        blob(asm, symbol, gzip.compress(data, 9, mtime=0), folder)
        base = os.path.basename(name)
        etag = '\\"' + hashlib.sha256(data).hexdigest()[:16] + '\\"'
        decls.append(f"extern const unsigned char {symbol}_start[], {symbol}_end[];\n")
        rows.append(f'    {{"{base}", "{TYPES[os.path.splitext(base)[1]]}", "{etag}", {symbol}_start, {symbol}_end}},\n')
    asm.append('.section .note.GNU-stack,"",%progbits\n')
    with open(out_s, "w", encoding="utf-8") as f:
        f.write("".join(asm))
    with open(out_c, "w", encoding="utf-8") as f:
        f.write('#include "api/platform/platform.h"\n\n' + "".join(decls) +
                "\nconst struct web_file web_files[] = {\n" + "".join(rows) +
                "};\nconst unsigned web_files_n = sizeof web_files / sizeof web_files[0];\n")


main()
