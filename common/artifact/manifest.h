// The artifact's manifest, "manifest.json" (FORMAT.md, "Manifest"): what was asked for, what became
// of every linear layer, and size and SHA-256 of every file. Written last: an artifact without one
// is not finished. Everything in it is deterministic; facts of a run lie in the attachments.
//
// Thread safety: plain values. Errors: kInvalidArgument (INVALID_MANIFEST) names the field.
#ifndef UNIQUANF_COMMON_ARTIFACT_MANIFEST_H_
#define UNIQUANF_COMMON_ARTIFACT_MANIFEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/artifact/text_provenance.h"
#include "common/object_store/object_store.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {

inline constexpr char kManifestKey[] = "manifest.json";
// Beside the files of an artifact that is being written; its content is the digest of the plan
// whose finalize task is at work. It goes once the manifest is there, or stays, and then means
// nothing, when its writer was killed between the two.
inline constexpr char kOutputMarkerKey[] = "uniquanf-incomplete";
inline constexpr uint64_t kMaxManifestBytes = uint64_t{256} << 20;

// What the artifact was made of.
struct ManifestModel {
  std::string architecture;        // "LlamaForCausalLM"
  int num_layers = 0;              // decoder blocks
  std::string config_sha256;       // of the source's config.json
  std::string tensors_sha256;      // of the source's tensor names, dtypes and shapes
  std::string weights_sha256;      // of the source's linear weights; "" where not known
  std::string calibration_sha256;  // of the calibration tokens; "" where the method uses none
  std::string plan_sha256;         // of the job's plan: the fingerprint that guards resuming
};

// Tensors of the source that were stored in fewer bits, and were read as what they stand for.
struct ManifestDequantized {
  std::string form;   // how they were stored: "F8_E4M3, a scale for 128 x 128"
  std::string dtype;  // what their values were rounded to: "BF16"
  int64_t num_tensors = 0;
};

// What else is known of where the artifact comes from.
struct ManifestOrigin {
  std::vector<ManifestDequantized> dequantized;
  std::string evaluation_sha256;      // of the evaluation's tokens; "" where there was none
  std::vector<std::string> left_out;  // files of the source's folder that are not in the artifact

  bool empty() const {
    return dequantized.empty() && evaluation_sha256.empty() && left_out.empty();
  }
};

// One linear layer of the source, the LM head included.
struct ManifestModule {
  std::string name;  // "model.layers.3.mlp.down_proj"
  int64_t num_outputs = 0, num_inputs = 0;
  bool quantized = false;
  // Quantized only.
  int bits = 0;
  int64_t group_size = 0;     // columns, never 0; num_inputs: per row
  double weight_error = 0;    // mean (w − ŵ)² of the weights as stored
  int64_t num_saturated = 0;  // scale factors and shifts clamped to fp16's range
  // Full precision only: why. Not empty.
  std::string reason;
};

// How well a decoder block was reconstructed: mean squared error of its output.
struct ManifestLayer {
  int layer = 0;
  double initial_loss = 0;  // as initialized
  double final_loss = 0;    // as stored
};

struct ManifestEvaluation {
  double perplexity_before = 0;
  double perplexity_after = 0;
  int64_t num_tokens = 0;
};

struct ManifestFile {
  std::string path;  // an object key below the artifact
  uint64_t size_bytes = 0;
  std::string sha256;
};

struct Manifest {
  std::string software_version;
  std::string environment;  // Backend::description() of those that ran the job
  QuantizationSpec spec;
  ManifestModel model;
  ManifestOrigin origin;
  std::vector<ManifestModule> modules;
  std::vector<ManifestLayer> layers;
  std::optional<ManifestEvaluation> evaluation;
  // What calibration and evaluation tokens were made of; nothing where they came as token files.
  std::optional<TextProvenance> calibration_text, evaluation_text;
  // Why config.json has no "anybcq" section; "" when it has one.
  std::string anybcq_omitted;
  std::vector<ManifestFile> files;       // every digested file; ToJson sorts them by path
  std::vector<std::string> attachments;  // files that lie beside and are not digested; sorted too

  // Canonical JSON: fixed order, one member a line; equal manifests give equal bytes.
  std::string ToJson() const;
  // Strict, for untrusted bytes: unknown or missing fields, wrong types, bad keys, repeated paths
  // or modules, impossible shapes are errors.
  static absl::StatusOr<Manifest> FromJson(absl::string_view json);

  // The module's entry, or null. A linear search.
  const ManifestModule* FindModule(absl::string_view name) const;
  // Bits of all quantized weights over their number, scale factors and shifts (fp16) included,
  // q_bias not; 0 where nothing is quantized.
  double AverageBits() const;
};

// Reads and parses the manifest at the root of `store`. Errors: kNotFound (ARTIFACT_NOT_FOUND) when
// there is none, INVALID_MANIFEST, store errors.
absl::StatusOr<Manifest> ReadManifest(ObjectStore* store);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_MANIFEST_H_
