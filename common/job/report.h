// What became of a job: quality, sizes and times. Said once for the engine, the API, the client and
// everything that is printed as JSON. Thread safety: plain values.
#ifndef UNIQUANF_COMMON_JOB_REPORT_H_
#define UNIQUANF_COMMON_JOB_REPORT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/job/job.h"
#include "common/job/loss_history.h"

namespace uniquanf {

struct LayerReport {
  int layer = 0;
  double initial_loss = 0;  // mean squared error of the block's output before reconstruction
  double final_loss = 0;    // ... and as stored, before distillation
  int bits = 0;             // the most common in the layer; 0: left in full precision
  absl::Duration duration;
  LossHistory history = {};  // empty in what comes from the API: GetJobMetrics has it
};

// A window of layers that was distilled: mean divergence KL(original ‖ quantized) of the next-token
// distributions over held-back calibration tokens, nats a token.
struct WindowReport {
  int first_layer = 0;
  int num_layers = 0;
  double initial_divergence = 0, final_divergence = 0;
  absl::Duration duration;
  LossHistory history = {};  // likewise
};

// What the original and the artifact write after the same beginning, the most probable token each
// time.
struct TextSample {
  std::string prompt, before, after;
};

// How far the artifact is from the original on evaluation tokens.
struct QualityReport {
  double divergence = 0;      // mean KL(original ‖ artifact) of the next token, nats a token
  double same_top_token = 0;  // part of the tokens at which both find the same one most probable
  int64_t num_compared_tokens = 0;
  std::optional<double> baseline_perplexity;  // of EvaluationBaseline
  std::string verdict;                        // all of it in a sentence
  std::vector<TextSample> texts;              // none without a tokenizer, or where memory is short
};

struct JobReport {
  std::optional<double> perplexity_before, perplexity_after;  // none without evaluation tokens
  int64_t num_evaluation_tokens = 0;
  std::optional<QualityReport> quality;  // none without evaluation tokens
  std::vector<LayerReport> layers;
  std::vector<WindowReport> windows;  // empty where nothing was distilled
  int64_t model_size_bytes = 0;       // of the source checkpoint's tensors
  int64_t artifact_size_bytes = 0;
  double average_bits = 0;  // stored bits a weight over quantized modules, scales included
  absl::Duration duration;  // sum of the tasks' running times
  std::vector<std::string> warnings;
};

// The report as every program prints and stores it: all members, null for what is not known or no
// finite number, durations in seconds.
nlohmann::ordered_json ToJson(const JobReport& report);
nlohmann::ordered_json ToJson(const ArtifactInfo& artifact);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_JOB_REPORT_H_
