"""Teaches transformers the format: AutoModelForCausalLM.from_pretrained(ARTIFACT)."""

import os
from typing import Any, Dict, List, Optional

import torch
from torch import nn
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from .errors import ArtifactError
from .manifest import parse_manifest
from .torch_linear import PackedLinear

_registered = False


class UniquanfConfig(QuantizationConfigMixin):
    """quantization_config of an artifact's config.json. `modules` holds bits and group size of every
    quantized layer: taken from the manifest, and written by save_pretrained, which has none."""

    def __init__(self, bits: int = 0, group_size: int = 0, format_version: int = 1,
                 modules_to_not_convert: Optional[List[str]] = None,
                 modules: Optional[Dict[str, List[int]]] = None, **_: Any) -> None:
        if format_version != 1:
            raise ArtifactError("INVALID_ARTIFACT", f"quantization_config.format_version is "
                                f"{format_version!r}; this reader knows 1")
        self.quant_method = "uniquanf"
        self.bits = bits
        self.group_size = group_size
        self.format_version = format_version
        self.modules_to_not_convert = modules_to_not_convert or []
        self.modules = modules


def _modules_of(directory: str) -> Dict[str, List[int]]:
    path = os.path.join(directory, "manifest.json")
    if not os.path.exists(path):
        raise ArtifactError("ARTIFACT_NOT_FOUND", f'"{directory}" holds no manifest.json, and '
                            "config.json names no modules: the layers' bits are not known")
    with open(path, "rb") as file:
        manifest = parse_manifest(file.read())
    return {m.name: [m.bits, m.group_size] for m in manifest.modules if m.bits}


class UniquanfQuantizer(HfQuantizer):
    """Replaces the quantized linear layers before weights are loaded; nothing is done after."""

    requires_calibration = True  # artifacts are made by uniquanf, not by from_pretrained

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        if config.modules is None:
            config.modules = _modules_of(getattr(model, "name_or_path", "") or
                                         model.config._name_or_path)
        for name, (bits, group_size) in config.modules.items():
            parent_name, _, child = name.rpartition(".")
            try:
                parent = model.get_submodule(parent_name)
                linear = parent.get_submodule(child)
            except AttributeError:
                raise ArtifactError("INVALID_ARTIFACT", f'the model has no module "{name}"') \
                    from None
            if not isinstance(linear, nn.Linear):
                raise ArtifactError("INVALID_ARTIFACT",
                                    f'"{name}" is a {type(linear).__name__}, not a Linear')
            if linear.in_features % group_size or not 2 <= bits <= 8:
                raise ArtifactError("INVALID_ARTIFACT", f'"{name}": {bits} bits in groups of '
                                    f"{group_size} for {linear.in_features} inputs")
            with torch.device("meta"):
                packed = PackedLinear(linear.in_features, linear.out_features, bits, group_size,
                                      linear.bias is not None, linear.weight.dtype)
            setattr(parent, child, packed)
        model.config.quantization_config = config
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        return model

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def register() -> None:
    """Once a process."""
    global _registered
    if not _registered:
        _registered = True
        register_quantization_config("uniquanf")(UniquanfConfig)
        register_quantizer("uniquanf")(UniquanfQuantizer)
