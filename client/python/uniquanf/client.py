"""The sync client of the service: see Client."""

import datetime
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, TypeVar

import grpc

from . import _calls
from ._calls import METHODS, Options
from ._convert import (WatchState, create_request, error_of, info_of, job_name, job_of, task_of, worker_name, worker_of)
from ._download import download
from .errors import FailedPreconditionError, JobFailedError, NotFoundError, UniquanfError, UnreachableError, WaitTimeoutError
from .jobs import Job, ServerInfo, Task, Update, Worker
from .v1 import admin_service_pb2 as admin
from .v1 import job_service_pb2 as jobs

T = TypeVar("T")


class Client:
    """Talks to a server, or to several that share one state (one is active, the others take over).

        with uniquanf.Client("localhost:50051") as client:
            job = client.submit(model_uri="models/llama", calibration_uri="calib.txt", bits=3)
            job = client.wait(job.name)
            client.download(job, "llama-3bit")

    Calls are repeated while the server cannot be reached, within `timeout` seconds; a watch goes on trying for `watch_patience`
    seconds. A submission repeated so makes one job. Thread-safe. Errors: UniquanfError and what is derived from it (errors.py).
    """

    def __init__(self, server: str = "", *, tls: bool = False, ca_file: Optional[str] = None,
                 certificate_file: Optional[str] = None, key_file: Optional[str] = None, server_name: Optional[str] = None,
                 token: Optional[str] = None, timeout: float = 30.0, watch_patience: float = 300.0) -> None:
        """`server`: HOST:PORT, or several joined by commas; default: UNIQUANF_SERVER, else 127.0.0.1:50051. TLS is on with `tls` (the
        system's authorities), `ca_file` or a client certificate (PEM files). `token` is sent as a bearer token."""
        server = server or os.environ.get("UNIQUANF_SERVER", "") or "127.0.0.1:50051"
        self._options = Options(server, tls, ca_file, certificate_file, key_file, server_name, token, timeout, watch_patience)
        self._servers = self._options.servers()
        self._credentials = self._options.credentials()
        self._lock = threading.Lock()
        self._channels: Dict[str, Any] = {}
        self._current = 0  # of _servers

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls. The jobs go on."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    # Jobs

    def submit(self, spec: Optional[Mapping[str, Any]] = None, *, job_id: str = "", request_id: str = "", tenant: str = "",
               priority: int = 0, labels: Optional[Mapping[str, str]] = None, deadline: Optional[datetime.datetime] = None,
               time_to_live: Optional[float] = None, device: str = "", validate_only: bool = False, unchecked: bool = False, **settings: Any) -> Job:
        """Submits a job: settings by the names of docs/SPEC.md, in `spec` or as keywords, which win. Plain paths become absolute
        file:// URIs; the workers must see the same there. With `validate_only` nothing is created; with
        `unchecked` the server does not look whether what is named is there, since the workers alone see it."""
        request = create_request({**(spec or {}), **settings}, job_id=job_id, request_id=request_id or _calls.new_request_id(),
                                 tenant=tenant, priority=priority, labels=labels, deadline=deadline,
                                 time_to_live=time_to_live, device=device, validate_only=validate_only, unchecked=unchecked)
        return job_of(self._call("CreateJob", request))

    def get(self, job: str) -> Job:
        return job_of(self._call("GetJob", jobs.GetJobRequest(name=job_name(job))))

    def list(self, filter: str = "", *, order_by: str = "", page_size: int = 0) -> Iterator[Job]:
        """All jobs that match, page by page as they are needed; `filter` as in `state=RUNNING AND labels.team="x"`."""
        request = jobs.ListJobsRequest(filter=filter, order_by=order_by, page_size=page_size)
        while True:
            reply = self._call("ListJobs", request)
            yield from map(job_of, reply.jobs)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    def tasks(self, job: str) -> List[Task]:
        request = jobs.ListTasksRequest(parent=job_name(job))
        found: List[Task] = []
        while True:
            reply = self._call("ListTasks", request)
            found += map(task_of, reply.tasks)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    def watch(self, job: str, after_version: int = 0, *, timeout: Optional[float] = None) -> Iterator[Update]:
        """The job's state now, then at every change, until it is final. Goes on where it was after a server was away; ends with
        UnreachableError when that lasts for `watch_patience` seconds, and with WaitTimeoutError after `timeout` seconds."""
        state = WatchState(after_version)
        end = None if timeout is None else time.monotonic() + timeout
        away_since: Optional[float] = None
        attempt = 0
        while not state.final:
            request = jobs.WatchJobRequest(name=job_name(job), after_version=state.version)
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise WaitTimeoutError("DEADLINE_EXCEEDED", "WAIT_TIMED_OUT",
                                       f"{job_name(job)} was not final within {timeout} s; it goes on")
            call = self._stub("WatchJob", streams=True)(request, timeout=left, metadata=self._options.metadata())
            try:
                for response in call:
                    away_since, attempt = None, 0
                    update = state.take(response)
                    if update is not None:
                        yield update
                if not state.final:
                    self._next_server()  # it ended the stream without a final state: it is ending itself
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and end is not None:
                    continue
                if not _calls.may_retry(error):
                    raise error_of(error) from None
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since > self._options.watch_patience:
                    raise error_of(error) from None
                self._next_server()
                time.sleep(_calls.pause_after(attempt))
                attempt += 1
            finally:
                call.cancel()

    def wait(self, job: str, timeout: Optional[float] = None, *, check: bool = True) -> Job:
        """The job once it is final. With `check` one that did not succeed is a JobFailedError. WaitTimeoutError after `timeout`
        seconds; the job goes on."""
        last: Optional[Job] = None
        for update in self.watch(job, timeout=timeout):
            last = update.job
        if last is None:
            last = self.get(job)
        if check and last.state != "SUCCEEDED":
            raise JobFailedError(last)
        return last

    def cancel(self, job: str) -> Job:
        """Finished layers are kept: retry continues from them."""
        return job_of(self._call("CancelJob", jobs.CancelJobRequest(name=job_name(job))))

    def pause(self, job: str) -> Job:
        return job_of(self._call("PauseJob", jobs.PauseJobRequest(name=job_name(job))))

    def resume(self, job: str) -> Job:
        return self._repeatable("ResumeJob", jobs.ResumeJobRequest(name=job_name(job)), job, "JOB_NOT_PAUSED")

    def retry(self, job: str) -> Job:
        """Continues a failed or cancelled job from its finished layers."""
        return self._repeatable("RetryJob", jobs.RetryJobRequest(name=job_name(job)), job, "JOB_NOT_RETRYABLE")

    def delete(self, job: str, *, allow_missing: bool = False) -> None:
        """Deletes a final job and its working objects; a published artifact stays."""
        attempts: List[int] = []
        try:
            self._call("DeleteJob", jobs.DeleteJobRequest(name=job_name(job), allow_missing=allow_missing), attempts)
        except NotFoundError:
            if attempts[-1] == 0:  # else an earlier attempt, whose answer was lost, has deleted it
                raise

    def download(self, job: "Job | str", directory: "str | os.PathLike[str]") -> str:
        """Copies the artifact of a job that succeeded to a new directory, every digest checked, whole or not at all; returns the
        directory. The artifact must lie on a file system that this machine sees (for s3:// use `uniquanf download`)."""
        found = self.get(job) if isinstance(job, str) else job
        return download(found, directory)

    # Workers and server

    def workers(self) -> List[Worker]:
        request = admin.ListWorkersRequest()
        found: List[Worker] = []
        while True:
            reply = self._call("ListWorkers", request)
            found += map(worker_of, reply.workers)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    def drain(self, worker: str) -> Worker:
        return worker_of(self._call("DrainWorker", admin.DrainWorkerRequest(name=worker_name(worker))))

    def undrain(self, worker: str) -> Worker:
        return worker_of(self._call("UndrainWorker", admin.UndrainWorkerRequest(name=worker_name(worker))))

    def info(self) -> ServerInfo:
        return info_of(self._call("GetServerInfo", admin.GetServerInfoRequest()))

    # Inside

    def _stub(self, method: str, streams: bool = False) -> Callable[..., Any]:
        with self._lock:
            name = self._servers[self._current]
            channel = self._channels.get(name)
            if channel is None:
                options = self._options.channel_options()
                channel = (grpc.insecure_channel(name, options) if self._credentials is None
                           else grpc.secure_channel(name, self._credentials, options))
                self._channels[name] = channel
        service, reply = METHODS[method]
        make = channel.unary_stream if streams else channel.unary_unary
        stub: Callable[..., Any] = make(service + method, request_serializer=lambda message: message.SerializeToString(),
                                        response_deserializer=reply.FromString)
        return stub

    def _next_server(self) -> None:
        with self._lock:
            self._current = (self._current + 1) % len(self._servers)

    def _call(self, method: str, request: Any, attempts: Optional[List[int]] = None) -> Any:
        end = time.monotonic() + self._options.timeout
        attempt = 0
        while True:
            if attempts is not None:
                attempts.append(attempt)
            try:
                return self._stub(method)(request, timeout=max(0.001, end - time.monotonic()),
                                          metadata=self._options.metadata())
            except grpc.RpcError as error:
                pause = _calls.pause_after(attempt)
                if not _calls.may_retry(error) or time.monotonic() + pause >= end:
                    raise _explain(error, self._options.server) from None
            self._next_server()
            time.sleep(pause)
            attempt += 1

    def _repeatable(self, method: str, request: Any, job: str, done_reason: str) -> Job:
        attempts: List[int] = []
        try:
            return job_of(self._call(method, request, attempts))
        except FailedPreconditionError as error:
            # An earlier attempt, whose answer was lost, may have done it.
            if attempts[-1] > 0 and error.reason == done_reason:
                now = self.get(job)
                if now.state in ("QUEUED", "RUNNING"):
                    return now
            raise


def _explain(error: grpc.RpcError, server: str) -> UniquanfError:
    found = error_of(error)
    if isinstance(found, UnreachableError) and found.reason in ("SERVER_UNREACHABLE", "NO_ANSWER"):
        return UnreachableError(found.code, found.reason, f"no server answers at {server}: {found.message}")
    return found
