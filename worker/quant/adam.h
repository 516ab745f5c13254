// Adam (Kingma & Ba 2015) with PyTorch's formulas, for one parameter. Internal to worker/quant.
// Thread-safe, no state.
#ifndef UNIQUANF_WORKER_QUANT_ADAM_H_
#define UNIQUANF_WORKER_QUANT_ADAM_H_

#include <cmath>

#include "worker/quant/group_math.h"

namespace uniquanf::quant {

// β1 is 0.9, ε is 1e-8.
struct AdamStep {
  float step_size;                      // learning rate / bias_correction1
  float inverse_sqrt_bias_correction2;  // a product per weight instead of a division
  float beta2, one_minus_beta2;
};

inline AdamStep MakeAdamStep(float learning_rate, float bias_correction1, float bias_correction2,
                             double beta2) {
  return {learning_rate / bias_correction1, 1.0f / std::sqrt(bias_correction2),
          static_cast<float>(beta2), static_cast<float>(1 - beta2)};
}

UQ_INLINE void AdamUpdate(const AdamStep& step, float gradient, float* parameter, float* first,
                          float* second) {
  constexpr float kOneMinusBeta1 = static_cast<float>(1 - 0.9);
  constexpr float kEpsilon = 1e-8f;
  const float m = *first + kOneMinusBeta1 * (gradient - *first);
  const float v = *second * step.beta2 + step.one_minus_beta2 * gradient * gradient;
  *first = m;
  *second = v;
  *parameter -=
      step.step_size * m / (__builtin_sqrtf(v) * step.inverse_sqrt_bias_correction2 + kEpsilon);
}

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_ADAM_H_
