// What all chaos runs share: a model of three small layers, its calibration tokens, and the bytes
// that an undisturbed batch run makes of them.
//
// Thread safety: thread-safe after construction.
#ifndef UNIQUANF_TESTS_FAULT_CHAOS_WORLD_H_
#define UNIQUANF_TESTS_FAULT_CHAOS_WORLD_H_

#include <map>
#include <string>

#include "common/spec/quantization_spec.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {

class ChaosWorld {
 public:
  static constexpr int kNumVariants = 2;  // layers in a chain; independent layers

  // Runs uniquanf-batch from `binary_dir` once for each variant; aborts when it fails.
  explicit ChaosWorld(const std::string& binary_dir);

  // All but the output.
  QuantizationSpec Spec(int variant) const;
  // Copies model and tokens below `uri` (s3://bucket/prefix) and points later specs there.
  void MoveInputsTo(const std::string& uri);
  const std::map<std::string, std::string>& Reference(int variant) const {
    return references_[variant];
  }

 private:
  TempDir dir_;
  std::string inputs_;  // URI
  std::map<std::string, std::string> references_[kNumVariants];
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_CHAOS_WORLD_H_
