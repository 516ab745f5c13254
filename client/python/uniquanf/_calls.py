"""What the sync and the async client share: options, methods, retries."""

import random
import uuid
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import grpc
from google.protobuf import empty_pb2

from .v1 import admin_service_pb2 as admin
from .v1 import job_pb2, job_service_pb2, task_pb2

_JOBS, _ADMIN = "/uniquanf.v1.JobService/", "/uniquanf.v1.AdminService/"
# Path and type of reply; the request knows how to serialize itself.
METHODS: Dict[str, Tuple[str, Any]] = {
    "CreateJob": (_JOBS, job_pb2.Job), "GetJob": (_JOBS, job_pb2.Job),
    "ListJobs": (_JOBS, job_service_pb2.ListJobsResponse), "WatchJob": (_JOBS, job_service_pb2.WatchJobResponse),
    "CancelJob": (_JOBS, job_pb2.Job), "RetryJob": (_JOBS, job_pb2.Job), "PauseJob": (_JOBS, job_pb2.Job),
    "ResumeJob": (_JOBS, job_pb2.Job), "DeleteJob": (_JOBS, empty_pb2.Empty), "GetTask": (_JOBS, task_pb2.Task),
    "ListTasks": (_JOBS, job_service_pb2.ListTasksResponse), "ListWorkers": (_ADMIN, admin.ListWorkersResponse),
    "DrainWorker": (_ADMIN, admin.Worker), "UndrainWorker": (_ADMIN, admin.Worker),
    "GetServerInfo": (_ADMIN, admin.ServerInfo),
}
_CHANNEL_OPTIONS: Sequence[Tuple[str, int]] = (
    # A server that is gone without a word is noticed within half a minute, also by a silent watch.
    ("grpc.keepalive_time_ms", 20000), ("grpc.keepalive_timeout_ms", 10000), ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_retries", 0),
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


@dataclass(frozen=True)
class Options:
    server: str
    tls: bool
    ca_file: Optional[str]
    certificate_file: Optional[str]
    key_file: Optional[str]
    server_name: Optional[str]
    token: Optional[str]
    timeout: float
    watch_patience: float

    def servers(self) -> List[str]:
        names = [name.strip() for name in self.server.split(",")]
        for name in names:
            if ":" not in name or "://" in name:
                raise ValueError(f"the server is {self.server!r}: give HOST:PORT, or several joined by commas")
        return names

    def metadata(self) -> Tuple[Tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel_options(self) -> List[Tuple[str, Any]]:
        options: List[Tuple[str, Any]] = list(_CHANNEL_OPTIONS)
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        return options

    def credentials(self) -> Optional[Any]:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file belong together")
        if not (self.tls or self.ca_file or self.certificate_file):
            return None
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.certificate_file))


def _read(path: Optional[str]) -> Optional[bytes]:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def pause_after(attempt: int) -> float:
    """Seconds until the next attempt: doubling, with jitter."""
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 10))) * random.uniform(0.5, 1.0)


def may_retry(error: grpc.RpcError) -> bool:
    """The server says so of UNAVAILABLE alone (a standby's answer, too); a call that is cut while a server ends comes as CANCELLED."""
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def new_request_id() -> str:
    return f"python-{uuid.uuid4().hex}"
