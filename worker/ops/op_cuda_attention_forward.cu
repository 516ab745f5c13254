// Attention forward on tensor cores: FlashAttention-2 (Dao 2023). A block of four warps takes 64
// queries of one head, a warp 16 of them; keys and values stream through shared memory 64 at a
// time under an online softmax.
#include "worker/ops/op_cuda_attention_tile.cuh"

namespace uniquanf::ops::cuda {
namespace {

constexpr int kThreads = 128;

template <int D>
__global__ void __launch_bounds__(kThreads, D <= 128 ? 2 : 1)
    FlashForward(const TileShape s, int stages, const Bf16* q, const Bf16* k, const Bf16* v,
                 Bf16* out, float* lse) {
  extern __shared__ __align__(16) Bf16 shared[];
  const int query_tile = s.num_tiles - 1 - static_cast<int>(blockIdx.x);  // longest first
  const int head = blockIdx.y, kv_head = head / (s.num_heads / s.num_kv_heads);
  const int64_t batch = blockIdx.z;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t q_stride = static_cast<int64_t>(s.num_heads) * D;
  const int64_t kv_stride = static_cast<int64_t>(s.num_kv_heads) * D;
  q += batch * s.seq_len * q_stride + head * D;
  out += batch * s.seq_len * q_stride + head * D;
  k += batch * s.seq_len * kv_stride + kv_head * D;
  v += batch * s.seq_len * kv_stride + kv_head * D;
  Bf16* keys = shared;
  Bf16* values = keys + stages * kTileElements<D>;
  // Where queries stay in registers they pass through the last stage's values.
  Bf16* queries = kQueriesInRegisters<D> ? values + (stages - 1) * kTileElements<D>
                                         : values + stages * kTileElements<D>;
  const int first_tile = s.FirstKeyTile(query_tile), num_iterations = query_tile - first_tile + 1;
  const auto load = [&](int iteration) {
    const int slot = stages == 2 ? iteration & 1 : 0;
    const int first = (first_tile + iteration) * kTileRows;
    LoadTile<D, kThreads>(keys + slot * kTileElements<D>, k, kv_stride, first, s.seq_len);
    LoadTile<D, kThreads>(values + slot * kTileElements<D>, v, kv_stride, first, s.seq_len);
  };

  LoadTile<D, kThreads>(queries, q, q_stride, query_tile * kTileRows, s.seq_len);
  if (stages == 2) load(0);
  WaitCopies();
  __syncthreads();
  const uint32_t query_address =
      SharedAddress(queries) + warp * 16 * kRowStride<D> * 2 + LaneOffsetA<D>(lane);
  uint32_t query[kQueriesInRegisters<D> ? D / 16 : 1][4];
  if constexpr (kQueriesInRegisters<D>) {
#pragma unroll
    for (int depth = 0; depth < D / 16; ++depth)
      LoadMatrices(query_address + depth * 32, query[depth]);
    __syncthreads();
  }

  float sum[D / 8][4] = {};
  float max[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  const float factor = s.scale * kLog2E;
  const int row = query_tile * kTileRows + warp * 16 + lane / 4;  // and row + 8
  for (int iteration = 0; iteration < num_iterations; ++iteration) {
    if (stages == 2) {
      if (iteration + 1 < num_iterations) load(iteration + 1);
    } else {
      load(iteration);
      WaitCopies();
      __syncthreads();
    }
    const int slot = stages == 2 ? iteration & 1 : 0;
    const uint32_t key_address =
        SharedAddress(keys + slot * kTileElements<D>) + LaneOffsetB<D>(lane);
    float score[8][4] = {};
    if constexpr (kQueriesInRegisters<D>) {
#pragma unroll
      for (int depth = 0; depth < D / 16; ++depth) {
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          uint32_t b[4];
          LoadMatrices(key_address + (pair * 16 * kRowStride<D> + depth * 16) * 2, b);
          MultiplyAdd(score[2 * pair], query[depth], b[0], b[1]);
          MultiplyAdd(score[2 * pair + 1], query[depth], b[2], b[3]);
        }
      }
    } else {
      MultiplyTile<D>(query_address, key_address, score);
    }
    const int key_tile = first_tile + iteration;
    if (s.Masked(query_tile, key_tile)) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = key_tile * kTileRows + j * 8 + (lane & 3) * 2 + (e & 1);
          if (!s.Seen(row + (e >> 1) * 8, key)) score[j][e] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float new_max = max[half];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        new_max = fmaxf(new_max, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
      }
      new_max = fmaxf(new_max, __shfl_xor_sync(kFullMask, new_max, 1));
      new_max = fmaxf(new_max, __shfl_xor_sync(kFullMask, new_max, 2));
      // A row that has seen no key yet keeps all its weights zero.
      const float base = new_max == -INFINITY ? 0.f : new_max * factor;
      const float shrink = Exp2(max[half] * factor - base);
      max[half] = new_max;
      total[half] *= shrink;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          score[j][e] = Exp2(score[j][e] * factor - base);
          total[half] += score[j][e];
        }
      }
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        sum[j][2 * half] *= shrink;
        sum[j][2 * half + 1] *= shrink;
      }
    }
    AccumulateTile<D, D>(
        score, SharedAddress(values + slot * kTileElements<D>) + LaneOffsetTransposedB<D>(lane),
        sum);
    if (stages == 2) WaitCopies();
    __syncthreads();
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(kFullMask, total[half], 1);
    total[half] += __shfl_xor_sync(kFullMask, total[half], 2);
    const int i = row + half * 8;
    if (i >= s.seq_len) continue;
    const float inverse = 1.f / total[half];
    Bf16* to = out + i * q_stride + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      *reinterpret_cast<uint32_t*>(to + j * 8) =
          PackBf16(sum[j][2 * half] * inverse, sum[j][2 * half + 1] * inverse);
    }
    if ((lane & 3) == 0) {
      lse[(batch * s.num_heads + head) * s.seq_len + i] = max[half] * s.scale + logf(total[half]);
    }
  }
}

}  // namespace

bool TensorCoreAttentionFits(const CudaBackend& cuda, const AttentionShape& shape, DType act,
                             bool backward) {
  if (act != DType::kBfloat16 || shape.seq_len > (int64_t{1} << 30) || !(shape.scale > 0)) {
    return false;
  }
  // The plain kernels have these.
  if (shape.softcap > 0 || shape.sinks != nullptr || shape.slopes != nullptr) return false;
  if (shape.values() != shape.head_dim) return false;
  int stages = 0;
  DispatchTileHeadDim(shape.head_dim, [&](auto dim) {
    constexpr int D = dim.value;
    stages = backward ? NumStages(cuda, BackwardSharedBytes<D>(1), BackwardSharedBytes<D>(2))
                      : NumStages(cuda, ForwardSharedBytes<D>(1), ForwardSharedBytes<D>(2));
  });
  return stages > 0;
}

void TensorCoreAttentionForward(CudaBackend* cuda, const AttentionShape& shape,
                                const AttentionPointers& p) {
  const TileShape s = TileShapeOf(shape);
  DispatchTileHeadDim(shape.head_dim, [&](auto dim) {
    constexpr int D = dim.value;
    const int stages = NumStages(*cuda, ForwardSharedBytes<D>(1), ForwardSharedBytes<D>(2));
    const int bytes = ForwardSharedBytes<D>(stages);
    cuda->Note(
        cudaFuncSetAttribute(&FlashForward<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const dim3 grid(s.num_tiles, s.num_heads, static_cast<unsigned>(shape.batch));
    FlashForward<D><<<grid, kThreads, bytes, cuda->stream()>>>(
        s, stages, static_cast<const Bf16*>(p.q), static_cast<const Bf16*>(p.k),
        static_cast<const Bf16*>(p.v), static_cast<Bf16*>(p.out), p.lse);
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
