// What a quantization method does with one linear layer's quantizer: how it begins and what is
// trained. Names, help and whether blocks are reconstructed stand in
// common/spec/quantization_methods.h. Every methods/NAME.cc gives the rows of some related methods
// as uniquanf::quant::methods::NAME().
#ifndef UNIQUANF_WORKER_QUANT_METHOD_H_
#define UNIQUANF_WORKER_QUANT_METHOD_H_

#include "absl/types/span.h"
#include "common/spec/quantization_methods.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/start.h"

namespace uniquanf::quant {

struct Method {
  QuantizationMethod value;
  TrainedParts trained;
  void (*initialize)(Backend* backend, const InitOptions& options, QuantizerState* state);
  UniformStarts starts;  // where it may start instead, if that is better
};
const Method& MethodOf(QuantizationMethod value);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_METHOD_H_
