#include "common/base/check.h"
#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::ops::cpu {
namespace {

// Sum of squares of y − target over n elements in eight double lanes; dy = slope · (y − target).
UQ_VECTOR_CLONES double SquaredError(const float* y, const float* target, float slope, int64_t n,
                                     float* dy) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      const float difference = y[i + lane] - target[i + lane];
      dy[i + lane] = slope * difference;
      lanes[lane] += static_cast<double>(difference) * difference;
    }
  }
  for (; i < n; ++i) {
    const float difference = y[i] - target[i];
    dy[i] = slope * difference;
    lanes[i % 8] += static_cast<double>(difference) * difference;
  }
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

}  // namespace

size_t MseLossScratchBytes(const Backend& backend, int64_t num_elements) {
  // One partial sum for each chunk; each sequence's last chunk may be short.
  return static_cast<size_t>(num_elements / kElementChunk + kMaxBatchSize) * sizeof(double);
}

void MseLoss(Backend* backend, const StepParams* params, const Tensor& y, const Tensor& targets,
             int batch, int num_parts, Tensor* scratch, Tensor* dy, Tensor* loss) {
  const int64_t sequence_elements = targets.dim(1) * targets.dim(2);
  const int64_t chunks_per_sequence = (sequence_elements + kElementChunk - 1) / kElementChunk;
  const double num_elements = static_cast<double>(y.num_elements());
  const float slope = static_cast<float>(2.0 / (num_parts * num_elements));
  double* partial = reinterpret_cast<double*>(scratch->u8());
  for (int b = 0; b < batch; ++b) {
    UQ_CHECK(params->sequence_index[b] >= 0 && params->sequence_index[b] < targets.dim(0));
  }
  CpuBackend::From(backend)->pool().ParallelFor(batch * chunks_per_sequence, [&](int64_t chunk) {
    const int64_t b = chunk / chunks_per_sequence;
    const int64_t begin = chunk % chunks_per_sequence * kElementChunk;
    const int64_t count = std::min(kElementChunk, sequence_elements - begin);
    const int64_t offset = b * sequence_elements + begin;
    partial[chunk] = SquaredError(
        y.f32() + offset, targets.f32() + params->sequence_index[b] * sequence_elements + begin,
        slope, count, dy->f32() + offset);
  });
  double sum = 0;
  for (int64_t chunk = 0; chunk < batch * chunks_per_sequence; ++chunk) sum += partial[chunk];
  loss->f32()[0] = static_cast<float>(sum / num_elements);
}

}  // namespace uniquanf::ops::cpu
