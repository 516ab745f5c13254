"""What goes wrong: with an artifact, with a call, with a job."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Tuple

if TYPE_CHECKING:
    from .jobs import Job


class ArtifactError(ValueError):
    """An artifact that cannot be used. `reason` is a stable word; the message names the thing."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True)
class Violation:
    """One field of a request that is wrong."""

    field: str  # path in the request: "job.spec.bits"
    description: str  # the value, and what is allowed


class UniquanfError(Exception):
    """A call that failed. `code` is gRPC's word ("NOT_FOUND"), `reason` the service's stable one ("JOB_NOT_FOUND"; "" for errors
    that gRPC itself made), `violations` all fields that are wrong."""

    def __init__(self, code: str, reason: str, message: str, violations: Tuple[Violation, ...] = ()) -> None:
        lines = [f"{message} [{reason or code}]"]
        lines += [f"  {v.field}: {v.description}" for v in violations]
        super().__init__("\n".join(lines))
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = violations


class NotFoundError(UniquanfError):
    """There is no such job, task or worker."""


class InvalidRequestError(UniquanfError, ValueError):
    """The request cannot be meant; `violations` says where."""


class AlreadyExistsError(UniquanfError):
    """The name is taken, or the request id was used with other content."""


class FailedPreconditionError(UniquanfError):
    """Not in the state that the job is in."""


class AccessError(UniquanfError, PermissionError):
    """The caller is unknown, or may not do this."""


class QuotaError(UniquanfError):
    """More than the tenant may have."""


class UnreachableError(UniquanfError, ConnectionError):
    """No server answers, or not in time."""


class WaitTimeoutError(UniquanfError, TimeoutError):
    """The job was not final within the time given; it goes on."""


class JobFailedError(UniquanfError):
    """The job ended, but not well; `job` is its last state."""

    def __init__(self, job: "Job") -> None:
        reason = job.error.reason if job.error else job.state
        message = job.error.message if job.error else f"{job.id} was cancelled"
        super().__init__(job.state, reason, message)
        self.job = job


BY_CODE = {
    "NOT_FOUND": NotFoundError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "ABORTED": FailedPreconditionError,
    "UNAUTHENTICATED": AccessError,
    "PERMISSION_DENIED": AccessError,
    "RESOURCE_EXHAUSTED": QuotaError,
    "UNAVAILABLE": UnreachableError,
    "DEADLINE_EXCEEDED": UnreachableError,
}
