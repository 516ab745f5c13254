// The quantization methods as a user sees them. What each does with a layer's quantizer is a row of
// the worker's (worker/quant/method.h). Thread safety: constants.
#ifndef UNIQUANF_COMMON_SPEC_QUANTIZATION_METHODS_H_
#define UNIQUANF_COMMON_SPEC_QUANTIZATION_METHODS_H_

namespace uniquanf {

enum class QuantizationMethod { kUniquanf, kFlexround, kAlternating, kRtn, kGptq, kAwq };

struct MethodRow {
  QuantizationMethod value;
  const char* name;  // in flags and JSON; in the proto in capitals
  const char* help;
  bool calibrates;  // works on a block's calibration inputs (if it trains, unless epochs is 0)
  bool trains;      // in steps
  bool uniform;     // its levels are a uniform grid with a whole zero point
};
inline constexpr MethodRow kQuantizationMethods[] = {
    {QuantizationMethod::kUniquanf, "uniquanf",
     "unified initialization and block reconstruction, all parts", true, true, false},
    {QuantizationMethod::kFlexround, "flexround", "uniform levels, learned rounding", true, true,
     true},
    {QuantizationMethod::kAlternating, "alternating",
     "binary coding by alternating update, no reconstruction", false, false, false},
    {QuantizationMethod::kRtn, "rtn", "min-max round to nearest", false, false, true},
    {QuantizationMethod::kGptq, "gptq",
     "uniform levels, column after column in the order of their inputs' size, errors made up for "
     "by "
     "the columns that follow",
     true, false, true},
    {QuantizationMethod::kAwq, "awq",
     "uniform levels, channels scaled by a searched power of their inputs' size, clipped", true,
     false, true},
};

constexpr const MethodRow& RowOf(QuantizationMethod method) {
  for (const MethodRow& row : kQuantizationMethods) {
    if (row.value == method) return row;
  }
  return kQuantizationMethods[0];  // not reached: every value has a row
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_QUANTIZATION_METHODS_H_
