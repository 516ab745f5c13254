"""uniquanf: clients of the quantization service, and its artifacts: reading them, serving them with transformers.

Client and AsyncClient need grpcio and protobuf, which are imported when they are used; all else needs neither.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from .artifact import Artifact, QuantizedModule, read_artifact
from .errors import (AccessError, AlreadyExistsError, ArtifactError, FailedPreconditionError, InvalidRequestError,
                     JobFailedError, NotFoundError, QuotaError, UniquanfError, UnreachableError, Violation, WaitTimeoutError)
from .jobs import Job, LossCurves, Report, Task, Update, Worker

if TYPE_CHECKING:
    from .aio import AsyncClient
    from .client import Client

__all__ = ["AccessError", "AlreadyExistsError", "Artifact", "ArtifactError", "AsyncClient", "Client", "FailedPreconditionError",
           "InvalidRequestError", "Job", "JobFailedError", "LossCurves", "NotFoundError", "QuantizedModule", "QuotaError", "Report",
           "Task", "UniquanfError", "UnreachableError", "Update", "Violation", "WaitTimeoutError", "Worker", "read_artifact"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    module = {"Client": "client", "AsyncClient": "aio"}.get(name)
    if module is None:
        raise AttributeError(f"module 'uniquanf' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("grpc", "google"):
            raise ImportError(f"uniquanf.{name} needs grpcio and protobuf: pip install 'uniquanf[client]', or on Debian apt install "
                              "python3-grpcio python3-protobuf") from error
        raise


if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
    from . import transformers_loader as _transformers_loader  # registers the quantizer

    _transformers_loader.register()
