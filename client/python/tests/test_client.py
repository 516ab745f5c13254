"""Both clients against a real server and worker, which are killed and started again."""

import asyncio
import datetime
import os
import threading
import time
import unittest
from typing import Any, List

import uniquanf

from .service import LONG, QUICK, Service

HAS_SERVICE = "UNIQUANF_BIN" in os.environ


@unittest.skipUnless(HAS_SERVICE, "UNIQUANF_BIN does not say where the programs are")
class ClientTest(unittest.TestCase):
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()
        cls.addClassCleanup(cls.service.close)
        cls.service.start_server()
        cls.service.start_worker()

    def client(self, **options: Any) -> "uniquanf.Client":
        client = uniquanf.Client(self.service.address, **options)
        self.addCleanup(client.close)
        return client

    def settings(self, output: str, **changes: Any) -> "dict[str, Any]":
        return {**QUICK, "output_uri": str(self.service.dir / output), **changes}

    def test_a_job_from_submission_to_its_artifact(self) -> None:
        client = self.client()
        job = client.submit(self.settings("whole", epochs=40), job_id="whole", labels={"team": "a"}, tenant="lab", priority=5, method="uniquanf",
                            overrides=[{"pattern": "*.down_proj", "bits": 4}])
        self.assertEqual((job.id, job.tenant, job.priority, job.labels), ("whole", "lab", 5, {"team": "a"}))
        self.assertEqual(job.spec["bits"], 3)
        self.assertEqual(job.spec["method"], "uniquanf")
        self.assertIsNotNone(job.create_time)
        assert job.create_time is not None
        self.assertLess(abs((datetime.datetime.now(datetime.timezone.utc) - job.create_time).total_seconds()), 60)
        curves = uniquanf.LossCurves()
        fractions: List[float] = []
        last = job
        for update in client.watch("whole"):
            curves.add(update)
            fractions.append(update.job.progress.fraction)
            last = update.job
        self.assertEqual(last.state, "SUCCEEDED", last.error)
        self.assertTrue(curves.layers)
        self.assertEqual(len(last.report.layers if last.report else ()), 4)
        for layer in last.report.layers if last.report else ():
            assert layer.block_error_before is not None and layer.block_error_after is not None
            self.assertLess(layer.block_error_after, layer.block_error_before)
        self.assertEqual([task.state for task in client.tasks("whole")], ["SUCCEEDED"] * 6)
        self.assertEqual([j.id for j in client.list('labels.team="a"', page_size=1)], ["whole"])
        self.assertEqual(client.wait("whole").name, "jobs/whole")
        directory = client.download("whole", self.service.dir / "copy")
        artifact = uniquanf.read_artifact(directory)
        self.assertEqual(artifact.modules["model.layers.0.mlp.down_proj"].bits, 4)
        self.assertEqual(artifact.modules["model.layers.0.mlp.up_proj"].bits, 3)
        with self.assertRaisesRegex(uniquanf.ArtifactError, "OUTPUT_EXISTS"):
            client.download("whole", directory)

    def test_a_damaged_artifact_is_not_downloaded(self) -> None:
        client = self.client()
        client.submit(self.settings("damaged", method="rtn"), job_id="damaged")
        client.wait("damaged")
        victim = next((self.service.dir / "damaged").glob("*.safetensors"))
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.chmod(0o600)
        victim.write_bytes(data)
        with self.assertRaisesRegex(uniquanf.ArtifactError, "DIGEST_MISMATCH"):
            client.download("damaged", self.service.dir / "damaged-copy")
        self.assertEqual(list(self.service.dir.glob(".damaged-copy*")), [])
        self.assertFalse((self.service.dir / "damaged-copy").exists())

    def test_errors_have_reasons_and_name_every_field(self) -> None:
        client = self.client()
        with self.assertRaises(uniquanf.NotFoundError) as missing:
            client.get("nobody")
        self.assertEqual(missing.exception.reason, "JOB_NOT_FOUND")
        with self.assertRaises(uniquanf.InvalidRequestError) as wrong:
            client.submit(self.settings("wrong", bits=99, epochs=-1), device="tpu")
        self.assertEqual(wrong.exception.reason, "INVALID_SPEC")
        self.assertEqual({v.field for v in wrong.exception.violations}, {"job.spec.bits", "job.spec.epochs", "job.device"})
        with self.assertRaisesRegex(uniquanf.InvalidRequestError, "no setting 'bitz'"):
            client.submit(bitz=3)
        with self.assertRaises(uniquanf.InvalidRequestError):
            client.submit(bits="three")
        client.submit(self.settings("twice"), job_id="twice", validate_only=True)
        with self.assertRaises(uniquanf.NotFoundError):
            client.get("twice")

    def test_words_and_presets_become_settings(self) -> None:
        settings = self.settings("preset", preset="best", epochs=3, folding="off", distill_window="all")
        spec = self.client().submit(settings, job_id="preset", validate_only=True).spec
        self.assertEqual([spec[name] for name in ("epochs", "self_samples", "distill_window", "folding")], [3, 2048, 100_000, "off"])
        self.assertNotIn("preset", spec)

    def test_a_job_that_fails_or_is_cancelled_is_an_error_of_wait(self) -> None:
        client = self.client()
        client.submit({**QUICK, "model_uri": "/nonexistent/model", "output_uri": str(self.service.dir / "x")}, job_id="fails", unchecked=True)
        with self.assertRaises(uniquanf.JobFailedError) as failed:
            client.wait("fails", timeout=60)
        self.assertEqual(failed.exception.job.state, "FAILED")
        self.assertTrue(failed.exception.reason)
        client.submit({**LONG, "output_uri": str(self.service.dir / "long")}, job_id="long")
        with self.assertRaises(uniquanf.WaitTimeoutError):
            client.wait("long", timeout=0.5)
        client.pause("long")
        client.resume("long")
        with self.assertRaises(uniquanf.FailedPreconditionError):
            client.delete("long")
        client.cancel("long")
        self.assertEqual(client.wait("long", timeout=60, check=False).state, "CANCELLED")
        client.delete("long")
        client.delete("long", allow_missing=True)

    def test_a_repeated_request_id_makes_one_job(self) -> None:
        client = self.client()
        first = client.submit(self.settings("once", method="rtn"), request_id="the-same")
        again = client.submit(self.settings("once", method="rtn"), request_id="the-same")
        self.assertEqual(first.uid, again.uid)
        client.wait(first.name)

    def test_workers_and_server(self) -> None:
        client = self.client()
        self.assertEqual([worker.name for worker in client.workers()], ["workers/first"])
        self.assertTrue(client.info().active)

    def test_calls_and_watches_outlive_the_server(self) -> None:
        client = self.client()
        client.submit(self.settings("outage", epochs=60), job_id="outage")
        states: List[str] = []
        errors: List[BaseException] = []

        def watch() -> None:
            try:
                states.extend(update.job.state for update in client.watch("outage"))
            except BaseException as error:  # pylint: disable=broad-except
                errors.append(error)

        watcher = threading.Thread(target=watch)
        watcher.start()
        while not states:
            time.sleep(0.01)
        for _ in range(2):
            self.service.kill_server()
            starter = threading.Timer(1.0, self.service.start_server)
            starter.start()
            self.assertEqual(client.get("outage").id, "outage")  # asked while nobody answers
            starter.join()
        watcher.join(timeout=120)
        self.assertEqual(errors, [])
        self.assertEqual(states[-1], "SUCCEEDED")

    def test_nobody_there_is_said_within_the_timeout(self) -> None:
        start = time.monotonic()
        with uniquanf.Client("127.0.0.1:1", timeout=1.0) as client:
            with self.assertRaises(uniquanf.UnreachableError) as away:
                client.info()
        self.assertEqual(away.exception.reason, "SERVER_UNREACHABLE")
        self.assertLess(time.monotonic() - start, 3)
        with uniquanf.Client(f"127.0.0.1:1,{self.service.address}") as several:
            self.assertTrue(several.info().active)
        for wrong in ("localhost", "http://localhost:1"):
            with self.assertRaisesRegex(ValueError, "HOST:PORT"):
                uniquanf.Client(wrong)

    def test_async(self) -> None:
        async def run() -> None:
            async with uniquanf.AsyncClient(self.service.address) as client:
                job = await client.submit(self.settings("async", epochs=40), job_id="async", labels={"kind": "async"})
                states = []
                killed = False
                async for update in client.watch(job.name):
                    states.append(update.job.state)
                    if not killed and update.job.state == "RUNNING":
                        killed = True
                        self.service.kill_server()
                        threading.Timer(1.0, self.service.start_server).start()
                self.assertTrue(killed)
                self.assertEqual(states[-1], "SUCCEEDED")
                self.assertEqual([j.id async for j in client.list('labels.kind="async"')], ["async"])
                self.assertEqual((await client.wait("async")).id, "async")
                self.assertEqual(len(await client.tasks("async")), 6)
                self.assertTrue((await client.info()).active)
                self.assertEqual(len(await client.workers()), 1)
                await client.download("async", self.service.dir / "async-copy")
                with self.assertRaises(uniquanf.NotFoundError):
                    await client.get("nobody")
                with self.assertRaises(uniquanf.FailedPreconditionError):
                    await client.retry("async")
                await client.delete("async")

        asyncio.run(run())


class WithoutGrpcTest(unittest.TestCase):
    def test_the_rest_of_the_package_needs_no_grpc(self) -> None:
        import subprocess
        import sys
        program = ("import sys; sys.modules['grpc'] = None; sys.modules['google'] = None; import uniquanf; uniquanf.read_artifact\n"
                   "try: uniquanf.Client\nexcept ImportError as error: print(error)")
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        self.assertIn("python3-grpcio", out)


if __name__ == "__main__":
    unittest.main()
