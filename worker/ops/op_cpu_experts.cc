// Routing of tokens to experts and the permutation around the experts' products.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

// The k largest of values[0, n), largest first; ties go to the lower index.
void TopK(const float* values, int n, int k, int32_t* chosen) {
  for (int j = 0; j < k; ++j) {
    int best = -1;
    for (int i = 0; i < n; ++i) {
      if (std::find(chosen, chosen + j, i) != chosen + j) continue;
      if (best < 0 || values[i] > values[best]) best = i;
    }
    chosen[j] = best;
  }
}

// softmax or sigmoid of the logits, by the recipe.
void Scores(const RouterShape& shape, const float* logits, float* scores) {
  const int n = shape.num_experts;
  if (shape.sigmoid) {
    for (int e = 0; e < n; ++e) scores[e] = PortableSigmoid(logits[e]);
    return;
  }
  const float maximum = *std::max_element(logits, logits + n);
  float sum = 0;
  for (int e = 0; e < n; ++e) sum += scores[e] = PortableExp(logits[e] - maximum);
  for (int e = 0; e < n; ++e) scores[e] /= sum;
}

// What the choice is made by: the scores with the correction, without the groups that lose.
void ChoiceScores(const RouterShape& shape, const float* scores, const float* correction,
                  float* choice) {
  const int n = shape.num_experts, groups = shape.num_groups, size = n / groups;
  for (int e = 0; e < n; ++e) choice[e] = scores[e] + (correction == nullptr ? 0 : correction[e]);
  if (groups <= 1 || shape.top_groups >= groups) return;
  std::vector<float> group_scores(groups);
  for (int g = 0; g < groups; ++g) {
    float first = -INFINITY, second = -INFINITY;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      if (choice[e] > first) {
        second = first;
        first = choice[e];
      } else {
        second = std::max(second, choice[e]);
      }
    }
    group_scores[g] = shape.group_by_best ? first : first + second;
  }
  std::vector<int32_t> kept(shape.top_groups);
  TopK(group_scores.data(), groups, shape.top_groups, kept.data());
  for (int g = 0; g < groups; ++g) {
    if (std::find(kept.begin(), kept.end(), g) != kept.end()) continue;
    for (int e = g * size; e < (g + 1) * size; ++e) choice[e] = -INFINITY;
  }
}

float Scale(const RouterShape& shape, int expert) {
  return shape.scales == nullptr ? 1.0f : shape.scales->f32()[expert];
}

// The sparse mixer's choice j, after those in chosen[0, j); the softmax among the logits that are
// close enough to it goes to `scores`, zero for the others.
int MixerChoice(const RouterShape& shape, const float* logits, const int32_t* chosen, int j,
                float* scores) {
  const int n = shape.num_experts;
  const auto taken = [&](int e) { return std::find(chosen, chosen + j, e) != chosen + j; };
  int best = -1;
  for (int e = 0; e < n; ++e) {
    if (!taken(e) && (best < 0 || logits[e] > logits[best])) best = e;
  }
  const float top = logits[best];
  float sum = 0;
  for (int e = 0; e < n; ++e) {
    const float factor = std::max(std::fabs(logits[e]), top);
    const bool far = (top - logits[e]) / factor > 2.0f * shape.jitter;
    scores[e] = far || taken(e) ? 0.0f : PortableExp(logits[e] - top);
    sum += scores[e];
  }
  for (int e = 0; e < n; ++e) scores[e] /= sum;
  return best;
}

}  // namespace

void RouteForward(Backend* backend, const RouterShape& shape, const Tensor& logits,
                  const Tensor* correction, Tensor* experts, Tensor* weights) {
  const int n = shape.num_experts, k = shape.top_k;
  ParallelChunks(
      CpuBackend::From(backend), logits.num_elements() / n, RowChunk(n),
      [&](int64_t begin, int64_t end) {
        std::vector<float> scores(n), choice(n);
        for (int64_t t = begin; t < end; ++t) {
          if (shape.sparse_mixer) {
            for (int j = 0; j < k; ++j) {
              int32_t* chosen = experts->i32() + t * k;
              chosen[j] = MixerChoice(shape, logits.f32() + t * n, chosen, j, scores.data());
              weights->f32()[t * k + j] = scores[chosen[j]] * shape.scale * Scale(shape, chosen[j]);
            }
            continue;
          }
          Scores(shape, logits.f32() + t * n, scores.data());
          ChoiceScores(shape, scores.data(), correction == nullptr ? nullptr : correction->f32(),
                       choice.data());
          int32_t* chosen = experts->i32() + t * k;
          float* weight = weights->f32() + t * k;
          TopK(choice.data(), n, k, chosen);
          float sum = 0;
          for (int j = 0; j < k; ++j) sum += weight[j] = scores[chosen[j]];
          const float factor = shape.normalize ? shape.scale / (sum + shape.epsilon) : shape.scale;
          for (int j = 0; j < k; ++j) weight[j] *= factor * Scale(shape, chosen[j]);
        }
      });
}

void RouteBackward(Backend* backend, const RouterShape& shape, const Tensor& logits,
                   const Tensor& experts, const Tensor& dweights, Tensor* dlogits) {
  const int n = shape.num_experts, k = shape.top_k;
  ParallelChunks(CpuBackend::From(backend), logits.num_elements() / n, RowChunk(n),
                 [&](int64_t begin, int64_t end) {
                   std::vector<float> scores(n);
                   std::vector<double> dscores(n);
                   std::vector<float> dweight(k);
                   for (int64_t t = begin; t < end; ++t) {
                     const int32_t* chosen = experts.i32() + t * k;
                     for (int j = 0; j < k; ++j) {
                       dweight[j] = dweights.f32()[t * k + j] * Scale(shape, chosen[j]);
                     }
                     if (shape.sparse_mixer) {
                       std::fill(dscores.begin(), dscores.end(), 0.0);
                       for (int j = 0; j < k; ++j) {
                         const int e =
                             MixerChoice(shape, logits.f32() + t * n, chosen, j, scores.data());
                         const double d = static_cast<double>(shape.scale) * dweight[j] * scores[e];
                         dscores[e] += d;
                         for (int i = 0; i < n; ++i) dscores[i] -= d * scores[i];
                       }
                       for (int e = 0; e < n; ++e) {
                         dlogits->f32()[t * n + e] = static_cast<float>(dscores[e]);
                       }
                       continue;
                     }
                     Scores(shape, logits.f32() + t * n, scores.data());
                     std::fill(dscores.begin(), dscores.end(), 0.0);
                     double sum = shape.epsilon, dot = 0;
                     for (int j = 0; j < k; ++j) {
                       sum += scores[chosen[j]];
                       dot += static_cast<double>(dweight[j]) * scores[chosen[j]];
                     }
                     for (int j = 0; j < k; ++j) {
                       // weight = scale · s / Σ s, or scale · s.
                       dscores[chosen[j]] =
                           shape.scale * (shape.normalize ? dweight[j] / sum - dot / (sum * sum)
                                                          : static_cast<double>(dweight[j]));
                     }
                     float* out = dlogits->f32() + t * n;
                     if (shape.sigmoid) {
                       for (int e = 0; e < n; ++e) {
                         out[e] = static_cast<float>(dscores[e] * scores[e] * (1.0 - scores[e]));
                       }
                       continue;
                     }
                     double mean = 0;
                     for (int e = 0; e < n; ++e) mean += dscores[e] * scores[e];
                     for (int e = 0; e < n; ++e) {
                       out[e] = static_cast<float>(scores[e] * (dscores[e] - mean));
                     }
                   }
                 });
}

void GatherRows(Backend* backend, const Tensor& x, const Tensor& rows, Tensor* out) {
  const int64_t width = out->shape().back();
  ParallelChunks(CpuBackend::From(backend), rows.num_elements(), RowChunk(width),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) {
                     const int64_t row = rows.i32()[r];
                     float* to = out->f32() + r * width;
                     if (row < 0) {
                       std::memset(to, 0, width * sizeof(float));
                     } else {
                       std::memcpy(to, x.f32() + row * width, width * sizeof(float));
                     }
                   }
                 });
}

void CombineRows(Backend* backend, const Tensor& rows, const Tensor& positions,
                 const Tensor* weights, bool accumulate, Tensor* y) {
  const int64_t width = y->shape().back(), num_tokens = y->num_elements() / width;
  const int64_t k = positions.num_elements() / num_tokens;
  ParallelChunks(CpuBackend::From(backend), num_tokens, RowChunk(width * k),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     float* out = y->f32() + t * width;
                     if (!accumulate) std::memset(out, 0, width * sizeof(float));
                     for (int64_t j = 0; j < k; ++j) {
                       const float* row = rows.f32() + positions.i32()[t * k + j] * width;
                       const float w = weights == nullptr ? 1.0f : weights->f32()[t * k + j];
                       for (int64_t i = 0; i < width; ++i) out[i] += w * row[i];
                     }
                   }
                 });
}

void CombineRowsBackward(Backend* backend, const Tensor& dy, const Tensor& rows,
                         const Tensor& positions, const Tensor& weights, Tensor* drows,
                         Tensor* dweights) {
  const int64_t width = dy.shape().back(), num_tokens = dy.num_elements() / width;
  const int64_t k = positions.num_elements() / num_tokens;
  ParallelChunks(CpuBackend::From(backend), num_tokens, RowChunk(width * k),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const float* d = dy.f32() + t * width;
                     for (int64_t j = 0; j < k; ++j) {
                       const int64_t at = positions.i32()[t * k + j];
                       const float* row = rows.f32() + at * width;
                       float* drow = drows->f32() + at * width;
                       const float w = weights.f32()[t * k + j];
                       double dot = 0;
                       for (int64_t i = 0; i < width; ++i) {
                         dot += static_cast<double>(d[i]) * row[i];
                         drow[i] = w * d[i];
                       }
                       dweights->f32()[t * k + j] = static_cast<float>(dot);
                     }
                   }
                 });
}

}  // namespace uniquanf::ops::cpu
