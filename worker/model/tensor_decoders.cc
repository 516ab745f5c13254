#include "worker/model/tensor_decoders.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {
namespace {

// What is read and decoded at a time.
constexpr int64_t kChunkElements = 1 << 20;

// Bytes [first, last) of the tensor's elements of `element_bytes` each.
absl::Status ReadPart(const SourceTensor& tensor, int64_t first, int64_t count, void* out) {
  return tensor.file->ReadBytes(tensor.info.Part(first, count), out);
}

// Number `index` of those that are packed into words `stride` apart, an offset binary.
float Unpack(const uint32_t* words, int64_t stride, int64_t index, int bits) {
  const int per_word = 32 / bits;
  const uint32_t word = words[index / per_word * stride];
  const uint32_t code = word >> (index % per_word * bits) & ((1u << bits) - 1u);
  return static_cast<float>(static_cast<int>(code) - (1 << (bits - 1)));
}

// A row of `count` numbers in words one after the other. The width is a constant so that the loop
// has no divisions.
template <int kBits>
void UnpackRow(const uint32_t* words, int64_t count, float* out) {
  constexpr int kPerWord = 32 / kBits;
  for (int64_t c = 0; c < count; ++c) {
    const uint32_t code = words[c / kPerWord] >> (c % kPerWord * kBits) & ((1u << kBits) - 1u);
    out[c] = static_cast<float>(static_cast<int>(code) - (1 << (kBits - 1)));
  }
}

// The numbers that the rows [first, last) of matrix `m` use.
class NumbersOfRows {
 public:
  absl::Status Read(const SharedNumbers& shared, int64_t m, int64_t first, int64_t last) {
    shared_ = &shared;
    first_ = first / shared.row_block;
    const int64_t end = (last - 1) / shared.row_block + 1;
    const int64_t matrix = shared.one_for_all ? 0 : m;
    values_.resize((end - first_) * shared.columns);
    if (shared.packed_bits == 0) {
      return ReadPlain((matrix * shared.rows + first_) * shared.columns);
    }
    // Words hold numbers of neighbouring rows.
    const int per_word = 32 / shared.packed_bits;
    const int64_t num_words = (shared.rows + per_word - 1) / per_word;
    const int64_t first_word = first_ / per_word, end_word = (end - 1) / per_word + 1;
    std::vector<uint32_t> words((end_word - first_word) * shared.columns);
    UQ_RETURN_IF_ERROR(ReadPart(shared.tensor, (matrix * num_words + first_word) * shared.columns,
                                static_cast<int64_t>(words.size()), words.data()));
    for (int64_t row = first_; row < end; ++row) {
      for (int64_t c = 0; c < shared.columns; ++c) {
        values_[(row - first_) * shared.columns + c] =
            Unpack(&words[c], shared.columns, row - first_word * per_word, shared.packed_bits);
      }
    }
    return absl::OkStatus();
  }

  // Of a row of the matrix, by column of the numbers.
  const float* Row(int64_t row) const {
    return &values_[(row / shared_->row_block - first_) * shared_->columns];
  }

 private:
  absl::Status ReadPlain(int64_t first) {
    const SourceTensor& tensor = shared_->tensor;
    const auto count = static_cast<int64_t>(values_.size());
    const TensorInfo part = tensor.info.Part(first, count);
    if (tensor.info.dtype != SafetensorsDType::kI8) {
      return tensor.file->ReadFloat(part, values_.data());
    }
    std::vector<int8_t> bytes(count);
    UQ_RETURN_IF_ERROR(tensor.file->ReadBytes(part, bytes.data()));
    std::copy(bytes.begin(), bytes.end(), values_.begin());
    return absl::OkStatus();
  }

  const SharedNumbers* shared_ = nullptr;
  int64_t first_ = 0;  // row of the numbers
  std::vector<float> values_;
};

class ScaledDecoder : public TensorDecoder {
 public:
  explicit ScaledDecoder(ScaledMatrices matrices) : m_(std::move(matrices)) {}

  absl::Status Decode(int64_t begin, int64_t end, float* out) const override {
    std::vector<int32_t> groups;
    UQ_RETURN_IF_ERROR(ReadGroups(&groups));
    // Whole rows of one matrix at a time, of which a part may be wanted.
    const int64_t rows_at_once = std::max<int64_t>(1, kChunkElements / m_.columns);
    std::vector<float> values;
    for (int64_t row = begin / m_.columns; row * m_.columns < end;) {
      const int64_t matrix = row / m_.rows;
      const int64_t last = std::min(
          {row + rows_at_once, (matrix + 1) * m_.rows, (end + m_.columns - 1) / m_.columns});
      values.resize((last - row) * m_.columns);
      UQ_RETURN_IF_ERROR(DecodeRows(matrix, row - matrix * m_.rows, last - matrix * m_.rows, groups,
                                    values.data()));
      const int64_t from = std::max(begin, row * m_.columns);
      const int64_t to = std::min(end, last * m_.columns);
      std::copy(values.begin() + (from - row * m_.columns),
                values.begin() + (to - row * m_.columns), out + (from - begin));
      row = last;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadGroups(std::vector<int32_t>* groups) const {
    if (!m_.column_groups.has_value()) return absl::OkStatus();
    groups->resize(m_.columns);
    UQ_RETURN_IF_ERROR(ReadPart(*m_.column_groups, 0, m_.columns, groups->data()));
    // Written as −1 where no order was chosen.
    if (std::find(groups->begin(), groups->end(), -1) != groups->end()) {
      groups->clear();
      return absl::OkStatus();
    }
    for (int64_t c = 0; c < m_.columns; ++c) {
      if ((*groups)[c] >= 0 && (*groups)[c] < m_.scales.columns) continue;
      return InvalidInput(
          "INVALID_QUANTIZATION",
          absl::StrCat("tensor ", m_.column_groups->info.name, " holds ", (*groups)[c], " at [", c,
                       "]; there are ", m_.scales.columns, " groups of columns"));
    }
    return absl::OkStatus();
  }

  // The rows [first, last) of a matrix.
  absl::Status DecodeRows(int64_t matrix, int64_t first, int64_t last,
                          const std::vector<int32_t>& groups, float* out) const {
    UQ_RETURN_IF_ERROR(ReadCodes(matrix * m_.rows + first, last - first, out));
    NumbersOfRows scales, zeros;
    UQ_RETURN_IF_ERROR(scales.Read(m_.scales, matrix, first, last));
    if (m_.zero_points.has_value()) {
      UQ_RETURN_IF_ERROR(zeros.Read(*m_.zero_points, matrix, first, last));
    }
    std::vector<float> scale(m_.columns), zero(m_.columns);
    for (int64_t row = first; row < last; ++row) {
      float* values = out + (row - first) * m_.columns;
      Spread(m_.scales, scales.Row(row), groups, scale.data());
      if (m_.zero_points.has_value()) {
        Spread(*m_.zero_points, zeros.Row(row), groups, zero.data());
        for (int64_t c = 0; c < m_.columns; ++c) values[c] -= zero[c];
      }
      for (int64_t c = 0; c < m_.columns; ++c) values[c] *= scale[c];
    }
    return absl::OkStatus();
  }

  // A row's numbers, for each column of the matrix.
  void Spread(const SharedNumbers& shared, const float* numbers, const std::vector<int32_t>& groups,
              float* out) const {
    if (!groups.empty()) {
      for (int64_t c = 0; c < m_.columns; ++c) out[c] = numbers[groups[c]];
      return;
    }
    for (int64_t i = 0; i < shared.columns; ++i) {
      const int64_t begin = i * shared.column_block;
      const int64_t end = std::min(begin + shared.column_block, m_.columns);
      std::fill(out + begin, out + end, numbers[i]);
    }
  }

  // `count` rows from row `first` of all matrices one after the other.
  absl::Status ReadCodes(int64_t first, int64_t count, float* out) const {
    const SourceTensor& codes = m_.codes;
    if (m_.packed_bits > 0) {
      const int64_t words_a_row = (m_.columns * m_.packed_bits + 31) / 32;
      std::vector<uint32_t> words(count * words_a_row);
      UQ_RETURN_IF_ERROR(ReadPart(codes, first * words_a_row, count * words_a_row, words.data()));
      const auto unpack = m_.packed_bits == 2   ? UnpackRow<2>
                          : m_.packed_bits == 4 ? UnpackRow<4>
                                                : UnpackRow<8>;
      for (int64_t row = 0; row < count; ++row) {
        unpack(&words[row * words_a_row], m_.columns, out + row * m_.columns);
      }
      return absl::OkStatus();
    }
    const int64_t size = count * m_.columns;
    if (codes.info.dtype != SafetensorsDType::kI8) {
      return codes.file->ReadFloat(codes.info.Part(first * m_.columns, size), out);
    }
    std::vector<int8_t> bytes(size);
    UQ_RETURN_IF_ERROR(ReadPart(codes, first * m_.columns, size, bytes.data()));
    std::copy(bytes.begin(), bytes.end(), out);
    return absl::OkStatus();
  }

  const ScaledMatrices m_;
};

// E2M1 of the OCP microscaling formats.
constexpr float kE2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                             -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
constexpr int64_t kGroup = 32;  // elements that share a scale; 16 bytes

class MicroscaledDecoder : public TensorDecoder {
 public:
  explicit MicroscaledDecoder(MicroscaledStack stack) : s_(std::move(stack)) {}

  absl::Status Decode(int64_t begin, int64_t end, float* out) const override {
    const int64_t matrix = s_.rows * s_.columns;
    for (int64_t expert = begin / matrix; expert * matrix < end; ++expert) {
      const int64_t from = std::max(begin, expert * matrix);
      const int64_t to = std::min(end, (expert + 1) * matrix);
      UQ_RETURN_IF_ERROR(
          DecodeExpert(expert, from - expert * matrix, to - expert * matrix, out + (from - begin)));
    }
    return absl::OkStatus();
  }

 private:
  // The elements [begin, end) of the expert's [columns, rows]: all stored rows, of those the groups
  // of columns that are wanted.
  absl::Status DecodeExpert(int64_t expert, int64_t begin, int64_t end, float* out) const {
    const int64_t groups = s_.columns / kGroup;
    const int64_t first_group = begin / s_.rows / kGroup;
    const int64_t end_group = (end - 1) / s_.rows / kGroup + 1;
    const int64_t rows_at_once = std::max<int64_t>(1, kChunkElements / s_.columns);
    std::vector<uint8_t> blocks, scales;
    for (int64_t row = 0; row < s_.rows; row += rows_at_once) {
      const int64_t count = std::min(rows_at_once, s_.rows - row);
      const int64_t first = (expert * s_.rows + row) * groups;
      blocks.resize(count * groups * kGroup / 2);
      scales.resize(count * groups);
      UQ_RETURN_IF_ERROR(ReadPart(s_.blocks, first * kGroup / 2,
                                  static_cast<int64_t>(blocks.size()), blocks.data()));
      UQ_RETURN_IF_ERROR(
          ReadPart(s_.scales, first, static_cast<int64_t>(scales.size()), scales.data()));
      for (int64_t g = first_group; g < end_group; ++g) {
        for (int64_t r = 0; r < count; ++r) {
          const float scale = Float8E8m0ToFloat(scales[r * groups + g]);
          const uint8_t* pairs = &blocks[(r * groups + g) * kGroup / 2];
          for (int64_t i = 0; i < kGroup; ++i) {
            const int64_t at = (g * kGroup + i) * s_.rows + row + r;
            if (at < begin || at >= end) continue;
            const int nibble = i % 2 == 0 ? pairs[i / 2] & 15 : pairs[i / 2] >> 4;
            out[at - begin] = kE2m1[nibble] * scale;
          }
        }
      }
    }
    return absl::OkStatus();
  }

  const MicroscaledStack s_;
};

}  // namespace

std::shared_ptr<const TensorDecoder> NewScaledDecoder(ScaledMatrices matrices) {
  return std::make_shared<ScaledDecoder>(std::move(matrices));
}

std::shared_ptr<const TensorDecoder> NewMicroscaledDecoder(MicroscaledStack stack) {
  return std::make_shared<MicroscaledDecoder>(std::move(stack));
}

}  // namespace uniquanf
