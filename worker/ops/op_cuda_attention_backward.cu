// Attention backward on tensor cores, without atomics: one kernel makes dq (and the row sums
// delta = Σ dout·out), a second one makes dk and dv, running over the query heads of its group in
// order. Both recompute the weights from the log-sum-exps.
#include "worker/ops/op_cuda_attention_tile.cuh"

namespace uniquanf::ops::cuda {
namespace {

// Accumulators of 16 rows × 2 × 256 columns do not fit in registers, so at D = 256 two warps share
// 16 keys, each with half the columns of dk and dv.
template <int D>
inline constexpr int kSplit = D > 128 ? 2 : 1;

constexpr int kQueryThreads = 128;

template <int D>
__global__ void __launch_bounds__(kQueryThreads)
    FlashBackwardQuery(const TileShape s, int stages, const Bf16* q, const Bf16* k, const Bf16* v,
                       const Bf16* out, const Bf16* dout, const float* lse, float* delta,
                       Bf16* dq) {
  extern __shared__ __align__(16) Bf16 shared[];
  __shared__ float row_delta[kTileRows];
  const int query_tile = s.num_tiles - 1 - static_cast<int>(blockIdx.x);  // longest first
  const int head = blockIdx.y, kv_head = head / (s.num_heads / s.num_kv_heads);
  const int64_t batch = blockIdx.z;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t q_stride = static_cast<int64_t>(s.num_heads) * D;
  const int64_t kv_stride = static_cast<int64_t>(s.num_kv_heads) * D;
  const int64_t q_offset = batch * s.seq_len * q_stride + head * D;
  k += batch * s.seq_len * kv_stride + kv_head * D;
  v += batch * s.seq_len * kv_stride + kv_head * D;
  const int64_t rows = (batch * s.num_heads + head) * s.seq_len;
  Bf16* queries = shared;
  Bf16* douts = queries + kTileElements<D>;
  Bf16* keys = douts + kTileElements<D>;
  Bf16* values = keys + stages * kTileElements<D>;
  const int first_query = query_tile * kTileRows;
  const int first_tile = s.FirstKeyTile(query_tile), num_iterations = query_tile - first_tile + 1;
  const auto load = [&](int iteration) {
    const int slot = stages == 2 ? iteration & 1 : 0;
    const int first = (first_tile + iteration) * kTileRows;
    LoadTile<D, kQueryThreads>(keys + slot * kTileElements<D>, k, kv_stride, first, s.seq_len);
    LoadTile<D, kQueryThreads>(values + slot * kTileElements<D>, v, kv_stride, first, s.seq_len);
  };
  LoadTile<D, kQueryThreads>(queries, q + q_offset, q_stride, first_query, s.seq_len);
  LoadTile<D, kQueryThreads>(douts, dout + q_offset, q_stride, first_query, s.seq_len);
  if (stages == 2) load(0);
  {
    // Two threads a row.
    const int i = threadIdx.x >> 1;
    float sum = 0;
    if (first_query + i < s.seq_len) {
      const int64_t at = q_offset + (first_query + i) * q_stride;
#pragma unroll
      for (int c = (threadIdx.x & 1) * 8; c < D; c += 16) {
        float a[8], b[8];
        LoadVector(out + at + c, a);
        LoadVector(dout + at + c, b);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += a[j] * b[j];
      }
    }
    sum += __shfl_xor_sync(kFullMask, sum, 1);
    if ((threadIdx.x & 1) == 0) {
      row_delta[i] = sum;
      if (first_query + i < s.seq_len) delta[rows + first_query + i] = sum;
    }
  }
  WaitCopies();
  __syncthreads();

  const uint32_t warp_rows = warp * 16 * kRowStride<D> * 2 + LaneOffsetA<D>(lane);
  const uint32_t query_address = SharedAddress(queries) + warp_rows;
  const uint32_t dout_address = SharedAddress(douts) + warp_rows;
  const int local_row = warp * 16 + lane / 4, row = first_query + local_row;  // and + 8
  float my_lse[2], my_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + half * 8;
    my_lse[half] = i < s.seq_len ? lse[rows + i] * kLog2E : 0.f;
    my_delta[half] = row_delta[local_row + half * 8];
  }
  const float factor = s.scale * kLog2E;
  float sum[D / 8][4] = {};
  for (int iteration = 0; iteration < num_iterations; ++iteration) {
    if (stages == 2) {
      if (iteration + 1 < num_iterations) load(iteration + 1);
    } else {
      load(iteration);
      WaitCopies();
      __syncthreads();
    }
    const int slot = stages == 2 ? iteration & 1 : 0;
    const uint32_t key_tile_address = SharedAddress(keys + slot * kTileElements<D>);
    const uint32_t value_tile_address = SharedAddress(values + slot * kTileElements<D>);
    float p[8][4] = {}, dp[8][4] = {};
    MultiplyTile<D>(query_address, key_tile_address + LaneOffsetB<D>(lane), p);
    MultiplyTile<D>(dout_address, value_tile_address + LaneOffsetB<D>(lane), dp);
    const int key_tile = first_tile + iteration;
    const bool masked = s.Masked(query_tile, key_tile);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int half = e >> 1;
        float weight = Exp2(p[j][e] * factor - my_lse[half]);
        if (masked) {
          const int key = key_tile * kTileRows + j * 8 + (lane & 3) * 2 + (e & 1);
          if (!s.Seen(row + half * 8, key)) weight = 0;
        }
        p[j][e] = weight * (dp[j][e] - my_delta[half]);
      }
    }
    AccumulateTile<D, D>(p, key_tile_address + LaneOffsetTransposedB<D>(lane), sum);
    if (stages == 2) WaitCopies();
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + half * 8;
    if (i >= s.seq_len) continue;
    Bf16* to = dq + q_offset + i * q_stride + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      *reinterpret_cast<uint32_t*>(to + j * 8) =
          PackBf16(sum[j][2 * half] * s.scale, sum[j][2 * half + 1] * s.scale);
    }
  }
}

// Blocks are issued from the tile with most work on, then, once every multiprocessor has one, from
// the least on, so that pairs on a multiprocessor carry about the same. Speed only.
__device__ inline int RankOfBlock(int block, int num_blocks, int num_multiprocessors) {
  return block < num_multiprocessors ? block : num_blocks - 1 - (block - num_multiprocessors);
}

template <int D>
__global__ void __launch_bounds__(128 * kSplit<D>)
    FlashBackwardKey(const TileShape s, int stages, int num_multiprocessors, const Bf16* q,
                     const Bf16* k, const Bf16* v, const Bf16* dout, const float* lse,
                     const float* delta, Bf16* dk, Bf16* dv) {
  constexpr int kThreads = 128 * kSplit<D>;
  constexpr int kColumns = D / kSplit<D>;
  extern __shared__ __align__(16) Bf16 shared[];
  const int rank = RankOfBlock(blockIdx.x, gridDim.x, num_multiprocessors);
  const int heads_and_batches = gridDim.x / s.num_tiles;
  const int key_tile = rank / heads_and_batches;
  const int kv_head = rank % heads_and_batches % s.num_kv_heads;
  const int64_t batch = rank % heads_and_batches / s.num_kv_heads;
  const int warp = (threadIdx.x >> 5) & 3, part = threadIdx.x >> 7, lane = threadIdx.x & 31;
  const int64_t q_stride = static_cast<int64_t>(s.num_heads) * D;
  const int64_t kv_stride = static_cast<int64_t>(s.num_kv_heads) * D;
  const int64_t kv_offset = batch * s.seq_len * kv_stride + kv_head * D;
  q += batch * s.seq_len * q_stride;
  dout += batch * s.seq_len * q_stride;
  Bf16* keys = shared;
  Bf16* values = keys + kTileElements<D>;
  Bf16* queries = values + kTileElements<D>;
  Bf16* douts = queries + stages * kTileElements<D>;
  auto* lses = reinterpret_cast<float*>(douts + stages * kTileElements<D>);
  float* deltas = lses + stages * kTileRows;
  const int first_key = key_tile * kTileRows;
  const int heads_per_key = s.num_heads / s.num_kv_heads;
  const int tiles_per_head = s.EndQueryTile(key_tile) - key_tile;
  const int num_iterations = heads_per_key * tiles_per_head;
  const auto load = [&](int iteration) {
    const int slot = stages == 2 ? iteration & 1 : 0;
    const int head = kv_head * heads_per_key + iteration / tiles_per_head;
    const int first = (key_tile + iteration % tiles_per_head) * kTileRows;
    LoadTile<D, kThreads>(queries + slot * kTileElements<D>, q + head * D, q_stride, first,
                          s.seq_len);
    LoadTile<D, kThreads>(douts + slot * kTileElements<D>, dout + head * D, q_stride, first,
                          s.seq_len);
    if (threadIdx.x < 2 * kTileRows) {
      const int i = threadIdx.x % kTileRows;
      const bool valid = first + i < s.seq_len;
      const int64_t at = (batch * s.num_heads + head) * s.seq_len + (valid ? first + i : 0);
      const bool is_lse = threadIdx.x < kTileRows;
      CopyAsync4(SharedAddress((is_lse ? lses : deltas) + slot * kTileRows + i),
                 (is_lse ? lse : delta) + at, valid);
    }
  };
  LoadTile<D, kThreads>(keys, k + kv_offset, kv_stride, first_key, s.seq_len);
  LoadTile<D, kThreads>(values, v + kv_offset, kv_stride, first_key, s.seq_len);
  if (stages == 2) load(0);
  WaitCopies();
  __syncthreads();

  const uint32_t warp_rows = warp * 16 * kRowStride<D> * 2 + LaneOffsetA<D>(lane);
  const uint32_t key_address = SharedAddress(keys) + warp_rows;
  const uint32_t value_address = SharedAddress(values) + warp_rows;
  const int row = first_key + warp * 16 + lane / 4;  // and + 8
  const float factor = s.scale * kLog2E;
  float key_sum[kColumns / 8][4] = {}, value_sum[kColumns / 8][4] = {};
  for (int iteration = 0; iteration < num_iterations; ++iteration) {
    if (stages == 2) {
      if (iteration + 1 < num_iterations) load(iteration + 1);
    } else {
      load(iteration);
      WaitCopies();
      __syncthreads();
    }
    const int slot = stages == 2 ? iteration & 1 : 0;
    const uint32_t query_tile_address = SharedAddress(queries + slot * kTileElements<D>);
    const uint32_t dout_tile_address = SharedAddress(douts + slot * kTileElements<D>);
    const uint32_t columns = part * kColumns * 2;
    // Transposed: 16 keys × 64 queries.
    float p[8][4] = {};
    MultiplyTile<D>(key_address, query_tile_address + LaneOffsetB<D>(lane), p);
    const int query_tile = key_tile + iteration % tiles_per_head;
    const bool masked = s.Masked(query_tile, key_tile);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 l =
          *reinterpret_cast<const float2*>(lses + slot * kTileRows + j * 8 + (lane & 3) * 2);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        p[j][e] = Exp2(p[j][e] * factor - (e & 1 ? l.y : l.x) * kLog2E);
        if (masked) {
          const int query = query_tile * kTileRows + j * 8 + (lane & 3) * 2 + (e & 1);
          if (!s.Seen(query, row + (e >> 1) * 8)) p[j][e] = 0;
        }
      }
    }
    AccumulateTile<D, kColumns>(p, dout_tile_address + columns + LaneOffsetTransposedB<D>(lane),
                                value_sum);
    float dp[8][4] = {};
    MultiplyTile<D>(value_address, dout_tile_address + LaneOffsetB<D>(lane), dp);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 d =
          *reinterpret_cast<const float2*>(deltas + slot * kTileRows + j * 8 + (lane & 3) * 2);
#pragma unroll
      for (int e = 0; e < 4; ++e) p[j][e] *= dp[j][e] - (e & 1 ? d.y : d.x);
    }
    AccumulateTile<D, kColumns>(p, query_tile_address + columns + LaneOffsetTransposedB<D>(lane),
                                key_sum);
    if (stages == 2) WaitCopies();
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + half * 8;
    if (i >= s.seq_len) continue;
    const int64_t at = kv_offset + i * kv_stride + part * kColumns + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      *reinterpret_cast<uint32_t*>(dk + at + j * 8) =
          PackBf16(key_sum[j][2 * half] * s.scale, key_sum[j][2 * half + 1] * s.scale);
      *reinterpret_cast<uint32_t*>(dv + at + j * 8) =
          PackBf16(value_sum[j][2 * half], value_sum[j][2 * half + 1]);
    }
  }
}

}  // namespace

void TensorCoreAttentionBackward(CudaBackend* cuda, const AttentionShape& shape,
                                 const AttentionPointers& p) {
  const TileShape s = TileShapeOf(shape);
  const auto *q = static_cast<const Bf16*>(p.q), *k = static_cast<const Bf16*>(p.k),
             *v = static_cast<const Bf16*>(p.v), *out = static_cast<const Bf16*>(p.out),
             *dout = static_cast<const Bf16*>(p.dout);
  DispatchTileHeadDim(shape.head_dim, [&](auto dim) {
    constexpr int D = dim.value;
    const int stages = NumStages(*cuda, BackwardSharedBytes<D>(1), BackwardSharedBytes<D>(2));
    const int bytes = BackwardSharedBytes<D>(stages);
    cuda->Note(cudaFuncSetAttribute(&FlashBackwardQuery<D>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const dim3 grid(s.num_tiles, s.num_heads, static_cast<unsigned>(shape.batch));
    FlashBackwardQuery<D><<<grid, kQueryThreads, bytes, cuda->stream()>>>(
        s, stages, q, k, v, out, dout, p.lse, p.delta, static_cast<Bf16*>(p.dq));
    cuda->NoteLaunch();
    cuda->Note(cudaFuncSetAttribute(&FlashBackwardKey<D>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const auto blocks = static_cast<unsigned>(int64_t{s.num_tiles} * s.num_kv_heads * shape.batch);
    FlashBackwardKey<D><<<blocks, 128 * kSplit<D>, bytes, cuda->stream()>>>(
        s, stages, cuda->num_multiprocessors(), q, k, v, dout, p.lse, p.delta,
        static_cast<Bf16*>(p.dk), static_cast<Bf16*>(p.dv));
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
