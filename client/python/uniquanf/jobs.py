"""What the service tells of jobs, tasks and workers, as plain values. Times are UTC, durations seconds; what is unknown is None."""

import datetime
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class JobError:
    reason: str
    message: str
    task: str


@dataclass(frozen=True)
class Progress:
    num_tasks: int
    num_tasks_succeeded: int
    num_layers: int
    num_layers_succeeded: int
    fraction: float  # 0..1, of estimated work
    remaining: Optional[float]  # seconds


@dataclass(frozen=True)
class ArtifactInfo:
    uri: str
    manifest_sha256: str
    size_bytes: int


@dataclass(frozen=True)
class LayerReport:
    layer: int
    bits: int  # 0: left in full precision
    block_error_before: Optional[float]  # mean squared error of the block's output; None: not measured
    block_error_after: Optional[float]
    duration: float


@dataclass(frozen=True)
class Report:
    perplexity_before: Optional[float]
    perplexity_after: Optional[float]
    num_evaluation_tokens: int
    model_size_bytes: int
    artifact_size_bytes: int
    average_bits: float
    duration: float
    warnings: Tuple[str, ...]
    layers: Tuple[LayerReport, ...]


@dataclass(frozen=True)
class Job:
    name: str  # "jobs/{id}"
    uid: str
    state: str
    version: int
    status_message: str  # why it does not get on
    error: Optional[JobError]
    tenant: str
    priority: int
    labels: Mapping[str, str]
    device: str
    create_time: Optional[datetime.datetime]
    start_time: Optional[datetime.datetime]
    end_time: Optional[datetime.datetime]
    update_time: Optional[datetime.datetime]
    deadline: Optional[datetime.datetime]
    time_to_live: Optional[float]
    progress: Progress
    spec: Mapping[str, Any]  # the settings in force, by the names of docs/SPEC.md
    artifact: Optional[ArtifactInfo]
    report: Optional[Report]

    @property
    def id(self) -> str:
        return self.name[len("jobs/"):]

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class Failure:
    failure_class: str
    reason: str
    message: str
    attempt: int
    worker: str
    time: Optional[datetime.datetime]


@dataclass(frozen=True)
class Task:
    name: str  # "jobs/{job}/tasks/{task}"
    kind: str
    layer: Optional[int]
    round: Optional[int]
    state: str
    attempt: int
    worker: str
    phase: str
    step: int
    num_steps: int
    block_error: Optional[float]  # the latest mean, while it is being reconstructed
    failures: Tuple[Failure, ...]
    start_time: Optional[datetime.datetime]
    end_time: Optional[datetime.datetime]


@dataclass(frozen=True)
class Worker:
    name: str
    process: str
    state: str
    status_message: str
    device: str
    device_description: str
    memory_bytes: int
    num_slots: int
    labels: Mapping[str, str]
    software_version: str
    last_seen_time: Optional[datetime.datetime]
    tasks: Tuple[str, ...]


@dataclass(frozen=True)
class ServerInfo:
    version: str
    active: bool
    state_backend: str
    object_root: str
    num_jobs: int
    num_tasks_ready: int
    num_tasks_leased: int


@dataclass(frozen=True)
class Update:
    """One change of a watched job: its state, and all of its tasks in the order of their names."""

    job: Job
    tasks: Tuple[Task, ...]


@dataclass
class LossCurves:
    """The block errors of layers while they are reconstructed, collected from a watch: the API tells the latest of each, so a curve
    begins where the watch began.

        curves = LossCurves()
        for update in client.watch(job):
            curves.add(update)
        curves.layers[0]  # [(step, block error), ...]
    """

    layers: Dict[int, List[Tuple[int, float]]] = field(default_factory=dict)

    def add(self, update: Update) -> None:
        for task in update.tasks:
            if task.layer is None or task.block_error is None:
                continue
            curve = self.layers.setdefault(task.layer, [])
            if not curve or curve[-1][0] != task.step:
                curve.append((task.step, task.block_error))
