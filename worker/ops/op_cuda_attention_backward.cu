// Attention backward on tensor cores, without atomics: one kernel makes dk and dv, running over the
// query heads of its group in order, and another makes dq. Both recompute the weights from the
// log-sum-exps; where scratch memory allows, only the first does, and it leaves the scores'
// gradients behind for the second.
#include "worker/ops/op_cuda_attention_tile.cuh"

namespace uniquanf::ops::cuda {
namespace {

// Accumulators of 16 rows × 2 × 256 columns do not fit in registers, so at D = 256 two warps share
// 16 keys, each with half the columns of dk and dv.
template <int D>
inline constexpr int kSplit = D > 128 ? 2 : 1;

constexpr int kQueryThreads = 128;

// The scores' gradients of one pair of tiles lie as the fragments of an A operand: [16 queries]
// [16 keys][lane], 16 bytes each. Pairs above the diagonal have no place.
constexpr int kFragmentsPerPair = 4 * 4 * 32;
__host__ __device__ inline int64_t PairsPerHead(int64_t num_tiles) {
  return num_tiles * (num_tiles + 1) / 2;
}
__device__ inline int64_t FirstFragment(const TileShape& s, int64_t head_and_batch, int query_tile,
                                        int key_tile) {
  const int64_t pair = static_cast<int64_t>(query_tile) * (query_tile + 1) / 2 + key_tile;
  return (head_and_batch * PairsPerHead(s.num_tiles) + pair) * kFragmentsPerPair;
}
__device__ inline uint32_t Transpose8x8(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// delta = Σ dout·out of each row [batch, L, Hq, D]; a warp a row.
template <int D>
__global__ void __launch_bounds__(256)
    RowDeltas(const Bf16* out, const Bf16* dout, int64_t num_rows, int seq_len, int num_heads,
              float* delta) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * 8 + (threadIdx.x >> 5);
  const int lane = threadIdx.x & 31;
  if (row >= num_rows) return;
  float sum = 0;
  if (lane * 8 < D) {
    float a[8], b[8];
    LoadVector(out + row * D + lane * 8, a);
    LoadVector(dout + row * D + lane * 8, b);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += a[j] * b[j];
  }
  sum = WarpSum(sum);
  if (lane == 0) {
    const int64_t token = row / num_heads, head = row - token * num_heads;
    const int64_t batch = token / seq_len;
    delta[(batch * num_heads + head) * seq_len + (token - batch * seq_len)] = sum;
  }
}

// dq from the scores' gradients.
template <int D>
__global__ void __launch_bounds__(kQueryThreads)
    QueryGradients(const TileShape s, const Bf16* k, const uint4* dscores, Bf16* dq) {
  extern __shared__ __align__(16) Bf16 shared[];                          // two tiles of keys
  const int query_tile = s.num_tiles - 1 - static_cast<int>(blockIdx.x);  // longest first
  const int head = blockIdx.y, kv_head = head / (s.num_heads / s.num_kv_heads);
  const int64_t batch = blockIdx.z;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t q_stride = static_cast<int64_t>(s.num_heads) * D;
  const int64_t kv_stride = static_cast<int64_t>(s.num_kv_heads) * D;
  k += batch * s.seq_len * kv_stride + kv_head * D;
  dq += batch * s.seq_len * q_stride + head * D;
  const int first_tile = s.FirstKeyTile(query_tile), num_iterations = query_tile - first_tile + 1;
  const uint4* fragments = dscores +
                           FirstFragment(s, batch * s.num_heads + head, query_tile, first_tile) +
                           warp * 4 * 32 + lane;
  const auto load = [&](int iteration) {
    LoadTile<D, kQueryThreads>(shared + (iteration & 1) * kTileElements<D>, k, kv_stride,
                               (first_tile + iteration) * kTileRows, s.seq_len);
  };
  uint4 next[4];
  const auto load_fragments = [&](int iteration) {
#pragma unroll
    for (int depth = 0; depth < 4; ++depth) {
      next[depth] = fragments[iteration * kFragmentsPerPair + depth * 32];
    }
  };
  load(0);
  load_fragments(0);
  WaitCopies();
  __syncthreads();
  float sum[D / 8][4] = {};
  for (int iteration = 0; iteration < num_iterations; ++iteration) {
    uint32_t a[4][4];
#pragma unroll
    for (int depth = 0; depth < 4; ++depth) {
      a[depth][0] = next[depth].x, a[depth][1] = next[depth].y;
      a[depth][2] = next[depth].z, a[depth][3] = next[depth].w;
    }
    if (iteration + 1 < num_iterations) {
      load(iteration + 1);
      load_fragments(iteration + 1);
    }
    const uint32_t tile_address =
        SharedAddress(shared + (iteration & 1) * kTileElements<D>) + LaneOffsetTransposedB<D>(lane);
#pragma unroll
    for (int depth = 0; depth < 4; ++depth) {
#pragma unroll
      for (int pair = 0; pair < D / 16; ++pair) {
        uint32_t b[4];
        LoadMatricesTransposed(tile_address + (depth * 16 * kRowStride<D> + pair * 16) * 2, b);
        MultiplyAdd(sum[2 * pair], a[depth], b[0], b[1]);
        MultiplyAdd(sum[2 * pair + 1], a[depth], b[2], b[3]);
      }
    }
    WaitCopies();
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = query_tile * kTileRows + warp * 16 + lane / 4 + half * 8;
    if (i >= s.seq_len) continue;
    Bf16* to = dq + i * q_stride + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      *reinterpret_cast<uint32_t*>(to + j * 8) =
          PackBf16(sum[j][2 * half] * s.scale, sum[j][2 * half + 1] * s.scale);
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kQueryThreads)
    FlashBackwardQuery(const TileShape s, int stages, const Bf16* q, const Bf16* k, const Bf16* v,
                       const Bf16* dout, const float* lse, const float* delta, Bf16* dq) {
  extern __shared__ __align__(16) Bf16 shared[];
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
  WaitCopies();
  __syncthreads();

  const uint32_t warp_rows = warp * 16 * kRowStride<D> * 2 + LaneOffsetA<D>(lane);
  const uint32_t query_address = SharedAddress(queries) + warp_rows;
  const uint32_t dout_address = SharedAddress(douts) + warp_rows;
  const int row = first_query + warp * 16 + lane / 4;  // and + 8
  float my_lse[2], my_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + half * 8;
    my_lse[half] = i < s.seq_len ? lse[rows + i] * kLog2E : 0.f;
    my_delta[half] = i < s.seq_len ? delta[rows + i] : 0.f;
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
                     const float* delta, Bf16* dk, Bf16* dv, uint4* dscores) {
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
    if (dscores != nullptr && part == 0) {
      const int head = kv_head * heads_per_key + iteration / tiles_per_head;
      uint4* to = dscores + FirstFragment(s, batch * s.num_heads + head, query_tile, key_tile) +
                  warp * 32 + lane;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to[i * 4 * 32] = make_uint4(Transpose8x8(PackBf16(p[2 * i][0], p[2 * i][1])),
                                    Transpose8x8(PackBf16(p[2 * i + 1][0], p[2 * i + 1][1])),
                                    Transpose8x8(PackBf16(p[2 * i][2], p[2 * i][3])),
                                    Transpose8x8(PackBf16(p[2 * i + 1][2], p[2 * i + 1][3])));
      }
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

size_t ScoreGradientBytes(const AttentionShape& shape) {
  const int64_t pairs = PairsPerHead(CeilDiv(shape.seq_len, kTileRows));
  return static_cast<size_t>(shape.batch * shape.num_heads * pairs) * kFragmentsPerPair *
         sizeof(uint4);
}

void TensorCoreAttentionBackward(CudaBackend* cuda, const AttentionShape& shape,
                                 const AttentionPointers& p) {
  const TileShape s = TileShapeOf(shape);
  const auto *q = static_cast<const Bf16*>(p.q), *k = static_cast<const Bf16*>(p.k),
             *v = static_cast<const Bf16*>(p.v), *dout = static_cast<const Bf16*>(p.dout);
  DispatchTileHeadDim(shape.head_dim, [&](auto dim) {
    constexpr int D = dim.value;
    const int stages = NumStages(*cuda, BackwardSharedBytes<D>(1), BackwardSharedBytes<D>(2));
    const int bytes = BackwardSharedBytes<D>(stages);
    cuda->Note(cudaFuncSetAttribute(&FlashBackwardQuery<D>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const dim3 grid(s.num_tiles, s.num_heads, static_cast<unsigned>(shape.batch));
    const int64_t num_rows = shape.batch * shape.seq_len * shape.num_heads;
    RowDeltas<D><<<static_cast<unsigned>(CeilDiv(num_rows, 8)), 256, 0, cuda->stream()>>>(
        static_cast<const Bf16*>(p.out), dout, num_rows, s.seq_len, s.num_heads, p.delta);
    cuda->NoteLaunch();
    cuda->Note(cudaFuncSetAttribute(&FlashBackwardKey<D>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const auto blocks = static_cast<unsigned>(int64_t{s.num_tiles} * s.num_kv_heads * shape.batch);
    FlashBackwardKey<D><<<blocks, 128 * kSplit<D>, bytes, cuda->stream()>>>(
        s, stages, cuda->num_multiprocessors(), q, k, v, dout, p.lse, p.delta,
        static_cast<Bf16*>(p.dk), static_cast<Bf16*>(p.dv), static_cast<uint4*>(p.dscores));
    cuda->NoteLaunch();
    if (p.dscores != nullptr) {
      constexpr int kBytes = 2 * kTileElements<D> * 2;
      cuda->Note(cudaFuncSetAttribute(&QueryGradients<D>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
      QueryGradients<D><<<grid, kQueryThreads, kBytes, cuda->stream()>>>(
          s, k, static_cast<const uint4*>(p.dscores), static_cast<Bf16*>(p.dq));
    } else {
      cuda->Note(cudaFuncSetAttribute(&FlashBackwardQuery<D>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
      FlashBackwardQuery<D><<<grid, kQueryThreads, bytes, cuda->stream()>>>(
          s, stages, q, k, v, dout, p.lse, p.delta, static_cast<Bf16*>(p.dq));
    }
  });
  cuda->NoteLaunch();
}

}  // namespace uniquanf::ops::cuda
