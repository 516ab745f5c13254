#include "worker/quant/method.h"

#include <algorithm>
#include <iterator>

#include "common/base/check.h"

namespace uniquanf::quant {
namespace {

constexpr TrainedParts kAll = {.uniform = true, .binary = true};
constexpr TrainedParts kUniformOnly = {.uniform = true, .binary = false};
constexpr Method kMethods[] = {
    {QuantizationMethod::kUniquanf, kAll, InitializeUnified, UniformStarts::kAll},
    {QuantizationMethod::kFlexround, kUniformOnly, InitializeUniform,
     UniformStarts::kWholeZeroPoints},
    {QuantizationMethod::kAlternating, kUniformOnly, InitializeAlternating, UniformStarts::kAll},
    {QuantizationMethod::kRtn, kUniformOnly, InitializeUniform, UniformStarts::kNone},
};

}  // namespace

const Method& MethodOf(QuantizationMethod value) {
  const auto* row = std::find_if(std::begin(kMethods), std::end(kMethods),
                                 [value](const Method& method) { return method.value == value; });
  UQ_CHECK(row != std::end(kMethods));
  return *row;
}

}  // namespace uniquanf::quant
