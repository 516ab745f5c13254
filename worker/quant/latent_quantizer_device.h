// The two sides of latent_quantizer.h; called by its dispatch. REQUIRES: the backend is of that
// kind, shapes were checked by the caller; on the CPU everything is f32.
#ifndef UNIQUANF_WORKER_QUANT_LATENT_QUANTIZER_DEVICE_H_
#define UNIQUANF_WORKER_QUANT_LATENT_QUANTIZER_DEVICE_H_

#include "worker/quant/latent_quantizer.h"

namespace uniquanf::quant::cpu {
void ForwardLatents(Backend* backend, LatentState* state, Tensor* w_hat);
void BackwardLatents(Backend* backend, const LatentState& state, const Tensor& upstream,
                     LatentGradients* gradients);
void UpdateLatents(Backend* backend, const LatentStep& step, const Tensor& upstream,
                   LatentState* state, Tensor* w_hat);
}  // namespace uniquanf::quant::cpu

namespace uniquanf::quant::cuda {
void ForwardLatents(Backend* backend, LatentState* state, Tensor* w_hat);
void BackwardLatents(Backend* backend, const LatentState& state, const Tensor& upstream,
                     LatentGradients* gradients);
void UpdateLatents(Backend* backend, const LatentStep& step, const Tensor& upstream,
                   LatentState* state, Tensor* w_hat);
}  // namespace uniquanf::quant::cuda

#endif  // UNIQUANF_WORKER_QUANT_LATENT_QUANTIZER_DEVICE_H_
