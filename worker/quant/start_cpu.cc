// Choice among starts on the CPU: one pass over a group adds up the errors of all of them.
#include <algorithm>
#include <cmath>

#include "worker/backend/cpu_backend.h"
#include "worker/quant/code_tile.h"
#include "worker/quant/group_math.h"
#include "worker/quant/quantizer_cpu.h"
#include "worker/quant/start_device.h"

namespace uniquanf::quant::cpu {
namespace {

constexpr int64_t kColumnsAtOnce = 64;

struct Grid {
  float delta, zero_point;
};

// Σ m (w − ŵ)² for a uniform grid over padded tiles; padding has m = 0.
UQ_INLINE void AddGridError(const Grid& grid, float last_code, const float* __restrict w,
                            const float* __restrict m, int padded, LaneSum* sum) {
  float terms[kTile];
  for (int k = 0; k < padded; ++k) {
    float code = __builtin_nearbyintf(w[k] / grid.delta + grid.zero_point);
    code = code < 0 ? 0.0f : code;
    code = code > last_code ? last_code : code;
    const float error = w[k] - (code - grid.zero_point) * grid.delta;
    terms[k] = m[k] * error * error;
  }
  sum->Add(padded, [&](int64_t k) UQ_INLINE_LAMBDA { return terms[k]; });
}

template <int n>
UQ_INLINE void AddOwnError(const QuantizerState& s, int64_t group, const float* alpha,
                           const float* __restrict w, const float* __restrict m,
                           const uint8_t* __restrict codes, int padded, LaneSum* sum) {
  const float delta = ExpScale(s.log_delta.f32()[group]);
  const float offset =
      s.shift.f32()[group] + static_cast<float>((1 << s.bits) - 1) / 2 - s.zero_point.f32()[group];
  float terms[kTile];
  for (int k = 0; k < padded; ++k) {
    const float error = w[k] - (Level<n>(alpha, codes[k]) + offset) * delta;
    terms[k] = m[k] * error * error;
  }
  sum->Add(padded, [&](int64_t k) UQ_INLINE_LAMBDA { return terms[k]; });
}

template <int n>
UQ_INLINE void ChooseForGroup(UniformStarts allowed, const float* importance, int64_t group,
                              QuantizerState* s) {
  const int64_t g = s->group_size;
  const float* w = s->weight.f32() + group * g;
  const float* m = importance + group * g % s->num_inputs();
  const float last_code = static_cast<float>((1 << s->bits) - 1);
  const auto [min, max] = std::minmax_element(w, w + g);
  const float delta0 = MinMaxDelta(*min, *max, s->bits);
  Grid grids[2 * kNumClips];
  int num_grids = 0;
  for (const float clip : kClips) {
    const float zero_point = -*min / delta0;
    grids[num_grids++] = {delta0 * clip, std::nearbyint(zero_point)};
    if (allowed == UniformStarts::kAll) grids[num_grids++] = {delta0 * clip, zero_point};
  }
  float alpha[n];
  WidenAlpha<n>(s->alpha.f32() + group * s->bits, s->bits, alpha);
  LaneSum own, sums[2 * kNumClips];
  for (int64_t begin = 0; begin < g; begin += kTile) {
    const int count = static_cast<int>(std::min<int64_t>(kTile, g - begin));
    const int padded = static_cast<int>(RoundUpToLanes(count));
    float w_buffer[kTile], m_buffer[kTile];
    CodeTile tile;
    tile.Load(*s, group * g + begin, count);
    const float* w_tile = PadToLanes(w + begin, count, w_buffer);
    const float* m_tile = PadToLanes(m + begin, count, m_buffer);
    AddOwnError<n>(*s, group, alpha, w_tile, m_tile, tile.codes, padded, &own);
    for (int i = 0; i < num_grids; ++i) {
      AddGridError(grids[i], last_code, w_tile, m_tile, padded, &sums[i]);
    }
  }
  // The first of equals; the method's own is first of all.
  float least = own.Total();
  const Grid* best = nullptr;
  for (int i = 0; i < num_grids; ++i) {
    const float error = sums[i].Total();
    if (error < least) {
      least = error;
      best = &grids[i];
    }
  }
  if (best == nullptr) return;
  s->log_delta.f32()[group] = static_cast<float>(std::log(static_cast<double>(best->delta)));
  s->zero_point.f32()[group] = best->zero_point;
  s->shift.f32()[group] = 0;
  for (int i = 0; i < s->bits; ++i) {
    s->alpha.f32()[group * s->bits + i] = -std::ldexp(0.5f, s->bits - 1 - i);
  }
}

UQ_VECTOR_CLONES void ChooseForGroups(UniformStarts allowed, const float* importance, int64_t begin,
                                      int64_t end, QuantizerState* s) {
#define UQ_BODY(n)                                    \
  for (int64_t group = begin; group < end; ++group) { \
    ChooseForGroup<n>(allowed, importance, group, s); \
  }
  UQ_FOR_WIDTH(s->bits, UQ_BODY)
#undef UQ_BODY
}

UQ_VECTOR_CLONES void AddSquaresOfColumns(const float* input, int64_t num_rows, int64_t width,
                                          int64_t begin, int64_t end, float* sums) {
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* x = input + row * width;
    for (int64_t k = begin; k < end; ++k) sums[k] += x[k] * x[k];
  }
}

}  // namespace

void ChooseStarts(Backend* backend, UniformStarts allowed, const Tensor& importance,
                  QuantizerState* s) {
  const int64_t num_groups = s->num_outputs() * s->groups_per_row();
  const int64_t groups_per_chunk = std::max<int64_t>(1, 8192 / s->group_size);
  const int64_t num_chunks = (num_groups + groups_per_chunk - 1) / groups_per_chunk;
  CpuBackend::From(backend)->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    ChooseForGroups(allowed, importance.f32(), chunk * groups_per_chunk,
                    std::min(num_groups, (chunk + 1) * groups_per_chunk), s);
  });
}

void UpdateCodes(Backend* backend, QuantizerState* state) {
  cpu::Forward(backend, Mapping::kDirect, state, nullptr);
}

void AddSquares(Backend* backend, const Tensor& input, Tensor* sums) {
  const int64_t width = input.dim(1);
  const int64_t num_chunks = (width + kColumnsAtOnce - 1) / kColumnsAtOnce;
  CpuBackend::From(backend)->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    AddSquaresOfColumns(input.f32(), input.dim(0), width, chunk * kColumnsAtOnce,
                        std::min(width, (chunk + 1) * kColumnsAtOnce), sums->f32());
  });
}

}  // namespace uniquanf::quant::cpu
