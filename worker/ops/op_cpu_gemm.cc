#include "worker/ops/op_cpu_gemm.h"

#include <cblas.h>

#include <bit>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "common/base/check.h"

namespace uniquanf::ops::cpu {
namespace {

// Rows of C in the smallest piece that a product of m rows is cut into. Larger pieces spend less of
// their time packing operands, smaller ones keep more threads busy.
int64_t PieceRows(int64_t m) {
  if (m <= 64) return 32;
  if (m <= 256) return 64;
  if (m < 2048) return 128;
  return 256;
}
constexpr int64_t kLargestPieceRows = 256;
// Multiplications. OpenBLAS has other kernels, which add in another order, for products of up to
// 10^6; a piece is not made larger where that could cross the border.
constexpr int64_t kSmallProduct = int64_t{1} << 21;

// Columns of C in a piece.
constexpr int64_t kPieceColumns = 1024;

// How many smallest pieces, one above the other, are computed at once: as many as leave all threads
// the same number of pieces, or at least four.
int64_t PiecesAtOnce(const GemmArgs& args, int64_t rows, int64_t num_column_pieces,
                     int num_threads) {
  if (std::min(kPieceColumns, args.n) * rows * args.k < kSmallProduct) return 1;
  const int64_t whole = args.m / rows;
  for (int64_t merged = std::min(whole, kLargestPieceRows / rows); merged > 1; --merged) {
    const int64_t num_pieces = whole / merged * num_column_pieces;
    const bool even = num_threads == 1 || (whole % merged == 0 && num_pieces % num_threads == 0);
    if (even || num_pieces >= 4 * num_threads) return merged;
  }
  return 1;
}

struct FreeDeleter {
  void operator()(float* pointer) const { std::free(pointer); }
};

}  // namespace

void Sgemm(CpuBackend* backend, const GemmArgs& args) {
  const auto start = std::chrono::steady_clock::now();
  cblas_sgemm(CblasRowMajor, args.transpose_a ? CblasTrans : CblasNoTrans,
              args.transpose_b ? CblasTrans : CblasNoTrans, static_cast<int>(args.m),
              static_cast<int>(args.n), static_cast<int>(args.k), args.alpha, args.a,
              static_cast<int>(args.lda), args.b, static_cast<int>(args.ldb), args.beta, args.c,
              static_cast<int>(args.ldc));
  const auto elapsed = std::chrono::steady_clock::now() - start;
  backend->AddBlasNanoseconds(
      std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());
}

namespace {

// `rows` rows of `width` elements, in this thread's scratch.
const float* WidenRows(const uint16_t* source, int64_t rows, int64_t width, int64_t stride) {
  float* out = ThreadScratch(rows * width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      out[r * width + i] =
          std::bit_cast<float>(static_cast<uint32_t>(source[r * stride + i]) << 16);
    }
  }
  return out;
}

}  // namespace

void Gemm(CpuBackend* backend, const GemmArgs& args) {
  UQ_CHECK(args.b_bf16 == nullptr || args.transpose_b);
  const int64_t rows = PieceRows(args.m);
  const int64_t num_column_pieces = (args.n + kPieceColumns - 1) / kPieceColumns;
  // The last rows, where they are no whole piece, stay a piece of their own: a kernel may treat few
  // rows in another way than the same rows among many.
  const int64_t whole_rows = args.m / rows * rows;
  const int64_t merged = backend->merges_products() ? PiecesAtOnce(args, rows, num_column_pieces,
                                                                   backend->pool().num_threads())
                                                    : 1;
  const int64_t num_merged = (args.m / rows + merged - 1) / merged;
  const int64_t num_row_pieces = num_merged + (whole_rows < args.m ? 1 : 0);
  backend->pool().ParallelFor(num_row_pieces * num_column_pieces, [&](int64_t piece) {
    const int64_t index = piece % num_row_pieces;
    const int64_t row = std::min(index * merged * rows, whole_rows);
    const int64_t end = index < num_merged ? std::min(row + merged * rows, whole_rows) : args.m;
    const int64_t column = piece / num_row_pieces * kPieceColumns;
    GemmArgs part = args;
    part.m = end - row;
    part.n = std::min(kPieceColumns, args.n - column);
    part.a += args.transpose_a ? row : row * args.lda;
    if (args.b_bf16 != nullptr) {
      part.b = WidenRows(args.b_bf16 + column * args.ldb, part.n, args.k, args.ldb);
      part.ldb = args.k;
    } else {
      part.b += args.transpose_b ? column * args.ldb : column;
    }
    part.c += row * args.ldc + column;
    Sgemm(backend, part);
  });
}

void ParallelChunks(CpuBackend* backend, int64_t count, int64_t chunk_size,
                    const std::function<void(int64_t, int64_t)>& fn) {
  const int64_t num_chunks = (count + chunk_size - 1) / chunk_size;
  backend->pool().ParallelFor(num_chunks, [&](int64_t chunk) {
    fn(chunk * chunk_size, std::min(count, (chunk + 1) * chunk_size));
  });
}

float* ThreadScratch(size_t num_floats) {
  thread_local std::unique_ptr<float, FreeDeleter> buffer;
  thread_local size_t capacity = 0;
  if (capacity < num_floats) {
    const size_t rounded = (num_floats + 15) / 16 * 16;
    buffer.reset();
    buffer.reset(static_cast<float*>(std::aligned_alloc(64, rounded * sizeof(float))));
    UQ_CHECK(buffer != nullptr);
    capacity = rounded;
  }
  return buffer.get();
}

}  // namespace uniquanf::ops::cpu
