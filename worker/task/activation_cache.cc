#include "worker/task/activation_cache.h"

#include <utility>

namespace uniquanf {

int ActivationCacheImpl::CachedLayer(const std::string& plan_sha256) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return plan_sha256_ == plan_sha256 ? layer_ : -1;
}

void ActivationCacheImpl::Clear() { Take("", -1); }

std::optional<LayerInputs> ActivationCacheImpl::Take(const std::string& plan_sha256, int layer) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::optional<LayerInputs> taken;
  if (layer_ >= 0 && plan_sha256_ == plan_sha256 && layer_ == layer) taken = std::move(inputs_);
  inputs_ = LayerInputs();
  plan_sha256_.clear();
  layer_ = -1;
  return taken;
}

void ActivationCacheImpl::Put(const std::string& plan_sha256, int layer, LayerInputs inputs) {
  std::lock_guard<std::mutex> lock(mutex_);
  plan_sha256_ = plan_sha256;
  layer_ = layer;
  inputs_ = std::move(inputs);
}

std::unique_ptr<ActivationCache> NewActivationCache() {
  return std::make_unique<ActivationCacheImpl>();
}

}  // namespace uniquanf
