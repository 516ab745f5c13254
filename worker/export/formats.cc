// The export formats, one row each.
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/export/export_format.h"
#include "worker/export/gguf_types.h"

namespace uniquanf {

const std::vector<ExportFormatRow>& ExportFormats() {
  static const std::vector<ExportFormatRow> rows = {
      {"dequantized", "an ordinary bf16 checkpoint, which every runtime loads", NewDequantizedBf16,
       nullptr},
      {"dequantized-fp16", "the same in fp16", NewDequantizedFp16, nullptr},
      {"gptq", "GPTQ version 2, 2, 3, 4 or 8 bits (GPTQModel, vLLM)", NewGptqV2, nullptr},
      {"gptq-v1", "GPTQ version 1 (AutoGPTQ, vLLM, SGLang)", NewGptqV1, nullptr},
      {"awq", "AWQ's GEMM form, 4 bits (AutoAWQ, vLLM, SGLang)", NewAwq, nullptr},
      {"compressed-tensors", "pack-quantized with zero points, 4 or 8 bits (vLLM)",
       NewCompressedTensors, nullptr},
      {"compressed-tensors-sym", "the same, symmetric", NewCompressedTensorsSymmetric, nullptr},
      {"any-precision", "Any-Precision LLM and GuidedQuant, whole rows", NewAnyPrecision, nullptr},
      {"lut-gemm", "LUT-GEMM kernels", NewLutGemm, nullptr},
      {"anybcq", "AnyBCQ's runtime", NewAnyBcq, nullptr},
      {"gguf-f16", "one GGUF file for llama.cpp, weights in F16", nullptr, &kGgufF16},
      {"gguf-q8_0", "the same in Q8_0", nullptr, &kGgufQ80},
      {"gguf-q4_0", "the same in Q4_0", nullptr, &kGgufQ40},
      {"gguf-q4_1", "the same in Q4_1: exact for uniform levels of up to 4 bits", nullptr,
       &kGgufQ41},
      {"gguf-q5_0", "the same in Q5_0", nullptr, &kGgufQ50},
      {"gguf-q5_1", "the same in Q5_1: exact for uniform levels of up to 5 bits", nullptr,
       &kGgufQ51},
  };
  return rows;
}

absl::Status NotPossible(absl::string_view module, absl::string_view rule) {
  return InvalidInput("EXPORT_NOT_POSSIBLE", absl::StrCat("module ", module, ": ", rule));
}

std::vector<std::string> FullPrecisionModules(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const ManifestModule& module : manifest.modules) {
    if (!module.quantized) names.push_back(module.name);
  }
  return names;
}

}  // namespace uniquanf
