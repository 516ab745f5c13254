"""What every pod of a rendering must keep: Pod Security "restricted", and the project's own rules. problems(document) gives
sentences, none for a good document."""
import re

from helm_chart import pod_template

RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SERVING = ("Deployment", "StatefulSet")
LABEL = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")
DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
DNS_1123 = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")


def _container_problems(name, container, serving):
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security["capabilities"].get("add"):
        yield f"{name}: capabilities are not dropped"
    if security.get("privileged"):
        yield f"{name}: privileged"
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: the root file system can be written"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"{name}: host port"
    requests = container.get("resources", {}).get("requests", {})
    limits = container.get("resources", {}).get("limits", {})
    if not requests.get("memory") or requests["memory"] != limits.get("memory"):
        yield f"{name}: memory request {requests.get('memory')} is not the limit {limits.get('memory')}"
    if not requests.get("cpu"):
        yield f"{name}: no CPU request"
    for key in ("requests", "limits"):
        if "ephemeral-storage" not in container.get("resources", {}).get(key, {}):
            yield f"{name}: no ephemeral-storage in {key}"
    if serving:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{name}: no {probe}"
    for argument in container.get("args", []) + container.get("command", []):
        if not isinstance(argument, str):
            yield f"{name}: argument {argument!r} is no text"
        elif re.search(r"\$\(.*(STATE|PASSWORD|SECRET|TOKEN).*\)|://[^/@\s]+:[^/@\s]+@", argument):
            yield f"{name}: a secret among the arguments: {argument}"
    for key in ("image", "name"):
        if not isinstance(container.get(key), str) or not container[key]:
            yield f"{name}: no {key}"


def _pod_problems(kind, template):
    spec = template["spec"]
    security = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "the service account's token is mounted"
    if spec.get("enableServiceLinks") is not False:
        yield "service links are on"
    for volume in spec.get("volumes", []):
        sources = set(volume) - {"name"}
        if not sources <= RESTRICTED_VOLUMES:
            yield f"volume {volume['name']} of type {sources}"
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield f"emptyDir {volume['name']} without sizeLimit"
    mounts = {m["name"] for c in spec["containers"] + spec.get("initContainers", []) for m in c.get("volumeMounts", [])}
    volumes = {v["name"] for v in spec.get("volumes", [])}
    if kind == "StatefulSet":
        volumes |= {"data"}
    if mounts != volumes:
        yield f"mounted: {sorted(mounts)}, volumes: {sorted(volumes)}"
    if kind in SERVING:
        if not spec.get("terminationGracePeriodSeconds"):
            yield "no grace period"
        for label in template["metadata"]["labels"]:
            if label in ("helm.sh/chart", "app.kubernetes.io/version"):
                yield f"label {label} in the pod template: every version of the chart restarts the pods"
    for container in spec["containers"]:
        yield from _container_problems(container["name"], container, kind in SERVING)
    for container in spec.get("initContainers", []):
        yield from _container_problems(container["name"], container, False)


def _name_problems(document):
    metadata = document["metadata"]
    kind, name = document["kind"], metadata["name"]
    if not isinstance(name, str) or not (DNS_1035 if kind == "Service" else DNS_1123).match(name):
        yield f"name {name!r} is not allowed"
    if kind == "StatefulSet" and len(name) > 52:
        yield f"{name}: a StatefulSet's name of {len(name)} characters; its pods' labels would exceed 63"
    if kind in ("Deployment", "Job", "ScaledJob") and len(name) > 63:
        yield f"{name}: {len(name)} characters"
    if "namespace" not in metadata and "extra" not in name:
        yield f"{kind} {name}: no namespace"
    template = pod_template(document)
    for labels in (metadata.get("labels", {}), (template or {}).get("metadata", {}).get("labels", {})):
        for key, value in labels.items():
            if not isinstance(value, str) or not LABEL.match(value):
                yield f"{kind} {name}: label {key}={value!r}"


def problems(document):
    """Sentences about what is wrong with an object."""
    where = f"{document['kind']} {document['metadata']['name']}"
    yield from _name_problems(document)
    template = pod_template(document)
    if template is not None:
        for problem in _pod_problems(document["kind"], template):
            yield f"{where}: {problem}"
