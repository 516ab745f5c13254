// The paper's method, and those that it is compared with.
#include "worker/quant/method.h"

namespace uniquanf::quant::methods {

absl::Span<const Method> binary_coding() {
  static constexpr TrainedParts kAll = {.uniform = true, .binary = true};
  static constexpr TrainedParts kUniformOnly = {.uniform = true, .binary = false};
  static constexpr Method kRows[] = {
      {QuantizationMethod::kUniquanf, kAll, InitializeUnified, UniformStarts::kAll},
      {QuantizationMethod::kFlexround, kUniformOnly, InitializeUniform,
       UniformStarts::kWholeZeroPoints},
      {QuantizationMethod::kAlternating, kUniformOnly, InitializeAlternating, UniformStarts::kAll},
      {QuantizationMethod::kRtn, kUniformOnly, InitializeUniform, UniformStarts::kNone},
  };
  return kRows;
}

}  // namespace uniquanf::quant::methods
