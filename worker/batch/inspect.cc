// `uniquanf-batch inspect`: what is in an artifact.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/artifact/artifact_reader.h"
#include "common/base/format_bytes.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {
namespace {

uint64_t TotalBytes(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const ManifestFile& file : manifest.files) bytes += file.size_bytes;
  return bytes;
}

void PrintJson(const Manifest& manifest) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(manifest.ToJson());
  json["average_bits"] = manifest.AverageBits();
  json["size_bytes"] = TotalBytes(manifest);
  PrintJsonLine(json);
}

void PrintText(const Manifest& manifest) {
  const QuantizationSpec& spec = manifest.spec;
  std::printf("Model          %s, %d layers\n", PrintableText(manifest.model.architecture).c_str(),
              manifest.model.num_layers);
  std::printf(
      "Method         %s, %d bits, %s\n", std::string(QuantizationMethodName(spec.method)).c_str(),
      spec.bits,
      spec.group_size == 0 ? "per row" : absl::StrCat("groups of ", spec.group_size).c_str());
  std::printf("Stored         %s in %zu files; %.3f bits a quantized weight\n",
              FormatBytes(TotalBytes(manifest)).c_str(), manifest.files.size(),
              manifest.AverageBits());
  for (const ManifestDequantized& source : manifest.origin.dequantized) {
    std::printf("Original       %lld tensors %s, read as %s\n",
                static_cast<long long>(source.num_tensors), PrintableText(source.form).c_str(),
                PrintableText(source.dtype).c_str());
  }
  if (manifest.evaluation.has_value()) {
    std::printf("Perplexity     %.4f before, %.4f after, on %lld tokens\n",
                manifest.evaluation->perplexity_before, manifest.evaluation->perplexity_after,
                static_cast<long long>(manifest.evaluation->num_tokens));
  }
  std::printf("Made by        uniquanf %s on %s\n",
              PrintableText(manifest.software_version).c_str(),
              PrintableText(manifest.environment).c_str());
  std::printf("AnyBCQ         %s\n", manifest.anybcq_omitted.empty()
                                         ? "config.json has the section its runtime reads"
                                         : PrintableText(manifest.anybcq_omitted).c_str());
  std::printf("\n%5s  %18s  %14s\n", "layer", "block error before", "after");
  for (const ManifestLayer& layer : manifest.layers) {
    std::printf("%5d  %18.4e  %14.4e\n", layer.layer, layer.initial_loss, layer.final_loss);
  }
  std::printf("\n%-40s  %13s  %4s  %6s  %12s\n", "module", "shape", "bits", "group",
              "weight error");
  for (const ManifestModule& module : manifest.modules) {
    const std::string shape = absl::StrCat(module.num_outputs, "x", module.num_inputs);
    if (module.quantized) {
      std::printf("%-40s  %13s  %4d  %6lld  %12.4e\n", PrintableText(module.name).c_str(),
                  shape.c_str(), module.bits, static_cast<long long>(module.group_size),
                  module.weight_error);
    } else {
      std::printf("%-40s  %13s  full precision: %s\n", PrintableText(module.name).c_str(),
                  shape.c_str(), PrintableText(module.reason).c_str());
    }
  }
}

}  // namespace

int Inspect(const std::vector<std::string>& arguments) {
  std::string artifact;
  bool json = false;
  FlagSet flag_set(
      "uniquanf-batch inspect ARTIFACT [flags]",
      "Shows what is in an artifact: settings, bits, bytes, errors per layer and module.");
  flag_set.Positional("ARTIFACT", true, &artifact, "the artifact's directory");
  flag_set.Bool("json", &json, "print JSON");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  const auto store = OpenObjectStore(AbsoluteUri(artifact));
  if (!store.ok()) return Fail(store.status(), json);
  const auto reader = ArtifactReader::Open(*store);
  if (!reader.ok()) return Fail(reader.status(), json);
  json ? PrintJson((*reader)->manifest()) : PrintText((*reader)->manifest());
  return kOk;
}

}  // namespace uniquanf::batch
