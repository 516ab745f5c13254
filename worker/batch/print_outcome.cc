#include "worker/batch/print_outcome.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "common/base/format_bytes.h"
#include "common/base/printable.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {

void PrintJson(const FinalizeOutcome& outcome) {
  nlohmann::ordered_json json;
  json["artifact"] = ToJson(outcome.artifact);
  json["report"] = ToJson(outcome.report);
  PrintJsonLine(json);
}

void PrintReport(const FinalizeOutcome& outcome) {
  const JobReport& report = outcome.report;
  std::printf("\nArtifact       %s\n", outcome.artifact.uri.c_str());
  std::printf("Manifest       sha256 %s\n", outcome.artifact.manifest_sha256.c_str());
  std::printf("Size           %s, from %s; %.2f bits a quantized weight\n",
              FormatBytes(report.artifact_size_bytes).c_str(),
              FormatBytes(report.model_size_bytes).c_str(), report.average_bits);
  if (report.perplexity_before.has_value()) {
    std::printf("Perplexity     %.4f before, %.4f after, on %lld tokens\n",
                *report.perplexity_before, *report.perplexity_after,
                static_cast<long long>(report.num_evaluation_tokens));
  }
  for (const WindowReport& window : report.windows) {
    std::printf("Distilled      layers %d to %d: divergence %.4f before, %.4f after\n",
                window.first_layer, window.first_layer + window.num_layers - 1,
                window.initial_divergence, window.final_divergence);
  }
  if (report.quality.has_value()) {
    std::printf("Quality        %s\n", PrintableText(report.quality->verdict).c_str());
    if (report.quality->num_compared_tokens > 0) {
      std::printf("Divergence     %.4f nats a token from the original, on %lld tokens\n",
                  report.quality->divergence,
                  static_cast<long long>(report.quality->num_compared_tokens));
    }
  }
  std::printf("Computed for   %.1f s\n", absl::ToDoubleSeconds(report.duration));
  for (const std::string& warning : report.warnings)
    std::printf("Warning        %s\n", PrintableText(warning).c_str());
}

}  // namespace uniquanf::batch
