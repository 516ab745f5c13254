"""Tests of the Helm chart on renderings, without a cluster. scripts/chart_check.sh runs them."""
import json
import os
import pathlib
import re
import unittest

import yaml

import cases
import fake_cluster
import policy
import schemas
from helm_chart import CHART, TESTS, Loader, Refused, find, pod_template, render, render_text, sets
from cases import CUDA, FLEET, KEDA, MON, MTLS, PG, QUEUE, S3, TLS

GOLDENS = {"default": [], "fleet": ["-f", str(CHART / "ci/fleet-values.yaml"), *sets("monitoring.dashboard=false")], "queue": ["-f", str(CHART / "ci/queue-values.yaml")]}
SERVER, WORKER = "u-server", "u-worker-cpu"


def container(objects, kind, name):
    return pod_template(find(objects, kind, name))["spec"]["containers"][0]


def pool_args(objects, name=WORKER):
    return container(objects, "Deployment", name)["args"]


class RenderingsTest(unittest.TestCase):
    def test_every_sensible_rendering_is_valid_and_hardened(self):
        self.assertGreaterEqual(len(cases.CASES), 50)
        documents, owners = [], []
        for name, arguments in cases.CASES.items():
            rendered = render(*arguments, release=cases.RELEASES.get(name, "u"))
            ids = [(d["kind"], d["metadata"]["name"]) for d in rendered]
            self.assertEqual(len(ids), len(set(ids)), name)
            for document in rendered:
                for problem in policy.problems(document):
                    self.fail(f"{name}: {problem}")
            documents += rendered
            owners += [name] * len(rendered)
        violations = list(schemas.problems(documents))
        self.assertEqual(violations, [])
        print(f"{len(cases.CASES)} renderings, {len(documents)} objects", flush=True)

    def test_the_schemas_refuse_a_wrong_type_and_a_missing_field(self):
        deployment = find(render(*CUDA), "Deployment", "u-worker-cuda")
        deployment["spec"]["replicas"] = "two"
        self.assertEqual(len(list(schemas.problems([deployment]))), 1)
        service = find(render(), "Service", "u-server")
        del service["spec"]["ports"][0]["port"]
        self.assertEqual(len(list(schemas.problems([service]))), 1)

    def test_senseless_values_are_refused_with_a_reason(self):
        for name, (arguments, reason) in cases.REFUSED.items():
            with self.subTest(name):
                with self.assertRaises(Refused) as refused:
                    render(*arguments)
                self.assertIn(reason, str(refused.exception))

    def test_manifests_beside_the_chart_are_valid_and_hardened(self):
        for path in sorted((TESTS.parent / "kubernetes").glob("*.yaml")):
            documents = [d for d in yaml.load_all(path.read_text(), Loader) if d]
            self.assertEqual(list(schemas.problems(documents)), [], path)
            for document in documents:
                document["metadata"]["namespace"] = "any"
                self.assertEqual(list(policy.problems(document)), [], path)

    def test_renderings_are_the_golden_ones(self):
        for name, arguments in GOLDENS.items():
            path = TESTS / "golden" / f"{name}.yaml"
            text = render_text(*arguments)
            if os.environ.get("UPDATE_GOLDENS"):
                path.write_text(text)
            self.assertEqual(text, path.read_text(), f"{path.name}: is the change wanted? UPDATE_GOLDENS=1 scripts/chart_check.sh")


class FailoverTest(unittest.TestCase):
    """K1, K2, K16: a standby counts as ready, the active server can be replaced and evicted."""

    def test_standby_is_ready_and_only_ready_pods_count(self):
        server = container(render(*FLEET), "Deployment", SERVER)
        self.assertEqual(server["readinessProbe"]["httpGet"]["path"], "/readyz?standby=ok")
        for probe in ("livenessProbe", "startupProbe"):
            self.assertEqual(server[probe]["httpGet"]["path"], "/healthz")

    def test_rollout_can_take_an_old_server_away(self):
        for replicas in (1, 2, 3):
            spec = find(render(*PG, *S3, *sets(f"server.replicas={replicas}")), "Deployment", SERVER)["spec"]
            self.assertEqual(spec["strategy"], {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})

    def test_budget_allows_the_eviction_of_the_active_server(self):
        budget = find(render(*FLEET), "PodDisruptionBudget", SERVER)["spec"]
        self.assertEqual(budget["maxUnavailable"], 1)
        self.assertNotIn("minAvailable", budget)
        for arguments in ([], PG):  # one server: a budget could only block its node
            self.assertFalse([o for o in render(*arguments) if o["kind"] == "PodDisruptionBudget"])

    def test_callers_resolve_a_headless_name(self):
        objects = render(*FLEET)
        service = find(objects, "Service", "u-server-headless")["spec"]
        self.assertEqual(service["clusterIP"], "None")
        self.assertTrue(service["publishNotReadyAddresses"])
        self.assertIn("--server=u-workers:50052", pool_args(objects))
        workers = find(objects, "Service", "u-workers")["spec"]
        self.assertEqual((workers["clusterIP"], workers["publishNotReadyAddresses"]), ("None", True))
        self.assertIn("--worker-listen=0.0.0.0:50052", container(objects, "Deployment", SERVER)["args"])
        open_to_all = render(*FLEET, *sets("access.allowAnonymous=true", "certManager.enabled=false"))
        self.assertIn("--server=u-server-headless:50051", pool_args(open_to_all))
        self.assertNotIn("u-workers", [o["metadata"]["name"] for o in open_to_all])
        stateful = find(render(), "StatefulSet")["spec"]
        self.assertEqual(stateful["serviceName"], "u-server-headless")

    def test_outside_service_leads_to_the_active_server_through_the_proxy(self):
        objects = render(*FLEET, *sets("proxy.enabled=true"))
        self.assertEqual(find(objects, "Service", "u-server")["spec"]["selector"]["app.kubernetes.io/component"], "proxy")
        config = find(objects, "ConfigMap", "u-proxy")["data"]["haproxy.cfg"]
        self.assertIn("option httpchk GET /readyz\n", config)
        self.assertIn(" u-server-headless.q.svc.cluster.local:50051 check port 9090 ", config)

    def test_servers_spread_over_nodes(self):
        spread = pod_template(find(render(*FLEET), "Deployment", SERVER))["spec"]["topologySpreadConstraints"][0]
        self.assertEqual(spread["topologyKey"], "kubernetes.io/hostname")
        self.assertEqual(spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], "server")


class ValuesTest(unittest.TestCase):
    """R1 to R14: defects that renderings once showed. Values that must be refused are in cases.REFUSED."""

    def test_a_typo_is_refused(self):  # R1
        for value in ("server.replica=3", "monitorng.rules=true", "workers.cpu.replica=2", "objects.volume.sise=1Gi"):
            with self.assertRaises(Refused):
                render(*sets(value))

    def test_grace_is_longer_than_the_drain(self):  # R2
        for drain, seconds in (("2h", 7200), ("90s", 90), ("1h30m", 5400), ("45m", 2700)):
            spec = pod_template(find(render(*sets(f"workers.cpu.drainTimeout={drain}")), "Deployment", WORKER))["spec"]
            self.assertEqual(spec["terminationGracePeriodSeconds"], seconds + 60)
        spec = pod_template(find(render(*CUDA), "Deployment", "u-worker-cuda"))["spec"]
        self.assertEqual(spec["terminationGracePeriodSeconds"], 1860)

    def test_names_fit_for_every_release(self):  # R3, R4
        for release in ("a" * 53, "x" + "y" * 45, "my.rel", "1abc", "a.b-c.d"):
            names = set()
            for arguments in ([], FLEET, sets(f"workers.{'p' * 14}.enabled=true", "workers.cpu.kind=Job"), KEDA):
                for document in render(*arguments, release=release):
                    self.assertEqual([p for p in policy.problems(document)], [], release)
                    names.add(document["metadata"]["name"])
        one = find(render(release="a" * 50), "StatefulSet")["metadata"]["name"]
        other = find(render(release="a" * 51), "StatefulSet")["metadata"]["name"]
        self.assertNotEqual(one, other)

    def test_names_can_be_chosen(self):  # R4
        self.assertEqual(find(render(*sets("fullnameOverride=quant")), "StatefulSet")["metadata"]["name"], "quant-server")
        self.assertEqual(find(render(*sets("nameOverride=two")), "StatefulSet")["metadata"]["name"], "u-two-server")

    def test_a_plain_release_keeps_its_names(self):
        self.assertEqual(find(render(), "StatefulSet")["metadata"]["name"], "u-server")
        self.assertEqual(find(render(), "PersistentVolumeClaim")["metadata"]["name"], "u-objects")

    def test_arguments_are_quoted(self):  # R5
        args = pool_args(render(*sets("workers.cpu.labels.note=a: b # c", "workers.cpu.labels.n=12345678")))
        self.assertIn("--label=note=a: b # c", args)
        self.assertIn("--label=n=12345678", args)

    def test_a_number_in_a_values_file_is_written_whole(self):  # Go reads it as a float
        path = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"uniquanf-values-{os.getpid()}.yaml"
        path.write_text("workers: {cpu: {labels: {size: 12345678}}}\nobjects: {volume: {existingClaim: 12345678}}\n")
        try:
            objects = render("-f", str(path))
        finally:
            path.unlink()
        self.assertIn("--label=size=12345678", pool_args(objects))
        self.assertIn("'claimName': '12345678'", str(objects))

    def test_an_enabled_pool_is_whole(self):  # R6
        objects = render(*sets("workers.big.enabled=true", "workers.gpu.enabled=true", "workers.gpu.device=cuda"))
        deployment = find(objects, "Deployment", "u-worker-big")
        worker = pod_template(deployment)["spec"]["containers"][0]
        self.assertEqual(deployment["spec"]["replicas"], 1)
        self.assertEqual(worker["image"], "uniquanf-worker:0.1.0")
        self.assertIn("--threads=$(CPUS)", worker["args"])
        self.assertEqual(pod_template(deployment)["spec"]["terminationGracePeriodSeconds"], 660)
        gpu = container(objects, "Deployment", "u-worker-gpu")
        self.assertEqual(gpu["image"], "uniquanf-worker-cuda:0.1.0")
        self.assertEqual(gpu["resources"]["limits"]["nvidia.com/gpu"], 1)

    def test_numeric_names_are_text(self):  # R7
        objects = render(*PG, *sets("state.postgresql.existingSecret=12345", "objects.uri=s3://b", "objects.s3Secret=678"))
        server = container(objects, "Deployment", SERVER)
        self.assertEqual(server["env"][0]["valueFrom"]["secretKeyRef"]["name"], "12345")
        self.assertEqual(server["envFrom"][0]["secretRef"]["name"], "678")

    def test_storage_class_can_be_default_named_or_none(self):  # R8
        def classes(value):
            objects = render(*sets(f"objects.volume.storageClassName={value}", f"server.stateVolume.storageClassName={value}"))
            claim = find(objects, "PersistentVolumeClaim")["spec"]
            template = find(objects, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]
            return [spec.get("storageClassName", "absent") for spec in (claim, template)]
        self.assertEqual(classes("nfs"), ["nfs", "nfs"])
        self.assertEqual(classes("-"), ["", ""])
        self.assertEqual(classes(""), ["absent", "absent"])

    def test_cache_fits_its_volume(self):  # R9
        objects = render(*S3, *sets("workers.cpu.cacheGiB=50"))
        self.assertIn("--cache-size=50GiB", pool_args(objects))
        spec = pod_template(find(objects, "Deployment", WORKER))["spec"]
        self.assertIn({"name": "cache", "emptyDir": {"sizeLimit": "51Gi"}}, spec["volumes"])
        self.assertEqual(spec["containers"][0]["resources"]["limits"]["ephemeral-storage"], "55Gi")

    def test_another_kind_of_state_is_not_taken_up_unseen(self):  # R12
        sqlite, postgres = ("StatefulSet", "q", SERVER), ("Deployment", "q", SERVER)
        for installed, arguments, good in ((sqlite, PG, False), (postgres, [], False), (sqlite, [], True), (postgres, PG, True),
                                           (sqlite, [*PG, *sets("state.acceptEmptyState=true")], True)):
            with fake_cluster.cluster(installed) as kubeconfig:
                live = [*arguments, "--dry-run=server", "--disable-openapi-validation", "--kubeconfig", kubeconfig]
                if good:
                    render(*live)
                    continue
                with self.assertRaises(Refused) as refused:
                    render(*live)
                self.assertIn("acceptEmptyState", str(refused.exception))

    def test_what_charts_offer_is_there(self):  # R14
        objects = render(*cases.CASES["LoadBalancer with mutual tls"])
        self.assertEqual(find(objects, "Service", "u-server")["spec"]["loadBalancerClass"], "x/y")
        objects = render(*cases.CASES["NodePort, insecure"])
        self.assertEqual(find(objects, "Service", "u-server")["spec"]["ports"][0]["nodePort"], 30051)
        objects = render(*cases.CASES["images"])
        self.assertEqual(container(objects, "StatefulSet", SERVER)["image"],
                         f"registry.example.com/q/uniquanf-server@sha256:{'0' * 64}")
        objects = render(*cases.CASES["labels and annotations"])
        metadata = pod_template(find(objects, "StatefulSet"))["metadata"]
        self.assertEqual((metadata["labels"]["a"], metadata["labels"]["team"], metadata["annotations"]["c"]), ("b", "ml", "d"))
        self.assertTrue(all(o["metadata"]["namespace"] == "q" for o in objects))
        objects = render(*cases.CASES["extras"])
        server = container(objects, "StatefulSet", SERVER)
        self.assertIn({"name": "A", "value": "b"}, server["env"])
        self.assertIn("--default-ttl=72h", server["args"])
        find(objects, "ConfigMap", "extra")
        spec = pod_template(find(render(*cases.CASES["GPU settings"]), "Deployment", "u-worker-cuda"))["spec"]
        self.assertEqual(spec["runtimeClassName"], "nvidia")
        self.assertIn({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}, spec["volumes"])

    def test_the_schema_knows_every_value_and_no_other(self):
        schema = yaml.safe_load((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())

        def compare(where, node, value):
            while "$ref" in node:
                node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
            if not isinstance(value, dict) or "properties" not in node:
                return
            without = {"global"} if not where else set()
            if where.startswith("workers.") or where.startswith("workerDeviceDefaults."):
                without = set(node["properties"]) - set(value)  # partial by their nature
            self.assertEqual(set(node["properties"]) - without, set(value), where)
            self.assertIs(node["additionalProperties"], False, where)
            for key, item in value.items():
                compare(f"{where}.{key}".strip("."), node["properties"][key], item)

        values["server"]["probes"] = {}
        values["workerDefaults"]["probes"] = {}
        schema["definitions"]["probes"]["properties"] = {}
        schema["definitions"]["resources"] = {"type": "object"}
        compare("", schema, values)


class OperationTest(unittest.TestCase):
    """The rest of K5 to K20."""

    def test_database_password_is_no_argument(self):  # K5
        server = container(render(*FLEET), "Deployment", SERVER)
        self.assertFalse([a for a in server["args"] if a.startswith("--state")])
        self.assertEqual(server["env"][0]["name"], "UNIQUANF_STATE")

    def test_threads_follow_the_requested_cpus(self):  # K4
        worker = container(render(), "Deployment", WORKER)
        self.assertIn("--threads=$(CPUS)", worker["args"])
        self.assertIn({"name": "CPUS", "valueFrom": {"resourceFieldRef": {
            "containerName": "worker", "resource": "requests.cpu", "divisor": "1"}}}, worker["env"])
        self.assertIn("--threads=8", pool_args(render(*sets("workers.cpu.threads=8"))))

    def test_workers_scale_by_this_releases_tasks(self):  # K7
        scaled = find(render(*KEDA, *sets("workers.cpu.autoscaling.minReplicas=0")), "ScaledObject")["spec"]
        self.assertEqual(scaled["minReplicaCount"], 0)
        self.assertEqual(scaled["triggers"][0]["metadata"]["query"],
                         'sum(uniquanf_tasks{state=~"ready|leased",namespace="q",job="q/u"})')
        self.assertNotIn("replicas", find(render(*KEDA), "Deployment", WORKER)["spec"])  # the scaler's alone
        find(render(*sets("workers.cpu.autoscaling.kind=hpa")), "HorizontalPodAutoscaler")

    def test_a_running_worker_keeps_its_node(self):  # K7
        annotations = pod_template(find(render(), "Deployment", WORKER))["metadata"]["annotations"]
        self.assertEqual(annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false")

    def test_worker_jobs_end_when_idle_and_wait_for_their_queue(self):  # K7
        job = [o for o in render(*QUEUE) if o["kind"] == "Job"][0]
        template = pod_template(job)
        self.assertTrue(job["spec"]["suspend"])
        for metadata in (job["metadata"], template["metadata"]):
            self.assertEqual(metadata["labels"]["kueue.x-k8s.io/queue-name"], "quantization")
        self.assertIn("--exit-when-idle=2m", template["spec"]["containers"][0]["args"])
        self.assertEqual(template["spec"]["restartPolicy"], "Never")
        other = [o for o in render(*QUEUE, *sets("workers.cpu.threads=2")) if o["kind"] == "Job"][0]
        self.assertNotEqual(job["metadata"]["name"], other["metadata"]["name"])  # a Job's template cannot be changed
        scaled = find(render(*cases.CASES["KEDA jobs"]), "ScaledJob")
        self.assertIn("--exit-when-idle=2m", pod_template(scaled)["spec"]["containers"][0]["args"])

    def test_mig_slices_replace_whole_gpus(self):  # K10
        limits = container(render(*cases.CASES["MIG slices"]), "Deployment", "u-worker-mig")["resources"]["limits"]
        self.assertEqual(limits["nvidia.com/mig-3g.40gb"], 2)
        self.assertNotIn("nvidia.com/gpu", limits)

    def test_cache_can_lie_on_a_claim(self):  # K11
        spec = pod_template(find(render(*cases.CASES["cache on a class"]), "Deployment", WORKER))["spec"]
        claim = [v for v in spec["volumes"] if v["name"] == "cache"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]
        self.assertEqual((claim["storageClassName"], claim["resources"]["requests"]["storage"]), ("local-ssd", "51Gi"))
        self.assertEqual(spec["containers"][0]["resources"]["limits"]["ephemeral-storage"], "4Gi")

    def test_a_new_chart_version_restarts_nothing(self):  # K12
        for arguments in ([], FLEET):
            for document in render(*arguments):
                template = pod_template(document)
                if template and document["kind"] != "Pod":
                    self.assertNotIn("0.2.0", str(template))

    def test_a_large_state_may_take_long_to_read(self):  # K13
        probe = container(render(), "StatefulSet", SERVER)["startupProbe"]
        self.assertGreaterEqual(probe["periodSeconds"] * probe["failureThreshold"], 900)

    def test_a_worker_is_ready_when_the_server_has_accepted_it(self):  # K13
        self.assertEqual(container(render(), "Deployment", WORKER)["readinessProbe"]["httpGet"]["path"], "/readyz")

    def test_calls_come_from_the_namespace_alone(self):  # K14
        objects = render()
        rule = find(objects, "NetworkPolicy", "u-server")["spec"]["ingress"][0]
        self.assertEqual((rule["ports"], rule["from"]), ([{"port": "grpc"}], [{"podSelector": {}}]))
        rule = find(objects, "NetworkPolicy", "u-server")["spec"]["ingress"][1]
        self.assertEqual(rule["ports"], [{"port": "workers"}])
        self.assertEqual([f["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for f in rule["from"]], ["worker"])
        worker = find(objects, "NetworkPolicy", "u-worker")["spec"]
        self.assertEqual([r["ports"] for r in worker["ingress"]], [[{"port": "metrics"}]])
        objects = render(*cases.CASES["LoadBalancer with mutual tls"])
        self.assertIn({"ipBlock": {"cidr": "10.0.0.0/8"}}, find(objects, "NetworkPolicy", "u-server")["spec"]["ingress"][0]["from"])
        objects = render(*cases.CASES["network policy"])
        self.assertTrue(find(objects, "NetworkPolicy", "u-worker")["spec"]["ingress"][0]["from"])

    def test_certificates_can_come_from_cert_manager(self):  # K14
        objects = render(*cases.CASES["cert-manager, fleet"])
        certificate = find(objects, "Certificate", "u-server")["spec"]
        for name in ("u-server", "u-server-headless.q.svc", "q.example.com"):
            self.assertIn(name, certificate["dnsNames"])
        args = pool_args(objects)
        self.assertIn("--tls-server-name=u-server", args)
        self.assertIn("--tls-cert=/tls/tls.crt", args)
        self.assertIn("--tls-ca=/tls/client-ca/ca.crt", container(objects, "Deployment", SERVER)["args"])

    def test_monitors_have_what_operators_select_by(self):  # K17
        objects = render(*cases.CASES["monitoring with labels"])
        monitor = find(objects, "PodMonitor")
        self.assertEqual(monitor["metadata"]["labels"]["release"], "kps")
        self.assertEqual(monitor["spec"]["podMetricsEndpoints"][0]["interval"], "30s")
        self.assertEqual(monitor["spec"]["namespaceSelector"], {"matchNames": ["q"]})
        objects = render(*cases.CASES["ServiceMonitor"])
        service = find(objects, "Service", "u-metrics")
        self.assertLessEqual(find(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items(),
                             service["metadata"]["labels"].items())

    def test_alerts_are_about_this_release_and_say_what_to_do(self):  # K17, M2
        for arguments, job in ((MON, "q/u"), (sets("monitoring.rules=true", "monitoring.serviceMonitor=true"), "u-metrics")):
            rules = find(render(*arguments), "PrometheusRule")["spec"]["groups"][0]["rules"]
            plain = yaml.safe_load((TESTS.parent / "prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
            self.assertEqual([r["alert"] for r in rules], [r["alert"] for r in plain])
            headings = re.findall(r"^### (\w+)$", (TESTS.parent / "RUNBOOK.md").read_text(), re.M)
            for rule in rules:
                for name, selector in re.findall(r"\b((?:uniquanf|process)_\w+)(\{[^}]*\})?", rule["expr"]):
                    self.assertIn(f'namespace="q",job="{job}"', selector, f"{rule['alert']}: {name}")
                self.assertEqual(rule["annotations"]["runbook_url"], f"deploy/RUNBOOK.md#{rule['alert'].lower()}")
                self.assertIn(rule["alert"], headings)
                self.assertEqual((rule["labels"]["namespace"], rule["labels"]["release"]), ("q", "u"))

    def test_helm_test_asks_the_server(self):  # K18
        pod = find(render(*FLEET), "Pod", "u-test")
        self.assertEqual(pod["metadata"]["annotations"]["helm.sh/hook"], "test")
        self.assertIn("--server=u-server-headless:50051", pod["spec"]["containers"][0]["args"])

    def test_workers_wait_for_a_server_of_their_version(self):  # K19
        self.assertIn("--wait-for-version", container(render(*FLEET), "Deployment", WORKER)["args"])
        self.assertNotIn("--wait-for-version", container(render(*sets("workers.cpu.waitForServer=false")), "Deployment", WORKER)["args"])

    def test_no_server_is_open_by_default(self):  # SECURITY T9
        for name, arguments in cases.CASES.items():
            objects = render(*arguments)
            kind = "StatefulSet" if any(o["kind"] == "StatefulSet" for o in objects) else "Deployment"
            args = next(c["args"] for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith("-server")
                        for c in o["spec"]["template"]["spec"]["containers"])
            is_open = "access.allowAnonymous=true" in arguments
            self.assertEqual("--insecure-allow-anonymous" in args, is_open, name)
            if not is_open:
                for flag in ("--policy=/policy/policy.json", "--tls-cert=/tls/server/tls.crt"):
                    self.assertIn(flag, args, name)

    def test_the_compose_file_s_server_is_closed(self):  # SECURITY T9
        services = yaml.safe_load((TESTS.parents[1] / "docker/compose.yaml").read_text())["services"]
        command = services["server"]["command"]
        self.assertIn("--policy=/tls/policy.json", command)
        self.assertIn("--tls-ca=/tls/ca.crt", command)
        self.assertNotIn("--insecure-allow-anonymous", command)
        mounted = {v["target"]: pathlib.Path(v["source"]).name for v in services["server"]["volumes"]}
        self.assertEqual((mounted["/tls/tls.key"], mounted["/tls/policy.json"]), ("server.key", "policy.json"))
        keys = {name: [pathlib.Path(v["source"]).name for v in service["volumes"] if v["target"] == "/tls/tls.key"]
                for name, service in services.items() if "build" in service}
        self.assertEqual(keys, {"server": ["server.key"], "worker": ["worker.key"], "worker-gpu": ["worker.key"], "client": ["user.key"]})

    def test_the_policy_gives_the_release_s_own_certificates_their_roles(self):
        objects = render(*cases.CASES["a trust domain"])
        policy = json.loads(find(objects, "ConfigMap", "u-policy")["data"]["policy.json"])
        self.assertEqual(policy["certificates"]["trust_domain"], "example.org")
        self.assertEqual({b["role"] for b in policy["bindings"]}, {"user", "operator", "worker"})
        self.assertEqual(policy["tenants"]["research"], {"max_priority": 5})
        self.assertEqual(policy["tenants"]["*"]["data"]["read"], ["file:///shared"])
        self.assertEqual(json.loads(find(render(*S3), "ConfigMap", "u-policy")["data"]["policy.json"])["tenants"], {})
        for who in ("worker", "operator"):
            self.assertEqual(find(objects, "Certificate", f"u-{who}")["spec"]["uris"], [f"spiffe://example.org/{who}/u"])
        self.assertNotIn("uris", find(objects, "Certificate", "u-server")["spec"])
        for name in ("u-server", "u-worker", "u-operator"):
            self.assertEqual(find(objects, "Certificate", name)["spec"]["issuerRef"]["name"], "u-ca")
        self.assertTrue(find(objects, "Certificate", "u-ca")["spec"]["isCA"])
        self.assertEqual(find(objects, "Issuer", "u-ca")["spec"]["ca"]["secretName"], "u-ca")

    def test_tls_reaches_every_caller(self):
        for arguments, cert in ((TLS, False), (MTLS, True)):
            objects = render(*arguments)
            spec = pod_template(find(objects, "Deployment", WORKER))["spec"]
            for args in (spec["containers"][0]["args"], find(objects, "Pod")["spec"]["containers"][0]["args"]):
                self.assertIn("--tls-ca=/tls/ca.crt", args)
                self.assertEqual("--tls-cert=/tls/tls.crt" in args, cert)

    def test_objects_outlive_the_release(self):
        self.assertEqual(find(render(), "PersistentVolumeClaim")["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})


if __name__ == "__main__":
    unittest.main()
