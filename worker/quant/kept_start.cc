#include "worker/quant/kept_start.h"

#include "common/base/status.h"

namespace uniquanf::quant {

const std::array<Tensor QuantizerState::*, KeptStart::kNumParts> KeptStart::kParts = {
    &QuantizerState::log_delta, &QuantizerState::alpha, &QuantizerState::zero_point,
    &QuantizerState::shift};

absl::StatusOr<KeptStart> KeptStart::Save(Backend* backend,
                                          const std::vector<QuantizerState*>& states) {
  KeptStart start;
  start.backend_ = backend;
  start.saved_.resize(states.size());
  for (size_t l = 0; l < states.size(); ++l) {
    if (states[l] == nullptr) continue;
    for (int part = 0; part < kNumParts; ++part) {
      const Tensor& from = states[l]->*kParts[part];
      Tensor& to = start.saved_[l][part];
      UQ_ASSIGN_OR_RETURN(to, Tensor::Allocate(backend, DType::kFloat32, from.shape()));
      UQ_RETURN_IF_ERROR(backend->CopyOnDevice(to.data(), from.data(), from.size_bytes()));
    }
  }
  return start;
}

absl::Status KeptStart::Return(const BlockSpec& block, const std::vector<QuantizerState*>& states,
                               BlockWeights* weights) const {
  for (size_t l = 0; l < states.size(); ++l) {
    QuantizerState* const state = states[l];
    if (state == nullptr) continue;
    for (int part = 0; part < kNumParts; ++part) {
      Tensor& to = state->*kParts[part];
      UQ_RETURN_IF_ERROR(
          backend_->CopyOnDevice(to.data(), saved_[l][part].data(), to.size_bytes()));
    }
    for (Tensor* zero : {&state->log_scale_group, &state->log_scale_weight}) {
      UQ_RETURN_IF_ERROR(backend_->FillZero(zero->data(), zero->size_bytes()));
    }
    Forward(backend_, Mapping::kDirect, state, &(*weights)[block.linears[l]]);
  }
  return backend_->Synchronize();
}

}  // namespace uniquanf::quant
