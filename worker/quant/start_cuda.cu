// Choice among starts on CUDA: a warp a group, which adds up the errors of all starts in one pass
// over its weights. Sums run over lanes and then over the warp's fixed tree.
#include "worker/quant/quantizer_cuda.cuh"
#include "worker/quant/start_device.h"

namespace uniquanf::quant::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTeams = kThreads / 32;
constexpr int kSquareColumns = 32, kSquareRows = 8;  // threads of a block

struct Clips {
  float value[kNumClips];
};

template <typename Act>
struct ChooseArgs {
  const Act* weight;
  const float* importance;
  CodedScales coded;
  float *log_delta, *zero_point, *shift, *alpha;
  int64_t num_groups, num_inputs;
  int group_size;
  Clips clips;
};

// kEvery: 1 where the zero point is always whole, else 2.
template <typename Act, int n, int kEvery>
__global__ void __launch_bounds__(kThreads) ChooseKernel(const ChooseArgs<Act> a) {
  __shared__ float all_levels[kTeams][1 << n];
  constexpr int kGrids = kNumClips * kEvery;
  constexpr float kNumSteps = (1 << n) - 1;
  constexpr float kInverseNumSteps = 1.0f / kNumSteps;
  const int lane = threadIdx.x & 31, slot = threadIdx.x >> 5;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kTeams + slot;
  if (group >= a.num_groups) return;  // whole warps
  const int g = a.group_size;
  const Act* w = a.weight + group * g;
  const float* m = a.importance + group * g % a.num_inputs;
  float* levels = all_levels[slot];

  float negated_min = -INFINITY, max = -INFINITY;
  for (int k = lane; k < g; k += 32) {
    const float value = ToFloat(w[k]);
    negated_min = fmaxf(negated_min, -value);
    max = fmaxf(max, value);
  }
  const float min = -WarpMax(negated_min);
  max = WarpMax(max);
  float delta0 = (max - min) * kInverseNumSteps;
  if (!isfinite(delta0)) delta0 = max * kInverseNumSteps - min * kInverseNumSteps;
  delta0 = fmaxf(fmaxf(delta0, kMinDelta), fmaxf(fabsf(min), fabsf(max)) * kMinDeltaPerMagnitude);
  const float real_zero = -min / delta0, whole_zero = nearbyintf(real_zero);

  for (int c = lane; c < (1 << n); c += 32) levels[c] = LevelOf<n>(a.alpha + group * n, c);
  __syncwarp();
  const float own_delta = ExpOf<true>(a.log_delta[group]);
  const float own_offset = a.shift[group] + 0.5f * kNumSteps - a.zero_point[group];
  float own = 0, errors[kGrids] = {};
  for (int k = lane; k < g; k += 32) {
    const float value = ToFloat(w[k]), weight = m[k];
    const float own_error =
        value - (levels[a.coded.template Code<n>(group * g + k)] + own_offset) * own_delta;
    own += weight * own_error * own_error;
#pragma unroll
    for (int i = 0; i < kGrids; ++i) {
      const float delta = delta0 * a.clips.value[i / kEvery];
      const float zero = i % kEvery == 0 ? whole_zero : real_zero;
      const float code = fminf(fmaxf(nearbyintf(value / delta + zero), 0.0f), kNumSteps);
      const float error = value - (code - zero) * delta;
      errors[i] += weight * error * error;
    }
  }
  // The first of equals; the method's own is first of all.
  float least = WarpSum(own);
  int best = -1;
#pragma unroll
  for (int i = 0; i < kGrids; ++i) {
    const float error = WarpSum(errors[i]);
    if (error < least) {
      least = error;
      best = i;
    }
  }
  if (best < 0) return;
  if (lane == 0) {
    const float delta = delta0 * a.clips.value[best / kEvery];
    a.log_delta[group] = static_cast<float>(log(static_cast<double>(delta)));
    a.zero_point[group] = best % kEvery == 0 ? whole_zero : real_zero;
    a.shift[group] = 0;
  }
  if (lane < n) a.alpha[group * n + lane] = -ldexpf(0.5f, n - 1 - lane);
}

// A block takes kSquareColumns columns; each of its rows of threads every kSquareRows-th row.
template <typename Act>
__global__ void __launch_bounds__(kSquareColumns* kSquareRows)
    AddSquaresKernel(const Act* input, int64_t num_rows, int64_t width, float* sums) {
  __shared__ float partial[kSquareRows][kSquareColumns];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kSquareColumns + threadIdx.x;
  float sum = 0;
  if (column < width) {
    for (int64_t row = threadIdx.y; row < num_rows; row += kSquareRows) {
      const float x = ToFloat(input[row * width + column]);
      sum += x * x;
    }
  }
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= width) return;
  for (int row = 1; row < kSquareRows; ++row) sum += partial[row][threadIdx.x];
  sums[column] += sum;
}

}  // namespace

void ChooseStarts(Backend* backend, UniformStarts allowed, const Tensor& importance,
                  QuantizerState* s) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(s->weight.dtype(), [&](auto act) {
    using Act = decltype(act);
    ChooseArgs<Act> args;
    args.weight = Data<Act>(s->weight);
    args.importance = importance.f32();
    args.coded = CodedScalesOf(*s);
    args.log_delta = s->log_delta.f32();
    args.zero_point = s->zero_point.f32();
    args.shift = s->shift.f32();
    args.alpha = s->alpha.f32();
    args.num_groups = NumGroups(*s);
    args.num_inputs = s->num_inputs();
    args.group_size = static_cast<int>(s->group_size);
    for (int i = 0; i < kNumClips; ++i) args.clips.value[i] = kClips[i];
    const auto num_blocks = static_cast<unsigned>(CeilDiv(args.num_groups, kTeams));
    DispatchBits(s->bits, [&](auto bits) {
      constexpr int n = bits.value;
      if (allowed == UniformStarts::kAll) {
        ChooseKernel<Act, n, 2><<<num_blocks, kThreads, 0, cuda->stream()>>>(args);
      } else {
        ChooseKernel<Act, n, 1><<<num_blocks, kThreads, 0, cuda->stream()>>>(args);
      }
    });
  });
  cuda->NoteLaunch();
}

void UpdateCodes(Backend* backend, QuantizerState* state) {
  cuda::Forward(backend, Mapping::kDirect, state, nullptr);
}

void AddSquares(Backend* backend, const Tensor& input, Tensor* sums) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t width = input.dim(1);
  DispatchAct(input.dtype(), [&](auto act) {
    using Act = decltype(act);
    AddSquaresKernel<Act>
        <<<static_cast<unsigned>(CeilDiv(width, kSquareColumns)), dim3(kSquareColumns, kSquareRows),
           0, cuda->stream()>>>(Data<Act>(input), input.dim(0), width, sums->f32());
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::quant::cuda
