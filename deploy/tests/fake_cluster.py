"""As much of a Kubernetes API server, on a free port of this machine, as helm's `lookup` asks for: discovery, and GET of the
workloads that are said to be installed."""
import contextlib
import http.server
import json
import pathlib
import tempfile
import threading

RESOURCES = {
    "v1": {"Service": "services", "ServiceAccount": "serviceaccounts", "PersistentVolumeClaim": "persistentvolumeclaims",
           "ConfigMap": "configmaps"},
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "cert-manager.io/v1": {"Certificate": "certificates", "Issuer": "issuers"},
}


@contextlib.contextmanager
def cluster(*installed):
    """Yields the path of a kubeconfig; installed holds (kind, namespace, name)."""
    objects = {f"/apis/apps/v1/namespaces/{namespace}/{RESOURCES['apps/v1'][kind]}/{name}":
               {"apiVersion": "apps/v1", "kind": kind, "metadata": {
                   "name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "Helm"},
                   "annotations": {"meta.helm.sh/release-name": "u", "meta.helm.sh/release-namespace": namespace}}}
               for kind, namespace, name in installed}
    groups = [v.split("/") for v in RESOURCES if "/" in v]
    answers = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
            {"name": name, "versions": [{"groupVersion": f"{name}/{version}", "version": version}],
             "preferredVersion": {"groupVersion": f"{name}/{version}", "version": version}} for name, version in groups]},
        **{("/apis/" if "/" in version else "/api/") + version: {"kind": "APIResourceList", "groupVersion": version, "resources": [
            {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
            for kind, plural in kinds.items()]} for version, kinds in RESOURCES.items()},
        **objects}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path.split("?")[0])
            status = 200 if answer else 404
            body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake", "users": [{"name": "fake", "user": {}}],
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}]}))
        try:
            yield str(path)
        finally:
            server.shutdown()
            server.server_close()
