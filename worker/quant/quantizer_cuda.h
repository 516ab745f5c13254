// The CUDA side of worker/quant/quantizer.h: same functions, same contract, called by its dispatch.
// REQUIRES: the backend is the CUDA backend; act is f32 or bf16; shapes were checked by the caller.
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_H_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_H_

#include "worker/quant/quantizer.h"

namespace uniquanf::quant::cuda {

// Bytes of QuantizerState::scratch.
uint64_t ScratchBytes(int64_t num_outputs, int64_t num_inputs, int bits, int64_t group_size);
void InitializeUnified(Backend* backend, const InitOptions& options, QuantizerState* state);
void InitializeUniform(Backend* backend, const InitOptions& options, QuantizerState* state);
void InitializeAlternating(Backend* backend, const InitOptions& options, QuantizerState* state);
// w_hat may be null: only the codes are updated.
void Forward(Backend* backend, Mapping mapping, QuantizerState* state, Tensor* w_hat);
void Backward(Backend* backend, const QuantizerState& state, const Tensor& upstream,
              Gradients* gradients);
void UpdateAndForward(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                      QuantizerState* state, Tensor* w_hat);

// The same for a state that packs its codes, which UpdateAndForward calls.
void UpdateCompact(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                   QuantizerState* state, Tensor* w_hat);
// Codes that lie in the bits of s2, as u8 [N, K].
void UnpackCodes(Backend* backend, const QuantizerState& state, Tensor* codes);
void WriteStored(Backend* backend, const StoredCodes& stored, const Tensor& alpha,
                 const Tensor& beta, Tensor* out);

}  // namespace uniquanf::quant::cuda

#endif  // UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_H_
