#!/usr/bin/env python3
"""Checks licences, bans and sources of every dependency against deny.toml.

cargo-deny does this and more, but takes minutes to compile. This reads the same file, so that the
rules are written once and are always checked.

usage: dependencies.py DENY_TOML
"""

import json
import re
import subprocess
import sys
import tomllib

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def packages():
    """Yields (package, is it ours) for everything that is compiled.

    `cargo metadata` knows licences and sources, but also lists optional crates that no feature
    switches on; `cargo tree` knows what is compiled.
    """
    host = next(
        line.split()[1]
        for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines()
        if line.startswith("host:")
    )
    graph = ["--locked", "--all-features"]
    wanted = ["--format-version=1", "--filter-platform", host]
    metadata = json.loads(cargo("metadata", *graph, *wanted))
    tree = cargo("tree", *graph, "--prefix=none", "--format={p}")
    compiled = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    for package in metadata["packages"]:
        if (package["name"], "v" + package["version"]) in compiled:
            yield package, package["id"] in metadata["workspace_members"]


def is_allowed(expression, allow):
    """Evaluates an SPDX expression: OR needs one side, AND needs both."""
    tokens = re.findall(r"\(|\)|[^\s()/]+|/", expression)
    tokens = ["OR" if token == "/" else token for token in tokens]

    def any_of(rest):
        value, rest = all_of(rest)
        while rest and rest[0] == "OR":
            other, rest = all_of(rest[1:])
            value = value or other
        return value, rest

    def all_of(rest):
        value, rest = one(rest)
        while rest and rest[0] == "AND":
            other, rest = one(rest[1:])
            value = value and other
        return value, rest

    def one(rest):
        if rest[0] == "(":
            value, rest = any_of(rest[1:])
            return value, rest[1:]
        if len(rest) > 2 and rest[1] == "WITH":
            return " ".join(rest[:3]) in allow, rest[3:]
        return rest[0] in allow, rest[1:]

    return any_of(tokens)[0]


def findings(package, is_ours, rules):
    name = f"{package['name']} {package['version']}"
    banned = {rule if isinstance(rule, str) else rule["crate"] for rule in rules["bans"]["deny"]}
    if not package["license"] or not is_allowed(package["license"], rules["licenses"]["allow"]):
        yield f"{name}: licence {package['license']!r} is not allowed"
    if package["name"] in banned:
        yield f"{name}: banned"
    if not is_ours and package["source"] != CRATES_IO:
        yield f"{name}: comes from {package['source']}, not from crates.io"


def main(argv):
    with open(argv[1], "rb") as file:
        rules = tomllib.load(file)
    crates = list(packages())
    found = [line for crate, is_ours in crates for line in findings(crate, is_ours, rules)]
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"{len(crates)} crates: licences, bans and sources are in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
