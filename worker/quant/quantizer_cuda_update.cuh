// The fused optimizer step: gradients, Adam, and the next forward pass, reading and writing each
// byte of the state once (about 32 bytes a weight in bf16, 22 with a compact state).
//
// A group's parameters need sums over the whole group before its weights can be mapped again. So a
// team makes two passes: the first reads everything, updates s2 and keeps w·exp(−s2) and the code
// on chip; after the reduction and the group's own Adam step the second pass maps and writes ŵ.
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_UPDATE_CUH_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_UPDATE_CUH_

#include "worker/quant/quantizer_cuda_passes.cuh"

namespace uniquanf::quant::cuda {

// A block per group. Dynamic shared memory keeps w·exp(−s2) (f32) and the codes of the whole group
// when kKeep; else the second pass reads what the first wrote.
template <typename Act, typename Moment, int n, int V, bool kKeep>
__global__ void __launch_bounds__(1024, 1) UpdateLongGroups(const UpdateArgs<Act, Moment> a) {
  [[maybe_unused]] constexpr bool kExact = std::is_same_v<Act, float>;
  constexpr int kValues = n + 2;
  extern __shared__ float4 dynamic_shared[];
  __shared__ __align__(16) float levels[1 << n];
  __shared__ float parameters[kValues];
  __shared__ float partial[32][kValues];
  const int64_t group = blockIdx.x;
  const int g = a.group_size, tid = threadIdx.x, stride = blockDim.x * V;
  const int64_t base = group * g;
  auto* kept_all = reinterpret_cast<float*>(dynamic_shared);
  auto* codes_all = reinterpret_cast<uint8_t*>(kept_all + g);

  RawPiece<Act, Moment, n, V> next;
  int k = tid * V;
  if (k < g) next.Load(a, base + k);
  ParameterValue parameter;
  if (tid < kValues) {
    parameter.Load(GroupParameter<n>(a, group, tid));
    parameters[tid] = parameter.p;
  }
  const float zero_point = a.zero_point[group], shift = a.shift[group];
  const AdamStep uniform(a.params->uniform_learning_rate * a.learning_rate_scale, *a.params);
  const uint32_t rounding_key = RoundingKey(a.rounding_seed, a.params->draw);
  const auto mapping = static_cast<Mapping>(a.params->mapping);
  __syncthreads();
  for (int c = tid; c < (1 << n); c += blockDim.x) levels[c] = LevelOf<n>(parameters, c);
  __syncthreads();
  Sums<n> sums;
  {
    const GroupScalars<n> scalars = ScalarsOf<n>(parameters, zero_point, shift);
    while (k < g) {
      Piece<Act, Moment, n, V> piece;
      next.Unpack(&piece);
      const int at = k;
      k += stride;
      if (k < g) next.Load(a, base + k);
      float kept[V];
      FirstPass(a, scalars, uniform, rounding_key, levels, base + at, &piece, &sums, kept);
      if constexpr (kKeep) {
        if constexpr (V == 1) {
          kept_all[at] = kept[0];
        } else {
          StoreVector(kept_all + at, kept);
        }
        StoreCodes(codes_all + at, piece.code);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kValues; ++j) {
    const float sum = WarpSum(sums.value[j]);
    if ((tid & 31) == 0) partial[tid >> 5][j] = sum;
  }
  __syncthreads();
  if (tid < kValues) {
    float sum = 0;
    for (int warp = 0; warp < static_cast<int>(blockDim.x >> 5); ++warp) sum += partial[warp][tid];
    parameter.template Step<n>(a, uniform, group, tid, sum);
    parameters[tid] = parameter.p;
  }
  __syncthreads();
  for (int c = tid; c < (1 << n); c += blockDim.x) levels[c] = LevelOf<n>(parameters, c);
  __syncthreads();
  const GroupScalars<n> scalars = ScalarsOf<n>(parameters, zero_point, shift);
  for (k = tid * V; k < g; k += stride) {
    float kept[V];
    uint32_t code[V];
    if constexpr (kKeep) {
      if constexpr (V == 1) {
        kept[0] = kept_all[k];
        code[0] = codes_all[k];
      } else {
        LoadVector(kept_all + k, kept);
        const uint32_t word = *reinterpret_cast<const uint32_t*>(codes_all + k);
#pragma unroll
        for (int i = 0; i < V; ++i) code[i] = (word >> (8 * i)) & 0xff;
      }
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        float s2 = a.s2[base + k + i];
        if constexpr (UpdateArgs<Act, Moment>::kCompact) {
          code[i] = __float_as_uint(s2) & 0xff;
          s2 = __uint_as_float(__float_as_uint(s2) & ~CodeMask(n));
        } else {
          code[i] = a.codes[base + k + i];
        }
        kept[i] = ToFloat(a.weight[base + k + i]) * InverseWeightScale<kExact>(s2);
      }
    }
    SecondPass(a, scalars, mapping, levels, base + k, kept, code);
  }
}

constexpr int kShortThreads = 128;
constexpr int kShortWidth = 4;

// kLanes threads (1..32) per group of at most kLanes·4·kPieces weights, which stay in registers:
// few threads with many weights each, because what is done once per thread or group (sums, the
// group's step, levels) costs as much as a dozen weights. The group size is a multiple of 4.
template <typename Act, typename Moment, int n, int kPieces, int kLanes>
__global__ void __launch_bounds__(kShortThreads)
    UpdateShortGroups(const UpdateArgs<Act, Moment> a) {
  constexpr int V = kShortWidth;
  constexpr int kValues = n + 2;
  constexpr int kTeams = kShortThreads / kLanes;
  constexpr int kParametersPerLane = (kValues + kLanes - 1) / kLanes;
  extern __shared__ float4 dynamic_shared[];  // per team: 2^n levels, then n + 2 values padded
  const int team = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  auto* levels = reinterpret_cast<float*>(dynamic_shared) + team * (1 << n);
  auto* parameters =
      reinterpret_cast<float*>(dynamic_shared) + kTeams * (1 << n) + team * (kMaxBits + 3);
  const int64_t group_or_past = static_cast<int64_t>(blockIdx.x) * kTeams + team;
  const bool valid = group_or_past < a.num_groups;
  const int64_t group = valid ? group_or_past : a.num_groups - 1;
  const int g = valid ? a.group_size : 0;
  const int64_t base = group * a.group_size;

  RawPiece<Act, Moment, n, V> raw[kPieces];
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int k = (i * kLanes + lane) * V;
    if (k < g) raw[i].Load(a, base + k);
  }
  ParameterValue mine[kParametersPerLane];
#pragma unroll
  for (int i = 0; i < kParametersPerLane; ++i) {
    const int t = i * kLanes + lane;
    if (t < kValues) {
      mine[i].Load(GroupParameter<n>(a, group, t));
      parameters[t] = mine[i].p;
    }
  }
  const float zero_point = a.zero_point[group], shift = a.shift[group];
  const AdamStep uniform(a.params->uniform_learning_rate * a.learning_rate_scale, *a.params);
  const uint32_t rounding_key = RoundingKey(a.rounding_seed, a.params->draw);
  const auto mapping = static_cast<Mapping>(a.params->mapping);
  __syncwarp();
#pragma unroll
  for (int c = lane; c < (1 << n); c += kLanes) levels[c] = LevelOf<n>(parameters, c);
  __syncwarp();
  Sums<n> sums;
  float kept[kPieces][V];
  uint32_t code[kPieces][V];
  {
    const GroupScalars<n> scalars = ScalarsOf<n>(parameters, zero_point, shift);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int k = (i * kLanes + lane) * V;
      if (k < g) {
        Piece<Act, Moment, n, V> piece;
        raw[i].Unpack(&piece);
        FirstPass(a, scalars, uniform, rounding_key, levels, base + k, &piece, &sums, kept[i]);
#pragma unroll
        for (int j = 0; j < V; ++j) code[i][j] = piece.code[j];
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kValues; ++j) {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset >>= 1) {
      sums.value[j] += __shfl_xor_sync(kFullMask, sums.value[j], offset);
    }
  }
  __syncwarp();
  // Every lane has the sums; lane t takes parameter t (and t + kLanes, ...).
#pragma unroll
  for (int i = 0; i < kParametersPerLane; ++i) {
    float gradient = 0;
#pragma unroll
    for (int t = i * kLanes; t < (i + 1) * kLanes && t < kValues; ++t) {
      if (t == i * kLanes + lane) gradient = sums.value[t];
    }
    const int t = i * kLanes + lane;
    if (valid && t < kValues) {
      mine[i].template Step<n>(a, uniform, group, t, gradient);
      parameters[t] = mine[i].p;
    }
  }
  __syncwarp();
#pragma unroll
  for (int c = lane; c < (1 << n); c += kLanes) levels[c] = LevelOf<n>(parameters, c);
  __syncwarp();
  const GroupScalars<n> scalars = ScalarsOf<n>(parameters, zero_point, shift);
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int k = (i * kLanes + lane) * V;
    if (k < g) SecondPass(a, scalars, mapping, levels, base + k, kept[i], code[i]);
  }
}

template <typename Act, typename Moment, int n, int kPieces, int kLanes>
void LaunchTeams(CudaBackend* cuda, cudaStream_t stream, const UpdateArgs<Act, Moment>& args) {
  constexpr int kTeams = kShortThreads / kLanes;
  constexpr size_t kShared = kTeams * ((1 << n) + kMaxBits + 3) * sizeof(float);
  static_assert(kShared <= 48 * 1024);
  UpdateShortGroups<Act, Moment, n, kPieces, kLanes>
      <<<static_cast<unsigned>(CeilDiv(args.num_groups, kTeams)), kShortThreads, kShared, stream>>>(
          args);
  cuda->NoteLaunch();
}

template <int n, typename Act, typename Moment>
void LaunchShort(CudaBackend* cuda, cudaStream_t stream, const UpdateArgs<Act, Moment>& args) {
  if (args.group_size <= 16) return LaunchTeams<Act, Moment, n, 1, 4>(cuda, stream, args);
  if (args.group_size <= 64) return LaunchTeams<Act, Moment, n, 4, 4>(cuda, stream, args);
  if (args.group_size <= 128) return LaunchTeams<Act, Moment, n, 4, 8>(cuda, stream, args);
  if (args.group_size <= 256) return LaunchTeams<Act, Moment, n, 4, 16>(cuda, stream, args);
  return LaunchTeams<Act, Moment, n, 4, 32>(cuda, stream, args);
}

// Threads of a block for a group of `pieces` pieces: about four to eight pieces each (with fewer, a
// block spends its time waiting at barriers), and few threads idle in the last round.
inline int LongThreads(int64_t pieces) {
  int best = 1024;
  double least_waste = 1e30;
  for (int threads = 1024; threads >= 64; threads -= 32) {
    const int64_t rounds = CeilDiv(pieces, threads);
    if (rounds < 4 && threads > 64) continue;
    if (rounds > 8 && threads < 1024) break;
    const double waste = static_cast<double>(rounds * threads) / static_cast<double>(pieces);
    if (waste < least_waste - 0.01) {
      least_waste = waste;
      best = threads;
    }
  }
  return best;
}

template <int n, int V, typename Act, typename Moment>
void LaunchLong(CudaBackend* cuda, cudaStream_t stream, const UpdateArgs<Act, Moment>& args) {
  const int threads = LongThreads(CeilDiv(args.group_size, V));
  const size_t shared = static_cast<size_t>(args.group_size) * 5 + 16;
  const bool keep = shared + 4096 <= static_cast<size_t>(cuda->max_shared_bytes());
  const auto kernel = keep ? &UpdateLongGroups<Act, Moment, n, V, true>
                           : &UpdateLongGroups<Act, Moment, n, V, false>;
  if (keep && shared > 40000) {
    cuda->Note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared)));
  }
  kernel<<<static_cast<unsigned>(args.num_groups), threads, keep ? shared : 0, stream>>>(args);
  cuda->NoteLaunch();
}

// UpdateAndForward for one type of moments.
template <typename Moment>
void LaunchUpdate(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                  QuantizerState* s, Tensor* w_hat) {
  CudaBackend* cuda = CudaBackend::From(backend);
  // A small update leaves much of the device idle and may run beside the backward pass. A large one
  // uses all of its memory bandwidth and would only be in the way of the matrix products.
  cudaStream_t stream =
      s->weight.num_elements() <= kLargestAsideUpdate ? cuda->ForkForUpdate() : cuda->stream();
  DispatchAct(s->weight.dtype(), [&](auto act) {
    using Act = decltype(act);
    UpdateArgs<Act, Moment> args;
    args.params = params;
    args.upstream = Data<Act>(upstream);
    args.weight = Data<Act>(s->weight);
    args.s2 = s->log_scale_weight.f32();
    args.m = Data<Moment>(&s->m_log_scale_weight);
    args.v = Data<Moment>(&s->v_log_scale_weight);
    args.log_delta = {s->log_delta.f32(), s->m_log_delta.f32(), s->v_log_delta.f32()};
    args.log_scale = {s->log_scale_group.f32(), s->m_log_scale_group.f32(),
                      s->v_log_scale_group.f32()};
    args.alpha = {s->alpha.f32(), s->m_alpha.f32(), s->v_alpha.f32()};
    args.zero_point = s->zero_point.f32();
    args.shift = s->shift.f32();
    args.codes = s->packs_codes() ? nullptr : s->codes.u8();
    args.w_hat = Data<Act>(w_hat);
    args.num_groups = NumGroups(*s);
    args.group_size = static_cast<int>(s->group_size);
    args.train_uniform = s->trained.uniform;
    args.train_binary = s->trained.binary;
    args.learning_rate_scale = s->learning_rate_scale;
    args.rounding_seed = s->rounding_seed;
    DispatchBits(s->bits, [&](auto bits) {
      if (args.group_size % 4 == 0 && args.group_size <= 512) {
        LaunchShort<bits.value>(cuda, stream, args);
      } else if (args.group_size % 4 == 0) {
        LaunchLong<bits.value, 4>(cuda, stream, args);
      } else {
        LaunchLong<bits.value, 1>(cuda, stream, args);
      }
    });
  });
}

}  // namespace uniquanf::quant::cuda

#endif  // UNIQUANF_WORKER_QUANT_QUANTIZER_CUDA_UPDATE_CUH_
