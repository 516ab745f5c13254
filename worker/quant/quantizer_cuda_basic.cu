// The quantizer's separate forward and backward passes: used at a block's start and end and by
// tests; the optimizer's loop runs the fused pass of quantizer_cuda_update.cu.
#include "worker/quant/quantizer_cuda.cuh"

namespace uniquanf::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kLongestWarpGroup = 1024;

template <typename Act>
struct PassArgs {
  const Act* weight;
  CodedScales coded;
  const float *log_delta, *log_scale, *zero_point, *shift, *alpha;
  int64_t num_groups;
  int group_size;
};

template <typename Act>
PassArgs<Act> ArgsOf(const QuantizerState& s) {
  return {Data<Act>(s.weight),     CodedScalesOf(s),   s.log_delta.f32(),
          s.log_scale_group.f32(), s.zero_point.f32(), s.shift.f32(),
          s.alpha.f32(),           NumGroups(s),       static_cast<int>(s.group_size)};
}

// A block (kBlock) or a warp of it on one group; teams of a block past the last group are idle.
template <bool kBlock>
struct Team {
  int64_t group;
  int index, size, slot;  // slot: which of the block's teams
  __device__ Team() {
    if constexpr (kBlock) {
      group = blockIdx.x;
      index = threadIdx.x, size = kThreads, slot = 0;
    } else {
      slot = threadIdx.x >> 5;
      group = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + slot;
      index = threadIdx.x & 31, size = 32;
    }
  }
};
template <bool kBlock>
inline constexpr int kTeams = kBlock ? 1 : kThreads / 32;

// Every thread's copy of a group's α and scalars, and its table of levels in shared memory.
template <int n, typename Act>
__device__ inline GroupScalars<n> LoadGroup(const PassArgs<Act>& a, int64_t group,
                                            float (&alpha)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) alpha[i] = a.alpha[group * n + i];
  return GroupScalars<n>(alpha, a.log_delta[group], a.log_scale[group], a.zero_point[group],
                         a.shift[group]);
}

template <typename Act, int n, bool kBlock>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const PassArgs<Act> a, Mapping mapping, Act* w_hat) {
  constexpr bool kExact = std::is_same_v<Act, float>;
  __shared__ __align__(16) float all_levels[kTeams<kBlock>][1 << n];
  const Team<kBlock> team;
  const bool valid = team.group < a.num_groups;
  const int64_t group = valid ? team.group : a.num_groups - 1;
  float alpha[n];
  const GroupScalars<n> scalars = LoadGroup<n>(a, group, alpha);
  float* levels = all_levels[team.slot];
  for (int c = team.index; c < (1 << n); c += team.size) levels[c] = LevelOf<n>(alpha, c);
  __syncthreads();
  if (!valid) return;
  for (int k = team.index; k < a.group_size; k += team.size) {
    const int64_t at = group * a.group_size + k;
    uint32_t code = a.coded.template Code<n>(at);
    if (mapping != Mapping::kKeep) {
      const float u = ToFloat(a.weight[at]) *
                          InverseWeightScale<kExact>(a.coded.template Scale<n>(at)) *
                          scalars.inverse_scale +
                      scalars.offset;
      code = mapping == Mapping::kDirect ? NearestLevel<n>(levels, u)
                                         : NearestNeighbour<n>(levels, u, code);
      a.coded.template StoreCode<n>(at, code);
    }
    if (w_hat != nullptr) {
      w_hat[at] = FromFloat<Act>((levels[code] - scalars.offset) * scalars.delta);
    }
  }
}

struct GradientPointers {
  float *s2, *log_delta, *log_scale, *alpha;
};

template <typename Act, int n, bool kBlock>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const PassArgs<Act> a, const Act* upstream, GradientPointers out) {
  constexpr bool kExact = std::is_same_v<Act, float>;
  __shared__ float shared[32];
  const Team<kBlock> team;
  if (team.group >= a.num_groups) return;  // whole warps, or no thread of a block
  float alpha[n];
  const GroupScalars<n> scalars = LoadGroup<n>(a, team.group, alpha);
  float sums[n + 2] = {};
  for (int k = team.index; k < a.group_size; k += team.size) {
    const int64_t at = team.group * a.group_size + k;
    const float scaled = ToFloat(a.weight[at]) *
                         InverseWeightScale<kExact>(a.coded.template Scale<n>(at)) *
                         scalars.inverse_scale;
    const uint32_t code = a.coded.template Code<n>(at);
    const float level = LevelOf<n>(alpha, code);
    const float gradient = ToFloat(upstream[at]) * scalars.delta;
    const bool pass = fabsf(scaled + scalars.offset - level) <= scalars.threshold;
    const float passed = pass ? gradient : 0.f;
    const float d = -passed * scaled;
#pragma unroll
    for (int i = 0; i < n; ++i) sums[i] += FlipBySign<n>(passed, code, i);
    sums[n] += d;
    sums[n + 1] += d + gradient * (level - scalars.offset);
    out.s2[at] = d;
  }
#pragma unroll
  for (int i = 0; i < n + 2; ++i) {
    const float sum = kBlock ? BlockSum(sums[i], shared) : WarpSum(sums[i]);
    if (team.index == 0) {
      float* where = i < n    ? out.alpha + team.group * n + i
                     : i == n ? out.log_scale + team.group
                              : out.log_delta + team.group;
      *where = sum;
    }
  }
}

template <typename Launch>
void DispatchTeam(const QuantizerState& s, const Launch& launch) {
  if (s.group_size > kLongestWarpGroup) {
    launch(std::true_type{}, static_cast<unsigned>(NumGroups(s)));
  } else {
    launch(std::false_type{}, static_cast<unsigned>(CeilDiv(NumGroups(s), kThreads / 32)));
  }
}

// One thread a weight.
template <typename Act, int n>
__global__ void __launch_bounds__(kThreads)
    StoredKernel(const CodedScales coded, const float* alpha, const float* beta,
                 int64_t num_weights, int group_size, Act* out) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= num_weights) return;
  const int64_t group = at / group_size;
  float scales[n];
#pragma unroll
  for (int i = 0; i < n; ++i) scales[i] = alpha[group * n + i];
  out[at] = FromFloat<Act>(LevelOf<n>(scales, coded.Code<n>(at)) + beta[group]);
}

__global__ void __launch_bounds__(kThreads)
    UnpackKernel(const float* s2, uint32_t mask, int64_t num_weights, uint8_t* codes) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at < num_weights) codes[at] = static_cast<uint8_t>(__float_as_uint(s2[at]) & mask);
}

}  // namespace

uint64_t ScratchBytes(int64_t num_outputs, int64_t num_inputs, int bits, int64_t group_size) {
  return 0;
}

void Forward(Backend* backend, Mapping mapping, QuantizerState* s, Tensor* w_hat) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(s->weight.dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchBits(s->bits, [&](auto bits) {
      DispatchTeam(*s, [&](auto block, unsigned blocks) {
        ForwardKernel<Act, bits.value, block.value><<<blocks, kThreads, 0, cuda->stream()>>>(
            ArgsOf<Act>(*s), mapping, w_hat == nullptr ? nullptr : Data<Act>(w_hat));
      });
    });
  });
  cuda->NoteLaunch();
}

void Backward(Backend* backend, const QuantizerState& s, const Tensor& upstream,
              Gradients* gradients) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const GradientPointers out = {gradients->log_scale_weight.f32(), gradients->log_delta.f32(),
                                gradients->log_scale_group.f32(), gradients->alpha.f32()};
  DispatchAct(s.weight.dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchBits(s.bits, [&](auto bits) {
      DispatchTeam(s, [&](auto block, unsigned blocks) {
        BackwardKernel<Act, bits.value, block.value>
            <<<blocks, kThreads, 0, cuda->stream()>>>(ArgsOf<Act>(s), Data<Act>(upstream), out);
      });
    });
  });
  cuda->NoteLaunch();
}

void UnpackCodes(Backend* backend, const QuantizerState& s, Tensor* codes) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t num_weights = codes->num_elements();
  UnpackKernel<<<static_cast<unsigned>(CeilDiv(num_weights, int64_t{kThreads})), kThreads, 0,
                 cuda->stream()>>>(s.log_scale_weight.f32(), CodeMask(s.bits), num_weights,
                                   codes->u8());
  cuda->NoteLaunch();
}

void WriteStored(Backend* backend, const StoredCodes& s, const Tensor& alpha, const Tensor& beta,
                 Tensor* out) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t num_weights = s.codes->num_elements();
  DispatchAct(out->dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchBits(s.bits, [&](auto bits) {
      StoredKernel<Act, bits.value>
          <<<static_cast<unsigned>(CeilDiv(num_weights, int64_t{kThreads})), kThreads, 0,
             cuda->stream()>>>(CodedScalesOf(s), alpha.f32(), beta.f32(), num_weights,
                               static_cast<int>(s.group_size), Data<Act>(out));
    });
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::quant::cuda
