// The paper's method, and those that it is compared with.
#include "worker/quant/method.h"

namespace uniquanf::quant::methods {

absl::Span<const Method> binary_coding() {
  static constexpr TrainedParts kAll = {.uniform = true, .binary = true};
  static constexpr TrainedParts kUniformOnly = {.uniform = true, .binary = false};
  static constexpr Method kRows[] = {
      {QuantizationMethod::kUniquanf, kAll, InitializeUnified},
      {QuantizationMethod::kFlexround, kUniformOnly, InitializeUniform},
      {QuantizationMethod::kAlternating, kUniformOnly, InitializeAlternating},
      {QuantizationMethod::kRtn, kUniformOnly, InitializeUniform},
  };
  return kRows;
}

}  // namespace uniquanf::quant::methods
