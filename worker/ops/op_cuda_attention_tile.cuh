// Tiles, copies and tensor-core fragments of the attention kernels (mma.sync m16n8k16 in bf16 with
// fp32 accumulation, compute capability 8.0 and later).
//
// A tile is 64 rows of D bf16 in shared memory, its rows padded by 16 bytes: the row stride is an
// odd multiple of 16 bytes, so the eight rows an ldmatrix reads lie in different banks.
#ifndef UNIQUANF_WORKER_OPS_OP_CUDA_ATTENTION_TILE_CUH_
#define UNIQUANF_WORKER_OPS_OP_CUDA_ATTENTION_TILE_CUH_

#include "worker/backend/cuda_device.cuh"
#include "worker/ops/op_cuda_attention.h"

namespace uniquanf::ops::cuda {

using namespace uniquanf::cuda;  // NOLINT: kernels' helpers

using Bf16 = __nv_bfloat16;
inline constexpr int kTileRows = 64;
inline constexpr float kLog2E = 1.4426950408889634f;

template <int D>
inline constexpr int kRowStride = D + 8;
template <int D>
inline constexpr int kTileElements = kTileRows* kRowStride<D>;

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
// Copies 16 (or 4) bytes asynchronously, or fills with zeros when !valid.
__device__ inline void CopyAsync16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0));
}
__device__ inline void CopyAsync4(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(from),
               "r"(valid ? 4 : 0));
}
__device__ inline void WaitCopies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

// Rows [first, first + 64) of a matrix whose rows lie `row_stride` elements apart; rows from
// num_rows on become zeros.
template <int D, int kThreads>
__device__ inline void LoadTile(Bf16* tile, const Bf16* matrix, int64_t row_stride, int first,
                                int num_rows) {
  constexpr int kPiecesPerRow = D / 8;
  constexpr int kPieces = kTileRows * kPiecesPerRow;
  const uint32_t base = SharedAddress(tile);
#pragma unroll
  for (int i = 0; i < (kPieces + kThreads - 1) / kThreads; ++i) {
    const int piece = i * kThreads + threadIdx.x;
    if (kPieces % kThreads != 0 && piece >= kPieces) break;
    const int row = piece / kPiecesPerRow, col = piece % kPiecesPerRow * 8;
    const bool valid = first + row < num_rows;
    CopyAsync16(base + (row * kRowStride<D> + col) * 2,
                matrix + (valid ? first + row : 0) * row_stride + col, valid);
  }
}

__device__ inline void LoadMatrices(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void LoadMatricesTransposed(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A lane's byte offset for ldmatrix from a tile: as A operand (rows × depth), as B operand that
// lies as columns × depth, and (transposed) as B operand that lies as depth × columns.
template <int D>
__device__ inline uint32_t LaneOffsetA(int lane) {
  return (((lane & 7) + (lane >> 3 & 1) * 8) * kRowStride<D> + (lane >> 4) * 8) * 2;
}
template <int D>
__device__ inline uint32_t LaneOffsetB(int lane) {
  return (((lane & 7) + (lane >> 4) * 8) * kRowStride<D> + (lane >> 3 & 1) * 8) * 2;
}
template <int D>
__device__ inline uint32_t LaneOffsetTransposedB(int lane) {
  return LaneOffsetA<D>(lane);
}

// c[16 × 64] += a[16 × D] · tileᵀ, where a's rows start at a_address and tile is 64 × D. Addresses
// include the lanes' offsets.
template <int D>
__device__ inline void MultiplyTile(uint32_t a_address, uint32_t tile_address, float (&c)[8][4]) {
#pragma unroll
  for (int depth = 0; depth < D / 16; ++depth) {
    uint32_t a[4];
    LoadMatrices(a_address + depth * 32, a);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t b[4];
      LoadMatrices(tile_address + (pair * 16 * kRowStride<D> + depth * 16) * 2, b);
      MultiplyAdd(c[2 * pair], a, b[0], b[1]);
      MultiplyAdd(c[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

// sum[16 × kColumns] += p[16 × 64] · tile[64 × (columns of it)], p from accumulators, rounded to
// bf16.
template <int D, int kColumns>
__device__ inline void AccumulateTile(const float (&p)[8][4], uint32_t tile_address,
                                      float (&sum)[kColumns / 8][4]) {
#pragma unroll
  for (int depth = 0; depth < 4; ++depth) {
    const uint32_t a[4] = {PackBf16(p[2 * depth][0], p[2 * depth][1]),
                           PackBf16(p[2 * depth][2], p[2 * depth][3]),
                           PackBf16(p[2 * depth + 1][0], p[2 * depth + 1][1]),
                           PackBf16(p[2 * depth + 1][2], p[2 * depth + 1][3])};
#pragma unroll
    for (int pair = 0; pair < kColumns / 16; ++pair) {
      uint32_t b[4];
      LoadMatricesTransposed(tile_address + (depth * 16 * kRowStride<D> + pair * 16) * 2, b);
      MultiplyAdd(sum[2 * pair], a, b[0], b[1]);
      MultiplyAdd(sum[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The problem, with tiles counted.
struct TileShape {
  int seq_len, window, num_heads, num_kv_heads, num_tiles;
  float scale;
  // Tiles of keys that the queries of a tile see, and of queries that see the keys of a tile.
  __device__ int FirstKeyTile(int query_tile) const {
    const int first = window > 0 ? query_tile * kTileRows - window + 1 : 0;
    return first > 0 ? first / kTileRows : 0;
  }
  __device__ int EndQueryTile(int key_tile) const {
    if (window == 0) return num_tiles;
    const int64_t last = static_cast<int64_t>(key_tile) * kTileRows + kTileRows - 2 + window;
    return static_cast<int>(last / kTileRows < num_tiles ? last / kTileRows + 1 : num_tiles);
  }
  // Whether some pair of these tiles is not seen.
  __device__ bool Masked(int query_tile, int key_tile) const {
    if (key_tile == query_tile) return true;
    return window > 0 && (query_tile - key_tile) * kTileRows + kTileRows - 1 >= window;
  }
  __device__ bool Seen(int query, int key) const {
    return key <= query && (window == 0 || query - key < window);
  }
};

inline TileShape TileShapeOf(const AttentionShape& shape) {
  // A window of L or more hides nothing.
  const bool windowed = shape.window > 0 && shape.window < shape.seq_len;
  return {static_cast<int>(shape.seq_len),
          windowed ? static_cast<int>(shape.window) : 0,
          shape.num_heads,
          shape.num_kv_heads,
          static_cast<int>(CeilDiv(shape.seq_len, kTileRows)),
          shape.scale};
}

// Calls fn(std::integral_constant<int, D>{}); false for head sizes without a kernel.
template <typename Fn>
bool DispatchTileHeadDim(int head_dim, const Fn& fn) {
  switch (head_dim) {
    case 32:
      fn(std::integral_constant<int, 32>{});
      return true;
    case 64:
      fn(std::integral_constant<int, 64>{});
      return true;
    case 80:
      fn(std::integral_constant<int, 80>{});
      return true;
    case 96:
      fn(std::integral_constant<int, 96>{});
      return true;
    case 128:
      fn(std::integral_constant<int, 128>{});
      return true;
    case 256:
      fn(std::integral_constant<int, 256>{});
      return true;
    default:
      return false;
  }
}

// Shared memory in bytes with `stages` tiles in flight: of the forward pass (keys, values, and the
// queries where they do not stay in registers), and of each backward kernel (two tiles kept, two
// streamed with 64 log-sum-exps and deltas).
template <int D>
inline constexpr bool kQueriesInRegisters = D <= 128;
template <int D>
constexpr int ForwardSharedBytes(int stages) {
  return (2 * stages + (kQueriesInRegisters<D> ? 0 : 1)) * kTileElements<D> * 2;
}
template <int D>
constexpr int BackwardSharedBytes(int stages) {
  return (2 + 2 * stages) * kTileElements<D> * 2 + stages * 2 * kTileRows * 4;
}
// As many stages as fit: 2, 1, or 0 when the kernel cannot run.
inline int NumStages(const CudaBackend& cuda, int bytes_of_one, int bytes_of_two) {
  if (bytes_of_two <= cuda.max_shared_bytes()) return 2;
  return bytes_of_one <= cuda.max_shared_bytes() ? 1 : 0;
}

}  // namespace uniquanf::ops::cuda

#endif  // UNIQUANF_WORKER_OPS_OP_CUDA_ATTENTION_TILE_CUH_
