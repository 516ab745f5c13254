// xIELU, scaling by a tensor, and parts of heads.
#include <cstring>

#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

float Softplus(float x) { return x > 20.0f ? x : PortableLog(1.0f + PortableExp(x)); }

struct Xielu {
  explicit Xielu(const XieluParameters& parameters)
      : positive(Softplus(*parameters.positive->f32())),
        negative(*parameters.beta->f32() + Softplus(*parameters.negative->f32())),
        beta(*parameters.beta->f32()),
        epsilon(*parameters.epsilon->f32()) {}
  float Value(float x) const {
    if (x > 0) return positive * x * x + beta * x;
    return (PortableExp(x < epsilon ? x : epsilon) - 1.0f - x) * negative + beta * x;
  }
  float Slope(float x) const {
    if (x > 0) return 2.0f * positive * x + beta;
    return ((x < epsilon ? PortableExp(x) : 0.0f) - 1.0f) * negative + beta;
  }
  float positive, negative, beta, epsilon;
};

}  // namespace

void XieluForward(Backend* backend, const XieluParameters& parameters, const Tensor& x, Tensor* y) {
  const Xielu f(parameters);
  ParallelChunks(CpuBackend::From(backend), x.num_elements(), kElementChunk,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) y->f32()[i] = f.Value(x.f32()[i]);
                 });
}

void XieluBackward(Backend* backend, const XieluParameters& parameters, const Tensor& dy,
                   const Tensor& x, Tensor* dx) {
  const Xielu f(parameters);
  ParallelChunks(CpuBackend::From(backend), x.num_elements(), kElementChunk,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     dx->f32()[i] = dy.f32()[i] * f.Slope(x.f32()[i]);
                   }
                 });
}

void ScaleBy(Backend* backend, const Tensor& x, const Tensor& factor, Tensor* out) {
  Scale(backend, x, *factor.f32(), out);
}

void CopyHeads(Backend* backend, int64_t width, const HeadsShape& from_heads, const Tensor& from,
               CopyMode mode, const HeadsShape& to_heads, Tensor* to) {
  const int64_t from_width = from_heads.count * from_heads.size;
  const int64_t to_width = to_heads.count * to_heads.size;
  // One head on the receiving side takes the sum of all.
  const int summed = to_heads.count == 1 ? from_heads.count : 1;
  ParallelChunks(CpuBackend::From(backend), to->num_elements() / to_width, RowChunk(to_width),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t) {
                     const float* source = from.f32() + t * from_width + from_heads.offset;
                     float* row = to->f32() + t * to_width;
                     if (mode == CopyMode::kClearRest)
                       std::memset(row, 0, to_width * sizeof(float));
                     for (int h = 0; h < to_heads.count; ++h) {
                       const float* head =
                           source + (from_heads.count == 1 ? 0 : h * from_heads.size);
                       float* target = row + h * to_heads.size + to_heads.offset;
                       for (int64_t i = 0; i < width; ++i) {
                         float value = head[i];
                         for (int s = 1; s < summed; ++s) value += head[s * from_heads.size + i];
                         target[i] = mode == CopyMode::kAdd ? target[i] + value : value;
                       }
                     }
                   }
                 });
}

}  // namespace uniquanf::ops::cpu
