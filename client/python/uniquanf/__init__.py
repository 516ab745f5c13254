"""Unified artifacts of uniquanf: reading them, and serving them with transformers."""

import importlib.util

from .artifact import Artifact, QuantizedModule, read_artifact
from .errors import ArtifactError

__all__ = ["Artifact", "ArtifactError", "QuantizedModule", "read_artifact"]
__version__ = "0.1.0"

if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
    from . import transformers_loader as _transformers_loader  # registers the quantizer

    _transformers_loader.register()
