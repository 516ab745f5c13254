// Decoding on the CPU: segments, tables and the three kernels.
#include <algorithm>

#include "common/base/check.h"
#include "common/safetensors/float_conversion.h"
#include "worker/packed/packed_cpu.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#define UQ_PACKED_X86 1
#endif

namespace uniquanf::packed::cpu {
namespace {

const uint16_t* Halves(const Tensor& tensor) {
  return reinterpret_cast<const uint16_t*>(tensor.u8());
}

void ScalarRow(const RowArgs& args, int64_t row) {
  const PackedWeights& w = *args.weights;
  const int64_t N = w.num_outputs;
  const auto* planes = reinterpret_cast<const uint32_t*>(w.planes.i32());
  const uint16_t* alpha = Halves(w.alpha);
  const uint16_t* beta = Halves(w.beta);
  float y = 0.0f;
  for (size_t s = 0; s < args.segments->size(); ++s) {
    const Segment& segment = (*args.segments)[s];
    float sum = 0.0f;
    for (int i = 0; i < w.bits; ++i) {
      float acc = 0.0f;
      const float* table = args.tables + segment.first_table * kTableFloatsPerWord;
      for (int64_t word = segment.first_word; word < segment.first_word + segment.num_words;
           ++word) {
        const uint32_t bits = planes[(word * w.num_planes + i) * N + row];
        for (int run = 0; run < kRunsPerWord; ++run, table += kTableEntries) {
          acc += table[(bits >> (4 * run)) & 15u];
        }
      }
      const float scaled = Float16ToFloat(alpha[(segment.group * w.bits + i) * N + row]) * acc;
      sum = i == 0 ? scaled : sum + scaled;
    }
    y += sum + Float16ToFloat(beta[segment.group * N + row]) * args.sums[s];
  }
  args.y[row] = y;
}

#if UQ_PACKED_X86
// kVectors vectors of rows at once share each table's load.
template <int kBits, int kVectors>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))) void Avx512Rows(const RowArgs& args,
                                                                              int64_t row) {
  const PackedWeights& w = *args.weights;
  const int64_t N = w.num_outputs, stride = w.num_planes * N;
  const int32_t* planes = w.planes.i32() + row;
  const uint16_t* alpha = Halves(w.alpha) + row;
  const uint16_t* beta = Halves(w.beta) + row;
  __m512 y[kVectors];
  for (int v = 0; v < kVectors; ++v) y[v] = _mm512_setzero_ps();
  for (size_t s = 0; s < args.segments->size(); ++s) {
    const Segment& segment = (*args.segments)[s];
    __m512 acc[kBits][kVectors];
    for (int i = 0; i < kBits; ++i) {
      for (int v = 0; v < kVectors; ++v) acc[i][v] = _mm512_setzero_ps();
    }
    const float* table = args.tables + segment.first_table * kTableFloatsPerWord;
    const int32_t* words = planes + segment.first_word * stride;
    for (int64_t word = 0; word < segment.num_words; ++word, words += stride) {
      __m512i bits[kBits][kVectors];
      for (int i = 0; i < kBits; ++i) {
        for (int v = 0; v < kVectors; ++v) bits[i][v] = _mm512_loadu_si512(words + i * N + 16 * v);
      }
      for (int run = 0; run < kRunsPerWord; ++run, table += kTableEntries) {
        const __m512 t = _mm512_loadu_ps(table);
        for (int i = 0; i < kBits; ++i) {
          for (int v = 0; v < kVectors; ++v) {
            acc[i][v] = _mm512_add_ps(acc[i][v], _mm512_permutexvar_ps(bits[i][v], t));
            bits[i][v] = _mm512_srli_epi32(bits[i][v], 4);
          }
        }
      }
    }
    const __m512 x_sum = _mm512_set1_ps(args.sums[s]);
    for (int v = 0; v < kVectors; ++v) {
      __m512 sum = _mm512_setzero_ps();
      for (int i = 0; i < kBits; ++i) {
        const __m512 a = _mm512_cvtph_ps(_mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(alpha + (segment.group * kBits + i) * N + 16 * v)));
        const __m512 scaled = _mm512_mul_ps(a, acc[i][v]);
        sum = i == 0 ? scaled : _mm512_add_ps(sum, scaled);
      }
      const __m512 b = _mm512_cvtph_ps(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(beta + segment.group * N + 16 * v)));
      y[v] = _mm512_add_ps(y[v], _mm512_add_ps(sum, _mm512_mul_ps(b, x_sum)));
    }
  }
  for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(args.y + row + 16 * v, y[v]);
}

template <int kBits>
__attribute__((target("avx2,f16c"))) void Avx2Rows(const RowArgs& args, int64_t row) {
  const PackedWeights& w = *args.weights;
  const int64_t N = w.num_outputs, stride = w.num_planes * N;
  const int32_t* planes = w.planes.i32() + row;
  const uint16_t* alpha = Halves(w.alpha) + row;
  const uint16_t* beta = Halves(w.beta) + row;
  __m256 y = _mm256_setzero_ps();
  for (size_t s = 0; s < args.segments->size(); ++s) {
    const Segment& segment = (*args.segments)[s];
    __m256 acc[kBits];
    for (int i = 0; i < kBits; ++i) acc[i] = _mm256_setzero_ps();
    const float* table = args.tables + segment.first_table * kTableFloatsPerWord;
    const int32_t* words = planes + segment.first_word * stride;
    for (int64_t word = 0; word < segment.num_words; ++word, words += stride) {
      __m256i bits[kBits];
      for (int i = 0; i < kBits; ++i) {
        bits[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i * N));
      }
      for (int run = 0; run < kRunsPerWord; ++run, table += kTableEntries) {
        // The index's lower three bits choose inside a half table, its fourth the half.
        const __m256 low = _mm256_loadu_ps(table), high = _mm256_loadu_ps(table + 8);
        for (int i = 0; i < kBits; ++i) {
          const __m256 from_low = _mm256_permutevar8x32_ps(low, bits[i]);
          const __m256 from_high = _mm256_permutevar8x32_ps(high, bits[i]);
          const __m256 top = _mm256_castsi256_ps(_mm256_slli_epi32(bits[i], 28));
          acc[i] = _mm256_add_ps(acc[i], _mm256_blendv_ps(from_low, from_high, top));
          bits[i] = _mm256_srli_epi32(bits[i], 4);
        }
      }
    }
    __m256 sum = _mm256_setzero_ps();
    for (int i = 0; i < kBits; ++i) {
      const __m256 a = _mm256_cvtph_ps(_mm_loadu_si128(
          reinterpret_cast<const __m128i*>(alpha + (segment.group * kBits + i) * N)));
      const __m256 scaled = _mm256_mul_ps(a, acc[i]);
      sum = i == 0 ? scaled : _mm256_add_ps(sum, scaled);
    }
    const __m256 b = _mm256_cvtph_ps(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(beta + segment.group * N)));
    y = _mm256_add_ps(y, _mm256_add_ps(sum, _mm256_mul_ps(b, _mm256_set1_ps(args.sums[s]))));
  }
  _mm256_storeu_ps(args.y + row, y);
}

// Calls fn<bits>() with `bits` as a constant.
template <typename Fn>
void WithBits(int bits, const Fn& fn) {
  switch (bits) {
    case 2:
      return fn.template operator()<2>();
    case 3:
      return fn.template operator()<3>();
    case 4:
      return fn.template operator()<4>();
    case 5:
      return fn.template operator()<5>();
    case 6:
      return fn.template operator()<6>();
    case 7:
      return fn.template operator()<7>();
    default:
      UQ_CHECK(bits == 8);
      return fn.template operator()<8>();
  }
}
#endif

}  // namespace

std::vector<Segment> MakeSegments(int64_t num_inputs, int64_t group_size) {
  std::vector<Segment> segments;
  int64_t num_tables = 0;
  for (int64_t begin = 0; begin < num_inputs;) {
    const int64_t group = begin / group_size;
    const int64_t limit = (begin / 32 + kMaxSegmentWords) * 32;
    const int64_t end = std::min({(group + 1) * group_size, limit, num_inputs});
    const int64_t num_words = (end - 1) / 32 - begin / 32 + 1;
    segments.push_back({group, begin / 32, num_words, begin, end, num_tables});
    num_tables += num_words;
    begin = end;
  }
  return segments;
}

void MakeTables(const std::vector<Segment>& segments, const float* x, float* tables, float* sums) {
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    float* table = tables + segment.first_table * kTableFloatsPerWord;
    double total = 0;
    for (int64_t k = segment.first_column; k < segment.end_column; ++k) total += x[k];
    sums[s] = static_cast<float>(total);
    for (int64_t run = 0; run < segment.num_words * kRunsPerWord; ++run, table += kTableEntries) {
      const int64_t first = segment.first_word * 32 + run * 4;
      float v[4];
      for (int64_t j = 0; j < 4; ++j) {
        const bool inside = first + j >= segment.first_column && first + j < segment.end_column;
        v[j] = inside ? x[first + j] : 0.0f;
      }
      for (int m = 0; m < kTableEntries; ++m) {
        float sum = (m & 1) != 0 ? v[0] : -v[0];
        sum += (m & 2) != 0 ? v[1] : -v[1];
        sum += (m & 4) != 0 ? v[2] : -v[2];
        sum += (m & 8) != 0 ? v[3] : -v[3];
        table[m] = sum;
      }
    }
  }
}

#if UQ_PACKED_X86
namespace {
// clang 14's __builtin_cpu_supports has no word for it.
bool HasF16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
}  // namespace
#endif

bool KernelRuns(Kernel kernel) {
#if UQ_PACKED_X86
  if (kernel == Kernel::kAvx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
  if (kernel == Kernel::kAvx2) {
    return __builtin_cpu_supports("avx2") && HasF16c();
  }
#endif
  return kernel == Kernel::kScalar;
}

Kernel BestKernel() {
  static const Kernel best = KernelRuns(Kernel::kAvx512) ? Kernel::kAvx512
                             : KernelRuns(Kernel::kAvx2) ? Kernel::kAvx2
                                                         : Kernel::kScalar;
  return best;
}

void DecodeRows(Kernel kernel, const RowArgs& args, int64_t first, int64_t end) {
  int64_t row = first;
#if UQ_PACKED_X86
  if (kernel == Kernel::kAvx512) {
    WithBits(args.weights->bits, [&]<int kBits>() {
      constexpr int kVectors = kBits <= 4 ? 2 : 1;  // as many sums as the registers hold
      for (; row + 16 * kVectors <= end; row += 16 * kVectors) {
        Avx512Rows<kBits, kVectors>(args, row);
      }
      for (; row + 16 <= end; row += 16) Avx512Rows<kBits, 1>(args, row);
    });
  } else if (kernel == Kernel::kAvx2) {
    WithBits(args.weights->bits, [&]<int kBits>() {
      for (; row + 8 <= end; row += 8) Avx2Rows<kBits>(args, row);
    });
  }
#endif
  for (; row < end; ++row) ScalarRow(args, row);
}

}  // namespace uniquanf::packed::cpu
