#!/usr/bin/env python3
"""check-manifests.py FILE...   fails unless the manifests suit the API of Kubernetes and the Pod Security standard
`restricted`. Needs kubernetes-validate, which has the schemas, and PyYAML.
"""
import sys

import kubernetes_validate
import yaml

API = "1.31"
# Custom resources have no schema there.
CUSTOM = {"PodMonitor"}


def pods(document):
    if document["kind"] == "Deployment":
        yield document["spec"]["template"]["spec"]


def restricted(pod):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key} is set"
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - allowed:
            yield f"volume {volume['name']} is a {kind}"
    shared = pod.get("securityContext", {})
    for container in pod["containers"] + pod.get("initContainers", []):
        own = container.get("securityContext", {})
        name = container["name"]

        def effective(key):
            return own.get(key, shared.get(key))

        if effective("runAsNonRoot") is not True:
            yield f"{name}: runAsNonRoot is not true"
        if effective("runAsUser") == 0:
            yield f"{name}: runAsUser is 0"
        if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile is not RuntimeDefault"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation is not false"
        if own.get("privileged"):
            yield f"{name}: privileged is set"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            yield f"{name}: capabilities.drop lacks ALL"
        if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities.add is set"
        # Not of the standard, but of this project.
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: readOnlyRootFilesystem is not true"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{name}: no {probe}"


def main():
    faults = []
    checked = 0
    for path in sys.argv[1:]:
        with open(path) as file:
            documents = [one for one in yaml.safe_load_all(file) if one]
        for document in documents:
            what = f"{path}: {document['kind']} {document['metadata']['name']}"
            if document["kind"] not in CUSTOM:
                try:
                    kubernetes_validate.validate(document, API, strict=True)
                except kubernetes_validate.ValidationError as error:
                    faults.append(f"{what}: {'.'.join(map(str, error.path))}: {error.message}")
            for pod in pods(document):
                checked += 1
                faults += [f"{what}: {fault}" for fault in restricted(pod)]
    if checked < len(sys.argv) - 1:
        faults.append("a file has no pods")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(sys.argv) - 1} files suit Kubernetes {API} and Pod Security `restricted`")


main()
