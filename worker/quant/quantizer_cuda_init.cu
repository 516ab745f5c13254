// Initialization of a group's Δ, z_U, α and z_B (worker/quant/README.md, "Initialization"; Park et
// al. section 3.3; the alternating update is that of Xu et al., ICLR 2018, with conjugate
// gradients), the whole grid search in one kernel: a team of threads holds its group on chip
// throughout.
//
// A round of the alternating update is one pass: each weight finds its nearest level and adds its
// signs to the next round's normal equations at once, so codes are never stored.
#include "worker/quant/quantizer_cuda.cuh"

namespace uniquanf::quant::cuda {
namespace {

constexpr float kErrorPower = 2.4f;
constexpr float kConjugateGradientEpsilon = 1e-6f;
constexpr int kBlockTeamThreads = 256;
constexpr int kWarpTeams = 4;  // of a block
constexpr int64_t kLongestWarpGroup = 1024;

enum class Method { kUnified, kUniform, kAlternating };

// Weights of either element type, told apart at run time: they are read few enough times, and
// every kernel here takes long to compile.
struct Weights {
  const void* data;
  bool is_bf16;
  __device__ float operator[](int64_t i) const {
    return is_bf16 ? ToFloat(static_cast<const __nv_bfloat16*>(data)[i])
                   : static_cast<const float*>(data)[i];
  }
};

struct InitArgs {
  Method method;
  int grid_steps, rounds;
  Weights weight;
  float *log_delta, *zero_point, *shift, *alpha;
  int64_t num_groups;
  int group_size;
};

// Sums that a pass makes: BᵀB (its lower triangle, row by row), Bᵀx, Bᵀ1, Σ (x − L).
template <int n>
inline constexpr int kNumSums = n*(n + 1) / 2 + 2 * n + 1;

template <int n, bool kBlock>
struct alignas(16) TeamMemory {
  static constexpr int kWarps = kBlock ? kBlockTeamThreads / 32 : 1;
  float levels[1 << n];
  float alpha[n];
  float shift;
  float sums[kNumSums<n>];
  float partial[kWarps][kNumSums<n>];
};

template <int n, bool kBlock>
struct Team {
  using Memory = TeamMemory<n, kBlock>;
  static constexpr int kSize = kBlock ? kBlockTeamThreads : 32;
  Memory& memory;
  Weights weights;
  int64_t first;  // of the group's weights
  float* x;       // the group's transformed weights in shared memory, or null: compute them
  int g, index;
  float delta = 1, zero_point = 0;

  __device__ void Sync() const {
    if constexpr (kBlock) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }

  // Leaves the team's sums of value[0..count) in memory.sums.
  template <int kCount>
  __device__ void Reduce(const float (&value)[kCount]) {
    static_assert(kCount <= kNumSums<n>);
    Sync();
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float sum = WarpSum(value[j]);
      if ((threadIdx.x & 31) == 0) {
        if constexpr (kBlock) {
          memory.partial[threadIdx.x >> 5][j] = sum;
        } else {
          memory.sums[j] = sum;
        }
      }
    }
    Sync();
    if constexpr (kBlock) {
      if (index < kCount) {
        float sum = 0;
        for (int warp = 0; warp < Memory::kWarps; ++warp) sum += memory.partial[warp][index];
        memory.sums[index] = sum;
      }
      Sync();
    }
  }
  __device__ float Sum(float value) {
    const float values[1] = {value};
    Reduce(values);
    return memory.sums[0];
  }
  // Both are exact, so any order will do.
  __device__ float Max(float value) {
    value = WarpMax(value);
    if constexpr (kBlock) {
      Sync();
      if ((threadIdx.x & 31) == 0) memory.partial[threadIdx.x >> 5][0] = value;
      Sync();
      for (int warp = 0; warp < Memory::kWarps; ++warp) {
        value = fmaxf(value, memory.partial[warp][0]);
      }
    }
    return value;
  }

  __device__ float Transformed(int k) const {
    if (x != nullptr) return x[k];
    return weights[first + k] / delta + zero_point - 0.5f * ((1 << n) - 1);
  }
  __device__ void Transform(float new_delta, float new_zero_point) {
    delta = new_delta;
    zero_point = new_zero_point;
    if (x == nullptr) return;
    Sync();
    for (int k = index; k < g; k += kSize) {
      x[k] = weights[first + k] / delta + zero_point - 0.5f * ((1 << n) - 1);
    }
    Sync();
  }

  // Adds one weight to the sums of a pass.
  __device__ static void Accumulate(float value, const float (&sign)[n],
                                    float (&sums)[kNumSums<n>]) {
    int at = 0;
#pragma unroll
    for (int i = 0; i < n; ++i) {
#pragma unroll
      for (int j = 0; j <= i; ++j) sums[at++] += sign[i] * sign[j];
    }
#pragma unroll
    for (int i = 0; i < n; ++i) sums[at++] += sign[i] * value;
#pragma unroll
    for (int i = 0; i < n; ++i) sums[at++] += sign[i];
  }

  // r = x; for each i: b_i = sign(r), α_i = mean |r|, r −= α_i b_i. The greedy signs are computed
  // again from α wherever they are needed.
  __device__ void GreedyStart() {
    float alpha[n];
#pragma unroll
    for (int i = 0; i < n; ++i) {
      float sum = 0;
      for (int k = index; k < g; k += kSize) {
        float r = Transformed(k);
#pragma unroll
        for (int j = 0; j < i; ++j) r -= alpha[j] * Sign(r);
        sum += fabsf(r);
      }
      alpha[i] = Sum(sum) * (1.f / static_cast<float>(g));
    }
    float sums[kNumSums<n>] = {};
    for (int k = index; k < g; k += kSize) {
      const float value = Transformed(k);
      float r = value, sign[n];
#pragma unroll
      for (int i = 0; i < n; ++i) {
        sign[i] = Sign(r);
        r -= alpha[i] * sign[i];
      }
      Accumulate(value, sign, sums);
    }
    Reduce(sums);
    if (index == 0) {
#pragma unroll
      for (int i = 0; i < n; ++i) memory.alpha[i] = alpha[i];
      memory.shift = 0;
    }
    Sync();
  }
  __device__ static float Sign(float r) { return r > 0 ? 1.f : r < 0 ? -1.f : 0.f; }

  // n conjugate-gradient steps on (BᵀB) α = Bᵀ(x − z), started at α, from memory.sums; then
  // α ← |α|, sorted descending. One thread's work.
  __device__ void LeastSquares() {
    float gram[n][n], alpha[n], r[n], p[n], ap[n];
    int at = 0;
#pragma unroll
    for (int i = 0; i < n; ++i) {
#pragma unroll
      for (int j = 0; j <= i; ++j) gram[i][j] = gram[j][i] = memory.sums[at++];
    }
#pragma unroll
    for (int i = 0; i < n; ++i) {
      alpha[i] = memory.alpha[i];
      r[i] = memory.sums[at + i] - memory.shift * memory.sums[at + n + i];
    }
#pragma unroll
    for (int i = 0; i < n; ++i) {
      float product = 0;
#pragma unroll
      for (int j = 0; j < n; ++j) product += gram[i][j] * alpha[j];
      r[i] -= product;
      p[i] = r[i];
    }
    float rr = 0;
#pragma unroll
    for (int i = 0; i < n; ++i) rr += r[i] * r[i];
#pragma unroll 1
    for (int step = 0; step < n; ++step) {
      float pap = 0, next_rr = 0;
#pragma unroll
      for (int i = 0; i < n; ++i) {
        ap[i] = 0;
#pragma unroll
        for (int j = 0; j < n; ++j) ap[i] += gram[i][j] * p[j];
        pap += p[i] * ap[i];
      }
      const float length = rr / (pap + kConjugateGradientEpsilon);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        alpha[i] += length * p[i];
        r[i] -= length * ap[i];
        next_rr += r[i] * r[i];
      }
      const float beta = next_rr / (rr + kConjugateGradientEpsilon);
#pragma unroll
      for (int i = 0; i < n; ++i) p[i] = r[i] + beta * p[i];
      rr = next_rr;
    }
#pragma unroll
    for (int i = 0; i < n; ++i) alpha[i] = fabsf(alpha[i]);
#pragma unroll
    for (int i = 0; i < n; ++i) {
#pragma unroll
      for (int j = 0; j + 1 < n - i; ++j) {
        const float larger = fmaxf(alpha[j], alpha[j + 1]);
        alpha[j + 1] = fminf(alpha[j], alpha[j + 1]);
        alpha[j] = larger;
      }
    }
#pragma unroll
    for (int i = 0; i < n; ++i) memory.alpha[i] = alpha[i];
  }

  __device__ void FillLevels() {
    Sync();
    for (int c = index; c < (1 << n); c += kSize) memory.levels[c] = LevelOf<n>(memory.alpha, c);
    Sync();
  }

  // Approximates x by Σ α_i b_i (+ z); the result is memory.alpha and memory.shift.
  __device__ void AlternatingUpdate(int rounds, bool fit_shift) {
    GreedyStart();
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
      if (index == 0) LeastSquares();
      FillLevels();
      // The last round needs codes only for the shift.
      if (round + 1 == rounds && !fit_shift) break;
      const float shift = memory.shift;
      float sums[kNumSums<n>] = {};
      for (int k = index; k < g; k += kSize) {
        const float value = Transformed(k);
        const uint32_t code = NearestLevel<n>(memory.levels, value - shift);
        float sign[n];
#pragma unroll
        for (int i = 0; i < n; ++i) sign[i] = FlipBySign<n>(1.f, code, i);
        Accumulate(value, sign, sums);
        sums[kNumSums<n> - 1] += value - memory.levels[code];
      }
      Reduce(sums);
      if (fit_shift && index == 0) {
        memory.shift = memory.sums[kNumSums<n> - 1] * (1.f / static_cast<float>(g));
      }
      Sync();
    }
  }

  // Σ (|w − ŵ|/Δ0)^2.4 (dividing by Δ0 keeps the power inside fp32's range). `greedy`: with the
  // greedy start's signs (no rounds), else with the nearest levels.
  __device__ float ReconstructionError(float delta0, bool greedy) {
    float alpha[n];
#pragma unroll
    for (int i = 0; i < n; ++i) alpha[i] = memory.alpha[i];
    const float shift = memory.shift;
    float sum = 0;
    for (int k = index; k < g; k += kSize) {
      const float value = Transformed(k);
      float level = 0;
      if (greedy) {
        float r = value;
#pragma unroll
        for (int i = 0; i < n; ++i) {
          const float step = alpha[i] * Sign(r);
          level += step;
          r -= step;
        }
      } else {
        level = memory.levels[NearestLevel<n>(memory.levels, value - shift)];
      }
      const float w_hat = (level + shift + 0.5f * ((1 << n) - 1) - zero_point) * delta;
      const float error = fabsf(weights[first + k] - w_hat) / delta0;
      sum += expf(kErrorPower * logf(fmaxf(error, 1.17549435e-38f)));
    }
    return Sum(sum);
  }
};

template <int n, bool kBlock>
__global__ void __launch_bounds__(kBlock ? kBlockTeamThreads : kWarpTeams * 32)
    InitializeKernel(const InitArgs a, bool keep) {
  constexpr int kTeams = kBlock ? 1 : kWarpTeams;
  extern __shared__ float4 dynamic_shared[];
  __shared__ __align__(16) TeamMemory<n, kBlock> memories[kTeams];
  const int slot = kBlock ? 0 : threadIdx.x >> 5;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kTeams + slot;
  if (group >= a.num_groups) return;  // whole warps, or no thread of a block
  const int g = a.group_size;
  Team<n, kBlock> team{memories[slot],
                       a.weight,
                       group * g,
                       keep ? reinterpret_cast<float*>(dynamic_shared) + slot * g : nullptr,
                       g,
                       static_cast<int>(kBlock ? threadIdx.x : threadIdx.x & 31)};

  float negated_min = -INFINITY, max = -INFINITY;
  for (int k = team.index; k < g; k += team.kSize) {
    const float w = team.weights[team.first + k];
    negated_min = fmaxf(negated_min, -w);
    max = fmaxf(max, w);
  }
  const float min = -team.Max(negated_min);
  max = team.Max(max);
  const float largest = fmaxf(fabsf(min), fabsf(max));
  // The step of min-max quantization; the difference of two huge weights may overflow.
  constexpr float kNumSteps = (1 << n) - 1;
  // Roundings as in initialize_cpu.cc, which says why.
  constexpr float kInverseNumSteps = 1.0f / kNumSteps;
  float delta0 = (max - min) * kInverseNumSteps;
  if (!isfinite(delta0)) delta0 = max * kInverseNumSteps - min * kInverseNumSteps;
  delta0 = fmaxf(fmaxf(delta0, kMinDelta), largest * kMinDeltaPerMagnitude);

  const bool fit_shift = a.method == Method::kAlternating || a.grid_steps == 0;
  const auto approximate = [&](float delta, float zero_point) {
    team.Transform(delta, zero_point);
    if (a.method == Method::kUniform) {
      // The levels −(2^n − 1)/2 + c for code c.
      if (team.index < n) team.memory.alpha[team.index] = -ldexpf(0.5f, n - 1 - team.index);
      if (team.index == 0) team.memory.shift = 0;
      team.FillLevels();
    } else {
      team.AlternatingUpdate(a.rounds, fit_shift);
    }
  };
  const auto zero_point_for = [&](float step) {
    return a.method == Method::kUniform ? nearbyintf(-min / step) : -min / step;
  };
  float delta = delta0, zero_point = zero_point_for(delta0);
  if (a.method == Method::kAlternating) {
    delta = fmaxf(delta0, largest * 0x1p-20f);
    zero_point = 0.5f * kNumSteps;
  } else if (a.grid_steps > 1) {
    float least_error = INFINITY;
#pragma unroll 1
    for (int i = 1; i <= a.grid_steps; ++i) {
      const float candidate = delta0 * static_cast<float>(static_cast<double>(i) / a.grid_steps);
      const float candidate_zero_point = zero_point_for(candidate);
      approximate(candidate, candidate_zero_point);
      const float error =
          team.ReconstructionError(delta0, a.method != Method::kUniform && a.rounds == 0);
      if (error < least_error) {
        least_error = error;
        delta = candidate;
        zero_point = candidate_zero_point;
      }
    }
  }
  approximate(delta, zero_point);
  team.Sync();
  if (team.index == 0) {
    a.log_delta[group] = static_cast<float>(log(static_cast<double>(delta)));
    a.zero_point[group] = zero_point;
    a.shift[group] = team.memory.shift;
  }
  if (team.index < n) a.alpha[group * n + team.index] = team.memory.alpha[team.index];
}

void Initialize(Backend* backend, Method method, const InitOptions& options, QuantizerState* s) {
  CudaBackend* cuda = CudaBackend::From(backend);
  InitArgs args;
  args.method = method;
  args.grid_steps = options.grid_steps;
  args.rounds = options.alternating_rounds;
  args.weight = {s->weight.data(), s->weight.dtype() == DType::kBfloat16};
  args.log_delta = s->log_delta.f32();
  args.zero_point = s->zero_point.f32();
  args.shift = s->shift.f32();
  args.alpha = s->alpha.f32();
  args.num_groups = NumGroups(*s);
  args.group_size = static_cast<int>(s->group_size);
  DispatchBits(s->bits, [&](auto bits) {
    constexpr int n = bits.value;
    if (args.group_size > kLongestWarpGroup) {
      const auto kernel = &InitializeKernel<n, true>;
      const size_t shared = static_cast<size_t>(args.group_size) * sizeof(float);
      const bool keep = shared + sizeof(TeamMemory<n, true>) + 1024 <=
                        static_cast<size_t>(cuda->max_shared_bytes());
      if (keep) {
        cuda->Note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shared)));
      }
      kernel<<<static_cast<unsigned>(args.num_groups), kBlockTeamThreads, keep ? shared : 0,
               cuda->stream()>>>(args, keep);
    } else {
      const size_t shared = kWarpTeams * static_cast<size_t>(args.group_size) * sizeof(float);
      InitializeKernel<n, false><<<static_cast<unsigned>(CeilDiv(args.num_groups, kWarpTeams)),
                                   kWarpTeams * 32, shared, cuda->stream()>>>(args, true);
    }
  });
  cuda->NoteLaunch();
  for (Tensor* zero : {&s->log_scale_group, &s->log_scale_weight}) {
    cuda->Note(cudaMemsetAsync(zero->data(), 0, zero->size_bytes(), cuda->stream()));
  }
  cuda::Forward(backend, Mapping::kDirect, s, nullptr);
}

}  // namespace

void InitializeUnified(Backend* backend, const InitOptions& options, QuantizerState* state) {
  Initialize(backend, Method::kUnified, options, state);
}

void InitializeUniform(Backend* backend, const InitOptions& options, QuantizerState* state) {
  Initialize(backend, Method::kUniform, options, state);
}

void InitializeAlternating(Backend* backend, const InitOptions& options, QuantizerState* state) {
  Initialize(backend, Method::kAlternating, options, state);
}

}  // namespace uniquanf::quant::cuda
