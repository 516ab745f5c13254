// The quantization methods as a user sees them. What each does with a layer's quantizer is a row of
// the worker's (worker/quant/method.h). Thread safety: constants.
#ifndef UNIQUANF_COMMON_SPEC_QUANTIZATION_METHODS_H_
#define UNIQUANF_COMMON_SPEC_QUANTIZATION_METHODS_H_

namespace uniquanf {

enum class QuantizationMethod { kUniquanf, kFlexround, kAlternating, kRtn };

struct MethodRow {
  QuantizationMethod value;
  const char* name;  // in flags and JSON; in the proto in capitals
  const char* help;
  bool reconstructs;  // optimizes blocks on calibration data, unless epochs is 0
};
inline constexpr MethodRow kQuantizationMethods[] = {
    {QuantizationMethod::kUniquanf, "uniquanf",
     "unified initialization and block reconstruction, all parts", true},
    {QuantizationMethod::kFlexround, "flexround", "uniform levels, learned rounding", true},
    {QuantizationMethod::kAlternating, "alternating",
     "binary coding by alternating update, no reconstruction", false},
    {QuantizationMethod::kRtn, "rtn", "min-max round to nearest", false},
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_QUANTIZATION_METHODS_H_
