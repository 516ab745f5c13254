#include "worker/task/activation_cache.h"

#include <utility>

namespace uniquanf {

uint64_t LayerInputs::device_bytes() const {
  uint64_t bytes = 0;
  for (const SequenceBuffer* buffer : {&x_fp, &x_q}) {
    if (!buffer->empty() && buffer->on_device()) bytes += buffer->tensor().size_bytes();
  }
  return bytes;
}

std::optional<LayerRound> ActivationCacheImpl::CachedLayer(const std::string& plan_sha256) const {
  absl::MutexLock lock(&mutex_);
  if (layer_ == kNone || plan_sha256_ != plan_sha256) return std::nullopt;
  return layer_;
}

void ActivationCacheImpl::Clear() {
  Take("", kNone);
  next_block_.Drop();
}

std::optional<LayerInputs> ActivationCacheImpl::Take(const std::string& plan_sha256,
                                                     LayerRound layer) {
  absl::MutexLock lock(&mutex_);
  std::optional<LayerInputs> taken;
  if (layer_ != kNone && plan_sha256_ == plan_sha256 && layer_ == layer) taken = std::move(inputs_);
  inputs_ = LayerInputs();
  window_inputs_ = WindowInputs();
  window_ = -1;
  plan_sha256_.clear();
  layer_ = kNone;
  return taken;
}

std::optional<WindowInputs> ActivationCacheImpl::TakeWindow(const std::string& plan_sha256,
                                                            int layer) {
  std::optional<WindowInputs> taken;
  {
    absl::MutexLock lock(&mutex_);
    if (window_ == layer && plan_sha256_ == plan_sha256) taken = std::move(window_inputs_);
  }
  Take("", kNone);
  return taken;
}

void ActivationCacheImpl::PutWindow(const std::string& plan_sha256, int layer,
                                    WindowInputs inputs) {
  Take("", kNone);
  absl::MutexLock lock(&mutex_);
  plan_sha256_ = plan_sha256;
  window_ = layer;
  window_inputs_ = std::move(inputs);
}

void ActivationCacheImpl::Put(const std::string& plan_sha256, LayerRound layer,
                              LayerInputs inputs) {
  absl::MutexLock lock(&mutex_);
  plan_sha256_ = plan_sha256;
  layer_ = layer;
  inputs_ = std::move(inputs);
}

std::unique_ptr<ActivationCache> NewActivationCache() {
  return std::make_unique<ActivationCacheImpl>();
}

}  // namespace uniquanf
