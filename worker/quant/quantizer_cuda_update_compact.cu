// The fused update of a compact state (compact_state.h).
#include "worker/quant/quantizer_cuda_update.cuh"

namespace uniquanf::quant::cuda {

void UpdateCompact(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                   QuantizerState* s, Tensor* w_hat) {
  LaunchUpdate<__nv_bfloat16>(backend, params, upstream, s, w_hat);
}

}  // namespace uniquanf::quant::cuda
