// The two sides of worker/quant/start.h; called by its dispatch. Internal to worker/quant.
#ifndef UNIQUANF_WORKER_QUANT_START_DEVICE_H_
#define UNIQUANF_WORKER_QUANT_START_DEVICE_H_

#include "worker/quant/start.h"

namespace uniquanf::quant {

namespace cpu {
void ChooseStarts(Backend* backend, UniformStarts allowed, const Tensor& importance,
                  QuantizerState* state);
void UpdateCodes(Backend* backend, QuantizerState* state);
void AddSquares(Backend* backend, const Tensor& input, Tensor* sums);
}  // namespace cpu

namespace cuda {
void ChooseStarts(Backend* backend, UniformStarts allowed, const Tensor& importance,
                  QuantizerState* state);
void UpdateCodes(Backend* backend, QuantizerState* state);
void AddSquares(Backend* backend, const Tensor& input, Tensor* sums);
}  // namespace cuda

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_START_DEVICE_H_
