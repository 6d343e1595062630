#!/usr/bin/env python3
"""deploy/sbom.py TARGET [cargo option...]: what is linked into adsproxy for TARGET, as CycloneDX 1.6.

Options that choose features go to cargo. What only builds or tests is left out. Equal input gives equal
output: the time is SOURCE_DATE_EPOCH, the serial number comes from the content.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cargo(*arguments):
    command = [os.environ.get("CARGO", "cargo"), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(target, options):
    """The edges between linked packages, as cargo resolves the features of the program alone."""
    tree = cargo("tree", "--locked", "--edges", "normal", "--target", target, "--no-dedupe",
                 "--prefix", "depth", "--format", " {p}", *options)
    edges, path = {}, []
    for line in tree.splitlines():
        found = re.match(r"(\d+) (\S+) v(\S+)", line)
        depth, package = int(found[1]), (found[2], found[3])
        del path[depth:]
        edges.setdefault(package, set())
        if path:
            edges[path[-1]].add(package)
        path.append(package)
    return edges


def purl(package):
    return f"pkg:cargo/{package[0]}@{package[1].replace('+', '%2B')}"


def component(package, facts, checksums):
    made = {"type": "library", "bom-ref": purl(package), "name": package[0], "version": package[1]}
    if facts.get("description"):
        made["description"] = " ".join(facts["description"].split())
    if digest := checksums.get(package):
        made["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if facts.get("license"):
        # The older way to write a choice.
        made["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", facts["license"])}]
    made["purl"] = purl(package)
    if str(facts.get("repository")).startswith("https://"):
        made["externalReferences"] = [{"type": "vcs", "url": facts["repository"]}]
    return made


def main():
    target, options = sys.argv[1], sys.argv[2:]
    described = cargo("metadata", "--format-version", "1", "--locked", "--filter-platform", target)
    metadata = json.loads(described)
    facts = {(found["name"], found["version"]): found for found in metadata["packages"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(found["name"], found["version"]): found.get("checksum") for found in lock}
    edges = linked(target, options)
    own = next((name, version) for name, version in edges if name == "adsproxy")
    program = component(own, facts[own], checksums) | {"type": "application"}
    program["properties"] = [{"name": "target", "value": target}]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    time = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": program},
        "components": [component(each, facts[each], checksums) for each in sorted(edges) if each != own],
        "dependencies": [
            {"ref": purl(each), "dependsOn": sorted(map(purl, on))} for each, on in sorted(edges.items())
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


main()
