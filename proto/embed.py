#!/usr/bin/env python3
"""Writes the .proto files behind reflection as C: embed.py PROTOC ROOT NAME OUT.c OUT.h FILE.proto…

The result is `const struct rpc_files NAME` (src/rpc/files.h): each file and what it imports as serialized
FileDescriptorProtos, and every symbol with the file that it stands in.
"""

import os
import subprocess
import sys
import tempfile

DEPS_MAX = 64  # FILES_MAX of src/rpc/reflection.c


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(number, bytes) of the length-delimited fields of a message; the others are skipped."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            _, at = varint(data, at)
        elif tag & 7 == 2:
            size, at = varint(data, at)
            yield tag >> 3, data[at:at + size]
            at += size
        else:
            at += {1: 8, 5: 4}[tag & 7]


def of(data, number):
    return [value for n, value in fields(data) if n == number]


def name_of(data):
    return of(data, 1)[0].decode()


# Numbers are those of google/protobuf/descriptor.proto.
def enum_symbols(enum, scope):
    yield scope + name_of(enum)
    for value in of(enum, 2):
        yield scope + name_of(value)


def message_symbols(message, scope):
    name = scope + name_of(message)
    yield name
    for field in of(message, 2) + of(message, 8):  # oneofs too
        yield f"{name}.{name_of(field)}"
    for nested in of(message, 3):
        yield from message_symbols(nested, name + ".")
    for enum in of(message, 4):
        yield from enum_symbols(enum, name + ".")


def symbols(file):
    package = "".join(p.decode() + "." for p in of(file, 2))
    for message in of(file, 4):
        yield from message_symbols(message, package)
    for enum in of(file, 5):
        yield from enum_symbols(enum, package)
    for service in of(file, 6):
        yield package + name_of(service)
        for method in of(service, 2):
            yield f"{package}{name_of(service)}.{name_of(method)}"


def closure(name, files):
    """The file's name, then those of all that it imports, each once."""
    names = [name]
    for n in names:
        names.extend(d for d in (x.decode() for x in of(files[n], 3)) if d not in names)
    return names


def main():
    protoc, root, name, out, header, *protos = sys.argv[1:]
    with tempfile.NamedTemporaryFile() as f:
        subprocess.run([protoc, "-I", root, "--include_imports", "-o", f.name,
                        *(os.path.relpath(p, root) for p in protos)], check=True)
        files = {name_of(d): d for d in of(f.read(), 1)}
    order = list(files)
    rows, found = [], set()
    lines = ['#include "rpc/files.h"\n\n']
    for i, (path, data) in enumerate(files.items()):
        deps = [order.index(d) for d in closure(path, files)]
        if len(deps) > DEPS_MAX:
            sys.exit(f"{path} imports more than {DEPS_MAX} files")
        text = ",".join(map(str, data))
        lines.append(f"static const unsigned char file_{i}[] = {{{text}}};\n")
        lines.append(f"static const unsigned deps_{i}[] = {{{', '.join(map(str, deps))}}};\n")
        rows.append(f'    {{"{path}", file_{i}, sizeof file_{i}, deps_{i}, {len(deps)}}},\n')
        found.update((s, i) for s in symbols(data))
    lines.append("\nstatic const struct rpc_file files[] = {\n" + "".join(rows) + "};\n\n")
    lines.append("static const struct rpc_symbol symbols[] = {\n")
    lines.extend(f'    {{"{s}", {i}}},\n' for s, i in sorted(found, key=lambda x: x[0].encode()))
    lines.append("};\n\n")
    lines.append(f"const struct rpc_files {name} = {{files, {len(files)}, symbols, {len(found)}}};\n")
    with open(out, "w", encoding="utf-8") as c:
        c.write("".join(lines))
    guard = name.upper() + "_H"
    with open(header, "w", encoding="utf-8") as h:
        h.write(f'#ifndef {guard}\n#define {guard}\n\n#include "rpc/files.h"\n\n'
                f"extern const struct rpc_files {name};\n\n#endif\n")


main()
