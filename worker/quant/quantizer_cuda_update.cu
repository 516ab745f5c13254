// The fused update with float32 moments, and the choice between the two kinds of state.
#include "worker/quant/quantizer_cuda_update.cuh"

namespace uniquanf::quant::cuda {

void UpdateAndForward(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                      QuantizerState* s, Tensor* w_hat) {
  if (s->packs_codes()) {
    UpdateCompact(backend, params, upstream, s, w_hat);
  } else {
    LaunchUpdate<float>(backend, params, upstream, s, w_hat);
  }
}

}  // namespace uniquanf::quant::cuda
