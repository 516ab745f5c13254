// Distillation's quantizer on CUDA. A warp on a short group, a block on a long one; a group's
// weights are read twice in an update: for the gradients, and for the codes that follow.
#include "worker/quant/latent_quantizer_device.h"
#include "worker/quant/quantizer_cuda.cuh"

namespace uniquanf::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kLongestWarpGroup = 1024;

struct AdamArgs {
  float step_size, inverse_sqrt_bias_correction2, beta2, one_minus_beta2;
};
AdamArgs MakeAdamArgs(float rate, const LatentStep& step) {
  return {rate / step.bias_correction1, 1.0f / std::sqrt(step.bias_correction2),
          static_cast<float>(kLatentBeta2), static_cast<float>(1 - kLatentBeta2)};
}
__device__ inline void Adam(const AdamArgs& a, float gradient, float* p, float* m, float* v) {
  const float first = *m + static_cast<float>(1 - 0.9) * (gradient - *m);
  const float second = *v * a.beta2 + a.one_minus_beta2 * gradient * gradient;
  *m = first;
  *v = second;
  *p -= a.step_size * first / (sqrtf(second) * a.inverse_sqrt_bias_correction2 + 1e-8f);
}

struct LatentArgs {
  float *u, *m_u, *v_u, *alpha, *m_alpha, *v_alpha, *beta, *m_beta, *v_beta;
  const float* delta;
  uint8_t* codes;
  int64_t num_groups;
  int group_size;
};
LatentArgs ArgsOf(LatentState* s) {
  return {s->latent.f32(),
          s->m_latent.f32(),
          s->v_latent.f32(),
          s->alpha.f32(),
          s->m_alpha.f32(),
          s->v_alpha.f32(),
          s->beta.f32(),
          s->m_beta.f32(),
          s->v_beta.f32(),
          s->delta.f32(),
          s->codes.u8(),
          s->num_outputs() * s->groups_per_row(),
          static_cast<int>(s->group_size)};
}

// A block (kBlock) or a warp of it on one group.
template <bool kBlock>
struct Team {
  int64_t group;
  int index, size, slot;
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
  __device__ float Sum(float x, float* shared) const {
    return kBlock ? BlockSum(x, shared) : WarpSum(x);
  }
  __device__ void Sync() const {
    if constexpr (kBlock) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }
};
template <bool kBlock>
inline constexpr int kTeams = kBlock ? 1 : kThreads / 32;

// Codes of the group's latents under α, and ŵ.
template <typename Act, int n, bool kBlock>
__device__ inline void ForwardGroup(const LatentArgs& a, const Team<kBlock>& team,
                                    const float (&alpha)[n], float beta, float* levels,
                                    Act* w_hat) {
  for (int c = team.index; c < (1 << n); c += team.size) levels[c] = LevelOf<n>(alpha, c);
  team.Sync();
  const float delta = a.delta[team.group];
  for (int k = team.index; k < a.group_size; k += team.size) {
    const int64_t at = team.group * a.group_size + k;
    const uint32_t code = NearestLevel<n>(levels, a.u[at]);
    a.codes[at] = static_cast<uint8_t>(code);
    w_hat[at] = FromFloat<Act>((levels[code] + beta) * delta);
  }
}

template <typename Act, int n, bool kBlock>
__global__ void __launch_bounds__(kThreads) ForwardKernel(const LatentArgs a, Act* w_hat) {
  __shared__ __align__(16) float all_levels[kTeams<kBlock>][1 << n];
  const Team<kBlock> team;
  if (team.group >= a.num_groups) return;  // whole warps, or no thread of a block
  float alpha[n];
#pragma unroll
  for (int i = 0; i < n; ++i) alpha[i] = a.alpha[team.group * n + i];
  ForwardGroup<Act, n, kBlock>(a, team, alpha, a.beta[team.group], all_levels[team.slot], w_hat);
}

// The group's sums of ΔG σ_i and of ΔG, in every thread; on_weight(at, d) gets each latent's
// gradient.
template <typename Upstream, int n, bool kBlock, typename OnWeight>
__device__ inline void BackwardGroup(const LatentArgs& a, const Team<kBlock>& team,
                                     const float (&alpha)[n], const Upstream* upstream,
                                     float* shared, float (&sums)[n + 1],
                                     const OnWeight& on_weight) {
  float threshold = fabsf(alpha[0]);
#pragma unroll
  for (int i = 1; i < n; ++i) threshold = fminf(threshold, fabsf(alpha[i]));
  const float delta = a.delta[team.group];
#pragma unroll
  for (int i = 0; i <= n; ++i) sums[i] = 0;
  for (int k = team.index; k < a.group_size; k += team.size) {
    const int64_t at = team.group * a.group_size + k;
    const uint32_t code = a.codes[at];
    const float scaled = delta * ToFloat(upstream[at]);
#pragma unroll
    for (int i = 0; i < n; ++i) sums[i] += FlipBySign<n>(scaled, code, i);
    sums[n] += scaled;
    on_weight(at, fabsf(a.u[at] - LevelOf<n>(alpha, code)) <= threshold ? scaled : 0.f);
  }
#pragma unroll
  for (int i = 0; i <= n; ++i) sums[i] = team.Sum(sums[i], shared);
}

template <typename Act, typename Upstream, int n, bool kBlock>
__global__ void __launch_bounds__(kThreads)
    UpdateKernel(const LatentArgs a, AdamArgs latent, AdamArgs scale, const Upstream* upstream,
                 Act* w_hat) {
  __shared__ __align__(16) float all_levels[kTeams<kBlock>][1 << n];
  __shared__ float shared[32];
  const Team<kBlock> team;
  if (team.group >= a.num_groups) return;
  float alpha[n], sums[n + 1];
#pragma unroll
  for (int i = 0; i < n; ++i) alpha[i] = a.alpha[team.group * n + i];
  float beta = a.beta[team.group];
  BackwardGroup<Upstream, n, kBlock>(
      a, team, alpha, upstream, shared, sums,
      [&](int64_t at, float d) { Adam(latent, d, a.u + at, a.m_u + at, a.v_u + at); });
  // Every thread computes the new scales, the first one stores them.
#pragma unroll
  for (int i = 0; i <= n; ++i) {
    const int64_t at = i < n ? team.group * n + i : team.group;
    float p = i < n ? alpha[i < n ? i : 0] : beta;
    float m = (i < n ? a.m_alpha : a.m_beta)[at], v = (i < n ? a.v_alpha : a.v_beta)[at];
    Adam(scale, sums[i], &p, &m, &v);
    if (i < n) {
      alpha[i < n ? i : 0] = p;
    } else {
      beta = p;
    }
    team.Sync();  // the moments have been read
    if (team.index == 0) {
      (i < n ? a.alpha : a.beta)[at] = p;
      (i < n ? a.m_alpha : a.m_beta)[at] = m;
      (i < n ? a.v_alpha : a.v_beta)[at] = v;
    }
  }
  ForwardGroup<Act, n, kBlock>(a, team, alpha, beta, all_levels[team.slot], w_hat);
}

template <typename Upstream, int n, bool kBlock>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const LatentArgs a, const Upstream* upstream, float* d_latent, float* d_alpha,
                   float* d_beta) {
  __shared__ float shared[32];
  const Team<kBlock> team;
  if (team.group >= a.num_groups) return;
  float alpha[n], sums[n + 1];
#pragma unroll
  for (int i = 0; i < n; ++i) alpha[i] = a.alpha[team.group * n + i];
  BackwardGroup<Upstream, n, kBlock>(a, team, alpha, upstream, shared, sums,
                                     [&](int64_t at, float d) { d_latent[at] = d; });
  if (team.index != 0) return;
#pragma unroll
  for (int i = 0; i < n; ++i) d_alpha[team.group * n + i] = sums[i];
  d_beta[team.group] = sums[n];
}

// Calls launch(bits, block_team, num_blocks) with compile-time constants in its first two.
template <typename Launch>
void Dispatch(const LatentState& s, const Launch& launch) {
  const int64_t num_groups = s.num_outputs() * s.groups_per_row();
  DispatchBits(s.bits, [&](auto bits) {
    if (s.group_size > kLongestWarpGroup) {
      launch(bits, std::true_type{}, static_cast<unsigned>(num_groups));
    } else {
      launch(bits, std::false_type{}, static_cast<unsigned>(CeilDiv(num_groups, kThreads / 32)));
    }
  });
}

}  // namespace

void ForwardLatents(Backend* backend, LatentState* state, Tensor* w_hat) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(w_hat->dtype(), [&](auto act) {
    using Act = decltype(act);
    Dispatch(*state, [&](auto bits, auto block, unsigned blocks) {
      ForwardKernel<Act, bits.value, block.value>
          <<<blocks, kThreads, 0, cuda->stream()>>>(ArgsOf(state), Data<Act>(w_hat));
    });
  });
  cuda->NoteLaunch();
}

void BackwardLatents(Backend* backend, const LatentState& state, const Tensor& upstream,
                     LatentGradients* gradients) {
  CudaBackend* cuda = CudaBackend::From(backend);
  DispatchAct(upstream.dtype(), [&](auto act) {
    using Upstream = decltype(act);
    Dispatch(state, [&](auto bits, auto block, unsigned blocks) {
      BackwardKernel<Upstream, bits.value, block.value><<<blocks, kThreads, 0, cuda->stream()>>>(
          ArgsOf(const_cast<LatentState*>(&state)), Data<Upstream>(upstream),
          gradients->latent.f32(), gradients->alpha.f32(), gradients->beta.f32());
    });
  });
  cuda->NoteLaunch();
}

void UpdateLatents(Backend* backend, const LatentStep& step, const Tensor& upstream,
                   LatentState* state, Tensor* w_hat) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const AdamArgs latent = MakeAdamArgs(step.latent_rate, step),
                 scale = MakeAdamArgs(step.scale_rate, step);
  DispatchAct(w_hat->dtype(), [&](auto act) {
    using Act = decltype(act);
    DispatchAct(upstream.dtype(), [&](auto gradient) {
      using Upstream = decltype(gradient);
      Dispatch(*state, [&](auto bits, auto block, unsigned blocks) {
        UpdateKernel<Act, Upstream, bits.value, block.value>
            <<<blocks, kThreads, 0, cuda->stream()>>>(ArgsOf(state), latent, scale,
                                                      Data<Upstream>(upstream), Data<Act>(w_hat));
      });
    });
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::quant::cuda
