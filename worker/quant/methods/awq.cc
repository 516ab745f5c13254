// AWQ (Lin et al., MLSys 2024): channels with large inputs are scaled up before rounding, by a
// searched power of their inputs' size (worker/quant/channel_search.h), and ranges are clipped
// where that loses less in the output.
#include "worker/quant/method.h"
#include "worker/quant/uniform_grids.h"

namespace uniquanf::quant {
namespace {

absl::Status SolveAwq(Levels levels, InputMoments* moments, QuantizerState* state) {
  return StartOnGrids(levels, /*search=*/true, moments->Diagonal(), state);
}

}  // namespace

namespace methods {

absl::Span<const Method> awq() {
  static constexpr Method kRows[] = {
      {QuantizationMethod::kAwq,
       {.uniform = true, .binary = false},
       nullptr,
       UniformStarts::kNone,
       SolveAwq,
       /*scales_channels=*/true},
  };
  return kRows;
}

}  // namespace methods
}  // namespace uniquanf::quant
