"""The async client of the service: see AsyncClient."""

import asyncio
import datetime
import os
import time
from typing import Any, AsyncIterator, Callable, Dict, List, Mapping, Optional

import grpc
import grpc.aio

from . import _calls
from ._calls import METHODS, Options
from ._convert import (WatchState, create_request, error_of, info_of, job_name, job_of, task_of, worker_name, worker_of)
from ._download import download
from .client import _explain
from .errors import FailedPreconditionError, JobFailedError, NotFoundError, WaitTimeoutError
from .jobs import Job, ServerInfo, Task, Update, Worker
from .v1 import admin_service_pb2 as admin
from .v1 import job_service_pb2 as jobs


class AsyncClient:
    """The same as Client (client.py), for asyncio.

        async with uniquanf.AsyncClient("localhost:50051") as client:
            job = await client.submit(model_uri="models/llama", calibration_uri="calib.txt", bits=3)
            async for update in client.watch(job.name):
                print(update.job.progress.fraction)

    Belongs to the event loop in which it is used first.
    """

    def __init__(self, server: str = "", *, tls: bool = False, ca_file: Optional[str] = None,
                 certificate_file: Optional[str] = None, key_file: Optional[str] = None, server_name: Optional[str] = None,
                 token: Optional[str] = None, timeout: float = 30.0, watch_patience: float = 300.0) -> None:
        """As Client's."""
        server = server or os.environ.get("UNIQUANF_SERVER", "") or "127.0.0.1:50051"
        self._options = Options(server, tls, ca_file, certificate_file, key_file, server_name, token, timeout, watch_patience)
        self._servers = self._options.servers()
        self._credentials = self._options.credentials()
        self._channels: Dict[str, Any] = {}
        self._current = 0

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def submit(self, spec: Optional[Mapping[str, Any]] = None, *, job_id: str = "", request_id: str = "",
                     tenant: str = "", priority: int = 0, labels: Optional[Mapping[str, str]] = None,
                     deadline: Optional[datetime.datetime] = None, time_to_live: Optional[float] = None, device: str = "",
                     validate_only: bool = False, unchecked: bool = False, **settings: Any) -> Job:
        request = create_request({**(spec or {}), **settings}, job_id=job_id, request_id=request_id or _calls.new_request_id(),
                                 tenant=tenant, priority=priority, labels=labels, deadline=deadline,
                                 time_to_live=time_to_live, device=device, validate_only=validate_only, unchecked=unchecked)
        return job_of(await self._call("CreateJob", request))

    async def get(self, job: str) -> Job:
        return job_of(await self._call("GetJob", jobs.GetJobRequest(name=job_name(job))))

    async def list(self, filter: str = "", *, order_by: str = "", page_size: int = 0) -> AsyncIterator[Job]:
        request = jobs.ListJobsRequest(filter=filter, order_by=order_by, page_size=page_size)
        while True:
            reply = await self._call("ListJobs", request)
            for message in reply.jobs:
                yield job_of(message)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def tasks(self, job: str) -> List[Task]:
        request = jobs.ListTasksRequest(parent=job_name(job))
        found: List[Task] = []
        while True:
            reply = await self._call("ListTasks", request)
            found += map(task_of, reply.tasks)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    async def watch(self, job: str, after_version: int = 0, *, timeout: Optional[float] = None) -> AsyncIterator[Update]:
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
                async for response in call:
                    away_since, attempt = None, 0
                    update = state.take(response)
                    if update is not None:
                        yield update
                if not state.final:
                    self._next_server()
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
                await asyncio.sleep(_calls.pause_after(attempt))
                attempt += 1
            finally:
                call.cancel()

    async def wait(self, job: str, timeout: Optional[float] = None, *, check: bool = True) -> Job:
        last: Optional[Job] = None
        async for update in self.watch(job, timeout=timeout):
            last = update.job
        if last is None:
            last = await self.get(job)
        if check and last.state != "SUCCEEDED":
            raise JobFailedError(last)
        return last

    async def cancel(self, job: str) -> Job:
        return job_of(await self._call("CancelJob", jobs.CancelJobRequest(name=job_name(job))))

    async def pause(self, job: str) -> Job:
        return job_of(await self._call("PauseJob", jobs.PauseJobRequest(name=job_name(job))))

    async def resume(self, job: str) -> Job:
        return await self._repeatable("ResumeJob", jobs.ResumeJobRequest(name=job_name(job)), job, "JOB_NOT_PAUSED")

    async def retry(self, job: str) -> Job:
        return await self._repeatable("RetryJob", jobs.RetryJobRequest(name=job_name(job)), job, "JOB_NOT_RETRYABLE")

    async def delete(self, job: str, *, allow_missing: bool = False) -> None:
        attempts: List[int] = []
        try:
            await self._call("DeleteJob", jobs.DeleteJobRequest(name=job_name(job), allow_missing=allow_missing), attempts)
        except NotFoundError:
            if attempts[-1] == 0:
                raise

    async def download(self, job: "Job | str", directory: "str | os.PathLike[str]") -> str:
        found = await self.get(job) if isinstance(job, str) else job
        return await asyncio.get_running_loop().run_in_executor(None, download, found, directory)

    async def workers(self) -> List[Worker]:
        request = admin.ListWorkersRequest()
        found: List[Worker] = []
        while True:
            reply = await self._call("ListWorkers", request)
            found += map(worker_of, reply.workers)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    async def drain(self, worker: str) -> Worker:
        return worker_of(await self._call("DrainWorker", admin.DrainWorkerRequest(name=worker_name(worker))))

    async def undrain(self, worker: str) -> Worker:
        return worker_of(await self._call("UndrainWorker", admin.UndrainWorkerRequest(name=worker_name(worker))))

    async def info(self) -> ServerInfo:
        return info_of(await self._call("GetServerInfo", admin.GetServerInfoRequest()))

    def _stub(self, method: str, streams: bool = False) -> Callable[..., Any]:
        name = self._servers[self._current]
        channel = self._channels.get(name)
        if channel is None:
            options = self._options.channel_options()
            channel = (grpc.aio.insecure_channel(name, options) if self._credentials is None
                       else grpc.aio.secure_channel(name, self._credentials, options))
            self._channels[name] = channel
        service, reply = METHODS[method]
        make = channel.unary_stream if streams else channel.unary_unary
        stub: Callable[..., Any] = make(service + method, request_serializer=lambda message: message.SerializeToString(),
                                        response_deserializer=reply.FromString)
        return stub

    def _next_server(self) -> None:
        self._current = (self._current + 1) % len(self._servers)

    async def _call(self, method: str, request: Any, attempts: Optional[List[int]] = None) -> Any:
        end = time.monotonic() + self._options.timeout
        attempt = 0
        while True:
            if attempts is not None:
                attempts.append(attempt)
            try:
                return await self._stub(method)(request, timeout=max(0.001, end - time.monotonic()),
                                                metadata=self._options.metadata())
            except grpc.RpcError as error:
                pause = _calls.pause_after(attempt)
                if not _calls.may_retry(error) or time.monotonic() + pause >= end:
                    raise _explain(error, self._options.server) from None
            self._next_server()
            await asyncio.sleep(pause)
            attempt += 1

    async def _repeatable(self, method: str, request: Any, job: str, done_reason: str) -> Job:
        attempts: List[int] = []
        try:
            return job_of(await self._call(method, request, attempts))
        except FailedPreconditionError as error:
            if attempts[-1] > 0 and error.reason == done_reason:
                now = await self.get(job)
                if now.state in ("QUEUED", "RUNNING"):
                    return now
            raise
