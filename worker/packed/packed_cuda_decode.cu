// Matrix-vector products from bit planes; packed_cuda.h has the idea.
#include <cuda_fp16.h>

#include <algorithm>

#include "worker/backend/cuda_device.cuh"
#include "worker/packed/packed_cuda.h"

namespace uniquanf::packed::cuda {
namespace {

using namespace uniquanf::cuda;  // device helpers; NOLINT(build/namespaces)

constexpr int kWarps = 8, kRuns = 7, kRowsPerLane = 4, kMaxChunkWords = 16;

struct Problem {
  const uint32_t* planes;
  const __half* alpha;
  const __half* beta;
  const float* bias;  // may be null
  void* y;
  int num_outputs, num_planes, first_block, num_row_blocks;
  int64_t partial_offset, ticket_offset;
};
struct Arguments {
  Problem problems[kMaxProducts];
  int num_problems;
  const void* x;
  int num_inputs, num_words, group_words, chunk_words, num_splits;
  float* partial;
  int* tickets;
};

__device__ inline void LoadHalves(const __half* p, float (&out)[kRowsPerLane]) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&raw.x));
  const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&raw.y));
  out[0] = a.x, out[1] = a.y, out[2] = b.x, out[3] = b.y;
}

// The planes of one word for this lane's four rows; streamed past the first-level cache.
template <int kBits>
struct Word {
  uint4 plane[kBits];
  __device__ inline void Load(const uint32_t* p, int64_t stride) {
#pragma unroll
    for (int i = 0; i < kBits; ++i)
      plane[i] = __ldcs(reinterpret_cast<const uint4*>(p + i * stride));
  }
};

// y += Σ α_i·acc_i + β·Σx of a group, and acc = 0.
template <int kBits>
__device__ inline void EndGroup(const Problem& problem, int group, int row, bool inside,
                                float x_sum, float (&acc)[kBits][kRowsPerLane],
                                float (&y)[kRowsPerLane]) {
  if (inside) {
    float scale[kRowsPerLane];
#pragma unroll
    for (int i = 0; i < kBits; ++i) {
      LoadHalves(
          problem.alpha + (static_cast<int64_t>(group) * kBits + i) * problem.num_outputs + row,
          scale);
#pragma unroll
      for (int r = 0; r < kRowsPerLane; ++r) y[r] += scale[r] * acc[i][r];
    }
    LoadHalves(problem.beta + static_cast<int64_t>(group) * problem.num_outputs + row, scale);
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) y[r] += scale[r] * x_sum;
  }
#pragma unroll
  for (int i = 0; i < kBits; ++i) {
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) acc[i][r] = 0.f;
  }
}

template <int kBits>
__device__ inline void AddWord(const Word<kBits>& word, const float (&table)[kRuns],
                               float (&acc)[kBits][kRowsPerLane]) {
#pragma unroll
  for (int run = 0; run < kRuns; ++run) {
#pragma unroll
    for (int i = 0; i < kBits; ++i) {
      // A shuffle takes the index modulo 32.
      acc[i][0] += __shfl_sync(kFullMask, table[run], word.plane[i].x >> (5 * run));
      acc[i][1] += __shfl_sync(kFullMask, table[run], word.plane[i].y >> (5 * run));
      acc[i][2] += __shfl_sync(kFullMask, table[run], word.plane[i].z >> (5 * run));
      acc[i][3] += __shfl_sync(kFullMask, table[run], word.plane[i].w >> (5 * run));
    }
  }
}

// Adds the block's rows over its warps, and over the blocks that share them.
template <typename Act>
__device__ inline void Finish(const Arguments& args, const Problem& problem, int row_block,
                              int split, const float (&y)[kRowsPerLane]) {
  __shared__ __align__(16) float sums[kWarps][kBlockRows];
  __shared__ int is_last;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  *reinterpret_cast<float4*>(&sums[warp][lane * kRowsPerLane]) =
      make_float4(y[0], y[1], y[2], y[3]);
  __syncthreads();
  const int row = row_block * kBlockRows + static_cast<int>(threadIdx.x);
  const bool owner = threadIdx.x < kBlockRows && row < problem.num_outputs;
  float total = 0.f;
  if (owner) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += sums[w][threadIdx.x];
  }
  if (args.num_splits > 1) {
    float* partial = args.partial + problem.partial_offset;
    if (owner) partial[static_cast<int64_t>(split) * problem.num_outputs + row] = total;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int* ticket = args.tickets + problem.ticket_offset + row_block;
      is_last = atomicAdd(ticket, 1) == args.num_splits - 1;
      if (is_last) *ticket = 0;  // for the next product
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (owner) {
      total = 0.f;
      for (int s = 0; s < args.num_splits; ++s) {
        total += __ldcg(partial + static_cast<int64_t>(s) * problem.num_outputs + row);
      }
    }
  }
  if (!owner) return;
  if (problem.bias != nullptr) total += problem.bias[row];
  static_cast<Act*>(problem.y)[row] = FromFloat<Act>(total);
}

template <int kBits, typename Act>
__global__ __launch_bounds__(kWarps *
                             32) void DecodeKernel(const __grid_constant__ Arguments args) {
  __shared__ __align__(16) float x_shared[kWarps][kMaxChunkWords * 32];
  int index = 0;
#pragma unroll
  for (int i = 1; i < kMaxProducts; ++i) {
    if (i < args.num_problems && static_cast<int>(blockIdx.x) >= args.problems[i].first_block) {
      index = i;
    }
  }
  const Problem& problem = args.problems[index];
  const int block = static_cast<int>(blockIdx.x) - problem.first_block;
  const int row_block = block % problem.num_row_blocks, split = block / problem.num_row_blocks;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int row = row_block * kBlockRows + lane * kRowsPerLane;
  const bool inside = row < problem.num_outputs;  // num_outputs is a multiple of 4
  const int first = (split * kWarps + warp) * args.chunk_words;
  const int end = min(first + args.chunk_words, args.num_words);
  const int64_t stride = problem.num_outputs;
  const int64_t word_stride = stride * problem.num_planes;

  // ±1 by the lane's bits: the sums of a run that this lane keeps.
  float sign[5];
#pragma unroll
  for (int b = 0; b < 5; ++b) sign[b] = (lane >> b) & 1 ? 1.f : -1.f;

  float y[kRowsPerLane] = {}, acc[kBits][kRowsPerLane] = {};
  float x_sum = 0.f;
  Word<kBits> word = {}, next = {};
  const uint32_t* source = problem.planes + first * word_stride + row;
  if (inside && first < end) word.Load(source, stride);
  for (int w = first; w < end; ++w) {
    const int column = w * 32 + lane;
    x_shared[warp][(w - first) * 32 + lane] =
        column < args.num_inputs ? ToFloat(static_cast<const Act*>(args.x)[column]) : 0.f;
  }
  __syncwarp();
  for (int w = first; w < end; ++w) {
    source += word_stride;
    if (inside && w + 1 < end) next.Load(source, stride);
    float table[kRuns];
    float x[32];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float4 v = reinterpret_cast<const float4*>(x_shared[warp] + (w - first) * 32)[j];
      x[4 * j] = v.x, x[4 * j + 1] = v.y, x[4 * j + 2] = v.z, x[4 * j + 3] = v.w;
    }
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      float t = sign[0] * x[5 * run] + sign[1] * x[5 * run + 1];
      if (run + 1 < kRuns) {
#pragma unroll
        for (int b = 2; b < 5; ++b) t += sign[b] * x[min(5 * run + b, 31)];
      }
      table[run] = t;
      x_sum += t;  // lane 31 adds all of x with plus signs
    }
    AddWord<kBits>(word, table, acc);
    if ((w + 1) % args.group_words == 0 || w + 1 == end) {
      const float sum = __shfl_sync(kFullMask, x_sum, 31);
      EndGroup<kBits>(problem, w / args.group_words, row, inside, sum, acc, y);
      x_sum = 0.f;
    }
    word = next;
  }
  Finish<Act>(args, problem, row_block, split, y);
}

// Any shape: a thread a row, column by column.
template <typename Act>
__global__ void PlainKernel(Problem problem, const Act* x, int bits, int num_inputs,
                            int group_size) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= problem.num_outputs) return;
  const int64_t N = problem.num_outputs;
  float y = 0.f;
  for (int first = 0; first < num_inputs; first += group_size) {
    const int64_t group = first / group_size;
    float sum = 0.f, x_sum = 0.f;
    for (int i = 0; i < bits; ++i) {
      float acc = 0.f;
      for (int k = first; k < first + group_size; ++k) {
        const uint32_t word =
            problem.planes[(static_cast<int64_t>(k / 32) * problem.num_planes + i) * N + row];
        const float value = ToFloat(x[k]);
        acc += (word >> (k % 32)) & 1u ? value : -value;
        if (i == 0) x_sum += value;
      }
      sum += __half2float(problem.alpha[(group * bits + i) * N + row]) * acc;
    }
    y += sum + __half2float(problem.beta[group * N + row]) * x_sum;
  }
  if (problem.bias != nullptr) y += problem.bias[row];
  static_cast<Act*>(problem.y)[row] = FromFloat<Act>(y);
}

Problem ProblemOf(const Product& product, int64_t token) {
  const PackedWeights& w = *product.weights;
  Problem problem = {};
  problem.planes = reinterpret_cast<const uint32_t*>(w.planes.i32());
  problem.alpha = reinterpret_cast<const __half*>(w.alpha.u8());
  problem.beta = reinterpret_cast<const __half*>(w.beta.u8());
  problem.bias = product.bias == nullptr ? nullptr : product.bias->f32();
  problem.y = static_cast<char*>(product.y->data()) +
              token * w.num_outputs * static_cast<int64_t>(DTypeBytes(product.y->dtype()));
  problem.num_outputs = static_cast<int>(w.num_outputs);
  problem.num_planes = w.num_planes;
  problem.num_row_blocks = static_cast<int>(CeilDiv(w.num_outputs, kBlockRows));
  return problem;
}

bool IsRegular(const PackedWeights& w) {
  return w.num_outputs % kRowsPerLane == 0 &&
         (w.group_size % 32 == 0 || w.group_size == w.num_inputs) &&
         w.num_words() <= kMaxSplits * kWarps * kMaxChunkWords;
}

// Words a warp takes, and blocks that share rows: the choice with the shortest estimated time.
// Blocks run in waves of as many as the device holds at once; a wave takes as long as a warp's
// words and what a block costs besides, about a word and a half's time.
void PlanSplits(int blocks_at_once, int num_row_blocks, Arguments* args) {
  constexpr double kBlockCost = 1.5;
  double best = 0;
  for (int words = 1; words <= kMaxChunkWords; ++words) {
    const int64_t splits = CeilDiv(args->num_words, words * kWarps);
    if (splits > kMaxSplits) continue;
    const double time = CeilDiv(splits * num_row_blocks, blocks_at_once) * (words + kBlockCost);
    if (best > 0 && time >= best) continue;
    best = time;
    args->chunk_words = words;
    args->num_splits = static_cast<int>(splits);
  }
  UQ_CHECK(best > 0);
}

template <int kBits, typename Act>
void Launch(CudaBackend* cuda, Arguments args, int num_row_blocks) {
  int blocks = 1;
  cuda->Note(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, DecodeKernel<kBits, Act>,
                                                           kWarps * 32, 0));
  PlanSplits(std::max(blocks, 1) * cuda->num_multiprocessors(), num_row_blocks, &args);
  int num_blocks = 0;
  for (int i = 0; i < args.num_problems; ++i) {
    args.problems[i].first_block = num_blocks;
    num_blocks += args.problems[i].num_row_blocks * args.num_splits;
  }
  DecodeKernel<kBits, Act><<<num_blocks, kWarps * 32, 0, cuda->stream()>>>(args);
  cuda->NoteLaunch();
}

template <typename Act>
void LaunchBits(CudaBackend* cuda, int bits, const Arguments& args, int num_row_blocks) {
  switch (bits) {
    case 2:
      return Launch<2, Act>(cuda, args, num_row_blocks);
    case 3:
      return Launch<3, Act>(cuda, args, num_row_blocks);
    case 4:
      return Launch<4, Act>(cuda, args, num_row_blocks);
    case 5:
      return Launch<5, Act>(cuda, args, num_row_blocks);
    case 6:
      return Launch<6, Act>(cuda, args, num_row_blocks);
    case 7:
      return Launch<7, Act>(cuda, args, num_row_blocks);
    default:
      UQ_CHECK(bits == 8);
      return Launch<8, Act>(cuda, args, num_row_blocks);
  }
}

template <typename Act>
void DecodeToken(CudaBackend* cuda, const Tensor& x, absl::Span<const Product> products,
                 int64_t token, Workspace* workspace) {
  const PackedWeights& first = *products.front().weights;
  const Act* input = Data<Act>(x) + token * first.num_inputs;
  Arguments args = {};
  args.x = input;
  args.num_inputs = static_cast<int>(first.num_inputs);
  args.num_words = static_cast<int>(first.num_words());
  args.group_words = first.group_size == first.num_inputs ? args.num_words
                                                          : static_cast<int>(first.group_size / 32);
  args.partial = workspace->partial.f32();
  args.tickets = workspace->tickets.i32();
  int num_row_blocks = 0;
  int64_t num_rows = 0;
  for (const Product& product : products) {
    Problem problem = ProblemOf(product, token);
    problem.partial_offset = num_rows * kMaxSplits;
    problem.ticket_offset = num_row_blocks;
    num_row_blocks += problem.num_row_blocks;
    num_rows += problem.num_outputs;
    args.problems[args.num_problems++] = problem;
  }
  UQ_CHECK(workspace->partial.num_elements() >= num_rows * kMaxSplits &&
           workspace->tickets.num_elements() >= num_row_blocks);
  LaunchBits<Act>(cuda, first.bits, args, num_row_blocks);
}

template <typename Act>
void DecodePlain(CudaBackend* cuda, const Tensor& x, const Product& product, int64_t token) {
  const PackedWeights& w = *product.weights;
  constexpr int kThreads = 128;
  PlainKernel<Act>
      <<<static_cast<unsigned>(CeilDiv(w.num_outputs, kThreads)), kThreads, 0, cuda->stream()>>>(
          ProblemOf(product, token), Data<Act>(x) + token * w.num_inputs, w.bits,
          static_cast<int>(w.num_inputs), static_cast<int>(w.group_size));
  cuda->NoteLaunch();
}

// Whether two layers can be made by one launch.
bool Alike(const PackedWeights& a, const PackedWeights& b) {
  return a.bits == b.bits && a.group_size == b.group_size && a.num_inputs == b.num_inputs;
}

}  // namespace

void Decode(Backend* backend, const Tensor& x, absl::Span<const Product> products,
            Workspace* workspace) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const int64_t num_tokens = x.num_elements() / x.shape().back();
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    for (size_t first = 0; first < products.size();) {
      size_t end = first + 1;
      const bool regular = IsRegular(*products[first].weights);
      while (regular && end < products.size() && IsRegular(*products[end].weights) &&
             Alike(*products[first].weights, *products[end].weights)) {
        ++end;
      }
      for (int64_t token = 0; token < num_tokens; ++token) {
        if (regular) {
          DecodeToken<Act>(cuda, x, products.subspan(first, end - first), token, workspace);
        } else {
          DecodePlain<Act>(cuda, x, products[first], token);
        }
      }
      first = end;
    }
  });
}

}  // namespace uniquanf::packed::cuda
