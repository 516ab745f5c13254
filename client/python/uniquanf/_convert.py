"""The API's messages as the values of jobs.py, and back."""

import datetime
import os
import pathlib
from typing import Any, Dict, Mapping, Optional, Tuple, Type

import grpc
from google.protobuf import json_format

from .errors import BY_CODE, InvalidRequestError, UniquanfError, Violation
from .jobs import (ArtifactInfo, Failure, Job, JobError, LayerReport, Progress, Report, ServerInfo, Task, Update, Worker)
from .v1 import admin_service_pb2, job_pb2, job_service_pb2, rpc_error_details_pb2, rpc_status_pb2, task_pb2

_DOMAIN = "uniquanf"
_DETAILS = "grpc-status-details-bin"
_ALL_LAYERS = 100_000  # of distill_window


def _time(message: Any, name: str) -> Optional[datetime.datetime]:
    if not message.HasField(name):
        return None
    result: datetime.datetime = getattr(message, name).ToDatetime(tzinfo=datetime.timezone.utc)
    return result


def _seconds(message: Any, name: str) -> Optional[float]:
    return float(getattr(message, name).ToTimedelta().total_seconds()) if message.HasField(name) else None


def _enum(message: Any, name: str) -> str:
    descriptor = message.DESCRIPTOR.fields_by_name[name].enum_type
    value = descriptor.values_by_number.get(getattr(message, name))
    return "UNKNOWN" if value is None else str(value.name)


def _report(message: Any) -> Report:
    layers = tuple(
        LayerReport(layer=l.layer, bits=l.bits, block_error_before=l.initial_loss or None,
                    block_error_after=l.final_loss if l.initial_loss else None, duration=_seconds(l, "duration") or 0.0)
        for l in message.layers)
    return Report(
        perplexity_before=message.perplexity_before if message.HasField("perplexity_before") else None,
        perplexity_after=message.perplexity_after if message.HasField("perplexity_after") else None,
        num_evaluation_tokens=message.num_evaluation_tokens, model_size_bytes=message.model_size_bytes,
        artifact_size_bytes=message.artifact_size_bytes, average_bits=message.average_bits,
        duration=_seconds(message, "duration") or 0.0, warnings=tuple(message.warnings), layers=layers)


def _spec(message: Any) -> Dict[str, Any]:
    spec: Dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.name == "overrides":
            spec["overrides"] = [{d.name: v for d, v in entry.ListFields()} for entry in value]
        elif descriptor.enum_type is not None:
            spec[descriptor.name] = _enum(message, descriptor.name).lower()
        else:
            spec[descriptor.name] = value
    return spec


def job_of(message: job_pb2.Job) -> Job:
    progress = message.progress
    return Job(
        name=message.name, uid=message.uid, state=_enum(message, "state"), version=message.version,
        status_message=message.status_message,
        error=(JobError(message.error.reason, message.error.message, message.error.task) if message.HasField("error") else None),
        tenant=message.tenant, priority=message.priority, labels=dict(message.labels), device=message.device,
        create_time=_time(message, "create_time"), start_time=_time(message, "start_time"), end_time=_time(message, "end_time"),
        update_time=_time(message, "update_time"), deadline=_time(message, "deadline"),
        time_to_live=_seconds(message, "time_to_live"),
        progress=Progress(progress.num_tasks, progress.num_tasks_succeeded, progress.num_layers, progress.num_layers_succeeded,
                          progress.fraction, _seconds(progress, "remaining")),
        spec=_spec(message.spec),
        artifact=(ArtifactInfo(message.artifact.uri, message.artifact.manifest_sha256, message.artifact.size_bytes)
                  if message.HasField("artifact") else None),
        report=_report(message.report) if message.HasField("report") else None)


def task_of(message: task_pb2.Task) -> Task:
    is_layer = message.kind == task_pb2.Task.LAYER
    progress = message.progress
    failures = tuple(
        Failure(_enum(f, "failure_class"), f.reason, f.message, f.attempt, f.worker, _time(f, "time")) for f in message.failures)
    return Task(
        name=message.name, kind=_enum(message, "kind"), layer=message.layer if is_layer else None,
        round=message.round if is_layer else None, state=_enum(message, "state"), attempt=message.attempt, worker=message.worker,
        phase=progress.phase, step=progress.step, num_steps=progress.num_steps, block_error=progress.loss or None,
        failures=failures, start_time=_time(message, "start_time"), end_time=_time(message, "end_time"))


def worker_of(message: admin_service_pb2.Worker) -> Worker:
    has = message.capabilities
    return Worker(
        name=message.name, process=message.process, state=_enum(message, "state"), status_message=message.status_message,
        device=has.device, device_description=has.device_description, memory_bytes=has.memory_bytes, num_slots=has.num_slots,
        labels=dict(has.labels), software_version=message.software_version, last_seen_time=_time(message, "last_seen_time"),
        tasks=tuple(message.tasks))


def info_of(message: admin_service_pb2.ServerInfo) -> ServerInfo:
    return ServerInfo(message.version, message.active, message.state_backend, message.object_root, message.num_jobs,
                      message.num_tasks_ready, message.num_tasks_leased)


class WatchState:
    """What a watch has seen: where it resumes, and all tasks."""

    def __init__(self, after_version: int) -> None:
        self.version = after_version
        self.final = False
        self._uid = ""
        self._tasks: Dict[str, Task] = {}

    def take(self, response: job_service_pb2.WatchJobResponse) -> Optional[Update]:
        """The update, or None where more of this version follows."""
        job = job_of(response.job)
        if self._uid and job.uid != self._uid:
            raise UniquanfError("ABORTED", "JOB_REPLACED", f"{job.name} was deleted, and its name used again")
        self._uid = job.uid
        for message in response.tasks:
            task = task_of(message)
            self._tasks[task.name] = task
        if response.more:
            return None
        self.version = job.version
        self.final = job.final
        return Update(job, tuple(self._tasks[name] for name in sorted(self._tasks)))


def error_of(error: grpc.RpcError) -> UniquanfError:
    """The error that a gRPC call raised, with what its details say."""
    code = error.code().name
    message = error.details() or ""
    reason = ""
    violations: Tuple[Violation, ...] = ()
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        status = rpc_status_pb2.Status.FromString(value)
        for detail in status.details:
            kind = detail.type_url.rpartition("/")[2]
            if kind == "google.rpc.ErrorInfo":
                info = rpc_error_details_pb2.ErrorInfo.FromString(detail.value)
                if info.domain == _DOMAIN:
                    reason = info.reason
            elif kind == "google.rpc.BadRequest":
                bad = rpc_error_details_pb2.BadRequest.FromString(detail.value)
                violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
    if not reason and code == "UNAVAILABLE":
        reason = "SERVER_UNREACHABLE"
    if not reason and code == "DEADLINE_EXCEEDED":
        reason = "NO_ANSWER"
    kind_of: Type[UniquanfError] = BY_CODE.get(code, UniquanfError)
    return kind_of(code, reason, message, violations)


def absolute_uri(path: "str | os.PathLike[str]") -> str:
    """A plain path as file:///...; the server and the workers must see the same there."""
    text = os.fspath(path)
    return text if "://" in text or not text else pathlib.Path(text).absolute().as_uri()


def spec_to_message(settings: Mapping[str, Any]) -> job_pb2.QuantizationSpec:
    """Settings by the names of docs/SPEC.md; enum values in lower case as there; places may be paths."""
    known = job_pb2.QuantizationSpec.DESCRIPTOR.fields_by_name
    plain: Dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise InvalidRequestError("INVALID_ARGUMENT", "INVALID_SPEC", f"there is no setting {name!r}; known are: "
                                      + ", ".join(sorted(known)), (Violation(f"job.spec.{name}", "unknown setting"),))
        if known[name].enum_type is not None:
            value = str(value).upper()
        elif name.endswith("_uri"):
            value = absolute_uri(value)
        elif name == "distill_window" and value == "all":
            value = _ALL_LAYERS
        plain[name] = value
    try:
        message = job_pb2.QuantizationSpec()
        json_format.ParseDict(plain, message)
        return message
    except json_format.ParseError as error:
        raise InvalidRequestError("INVALID_ARGUMENT", "INVALID_SPEC", str(error)) from None


def create_request(spec: Mapping[str, Any], *, job_id: str, request_id: str, tenant: str, priority: int,
                   labels: Optional[Mapping[str, str]], deadline: Optional[datetime.datetime],
                   time_to_live: Optional[float], device: str, validate_only: bool, unchecked: bool) -> job_service_pb2.CreateJobRequest:
    request = job_service_pb2.CreateJobRequest(job_id=job_id, request_id=request_id, validate_only=validate_only, unchecked=unchecked)
    job = request.job
    job.spec.CopyFrom(spec_to_message(spec))
    job.tenant, job.priority, job.device = tenant, priority, device
    job.labels.update(labels or {})
    if deadline is not None:
        job.deadline.FromDatetime(deadline)
    if time_to_live is not None:
        job.time_to_live.FromTimedelta(datetime.timedelta(seconds=time_to_live))
    return request


def job_name(name: str) -> str:
    return name if name.startswith("jobs/") else f"jobs/{name}"


def worker_name(name: str) -> str:
    return name if name.startswith("workers/") else f"workers/{name}"
