// What a quantization method does with one linear layer's quantizer: how it begins and what is
// trained. Names, help and whether blocks are reconstructed stand in
// common/spec/quantization_methods.h. Every methods/NAME.cc gives the rows of some related methods
// as uniquanf::quant::methods::NAME().
#ifndef UNIQUANF_WORKER_QUANT_METHOD_H_
#define UNIQUANF_WORKER_QUANT_METHOD_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/spec/quantization_methods.h"
#include "common/spec/quantization_spec.h"
#include "worker/quant/input_moments.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/start.h"

namespace uniquanf::quant {

struct Method {
  QuantizationMethod value;
  TrainedParts trained;
  void (*initialize)(Backend* backend, const InitOptions& options, QuantizerState* state);
  UniformStarts starts;  // where it may start instead, if that is better
  // For methods that train nothing and solve each layer from the moments of its inputs, instead of
  // `initialize`: sets grids and codes.
  absl::Status (*solve)(Levels levels, InputMoments* moments, QuantizerState* state) = nullptr;
  bool scales_channels = false;  // SearchScales before it solves
};
const Method& MethodOf(QuantizationMethod value);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_METHOD_H_
