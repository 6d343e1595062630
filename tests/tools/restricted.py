"""Checks the pods of a manifest: all containers against the restricted Pod Security Standard, those of
adsproxy also for what we promise of them. Prints the names of the latter."""

import sys

import yaml

VOLUMES = {"configMap", "secret", "projected", "emptyDir", "downwardAPI", "csi", "ephemeral"}
problems = []


def pods(document):
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    if "template" in spec:
        yield spec["template"]["spec"]


def check(place, fine, what):
    if not fine:
        problems.append(f"{place}: {what}")


def check_container(place, pod, container):
    own, of_pod = container.get("securityContext", {}), pod.get("securityContext", {})

    def effective(key):
        return own.get(key, of_pod.get(key))

    check(place, effective("runAsNonRoot") is True, "may run as root")
    check(place, effective("runAsUser") != 0, "its user is root")
    check(place, own.get("allowPrivilegeEscalation") is False, "may gain privileges")
    check(place, not own.get("privileged"), "is privileged")
    capabilities = own.get("capabilities", {})
    check(place, capabilities.get("drop") == ["ALL"], "does not drop all capabilities")
    check(place, not capabilities.get("add"), "adds capabilities")
    seccomp = (effective("seccompProfile") or {}).get("type")
    check(place, seccomp in ("RuntimeDefault", "Localhost"), "has no seccomp profile")
    if "/adsproxy@" not in container["image"] and "/adsproxy:" not in container["image"]:
        return
    print(f"adsproxy: {place}")
    check(place, "@sha256:" in container["image"], "its image is not named by digest")
    check(place, own.get("readOnlyRootFilesystem") is True, "may write to its root filesystem")
    check(place, effective("runAsUser") == 65532, "its user is not 65532")
    limits, requests = (container.get("resources", {}).get(key, {}) for key in ("limits", "requests"))
    check(place, "memory" in limits, "has no limit of memory")
    check(place, {"cpu", "memory"} <= set(requests), "requests no cpu or memory")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        is_serving = container.get("args") == ["serve"]
        check(place, probe in container or not is_serving, f"has no {probe}")
    mounts = container.get("volumeMounts", [])
    check(place, not any("subPath" in mount for mount in mounts), "a subPath is never updated")


for document in yaml.safe_load_all(open(sys.argv[1])):
    for pod in pods(document):
        name = f"{document['kind']} {document['metadata']['name']}"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            check(name, not pod.get(key), key)
        for volume in pod.get("volumes", []):
            check(name, set(volume) - {"name"} <= VOLUMES, f"volume {volume['name']}")
        for container in pod.get("initContainers", []) + pod["containers"]:
            check_container(f"{name}/{container['name']}", pod, container)

sys.exit("\n".join(problems) or 0)
