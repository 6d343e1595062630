"""Checks a compose file strictly: an unknown key, a value of another form, a reference to a secret, config
or volume that is not there. Variables are replaced by their defaults, as without an environment."""

import re
import sys

import compose_spec

text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", open(sys.argv[1]).read())
file = compose_spec.PyOptions(apply_merge=True).from_yaml(text)
file.validate()
known = set(file.service_names())
for name, service in file.to_dict()["services"].items():
    missing = set(service.get("depends_on", {})) - known
    if missing:
        sys.exit(f"{name} depends on {', '.join(missing)}, which there is not")
print("services:", *sorted(known))
