// Packing and dequantization: FORMAT.md's vectors, read from the page, and a scalar reference.
#include "common/artifact/layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

std::string FormatPage() {
  return ReadFile(std::string(UNIQUANF_SOURCE_DIR) + "/common/artifact/FORMAT.md");
}

std::string Hex(absl::string_view bytes) {
  std::string text;
  for (const char c : bytes) absl::StrAppendFormat(&text, " %02x", static_cast<unsigned char>(c));
  return text;
}

// "A.qweight I32 [1, 2, 2]: 13 00 ..." as FORMAT.md spells it.
std::string Line(absl::string_view name, const PackedLinear& packed, int tensor) {
  const SafetensorsWriter::Declaration declaration = PackedTensors(name, packed)[tensor];
  std::string shape;
  for (const int64_t dimension : declaration.shape) {
    absl::StrAppend(&shape, shape.empty() ? "" : ", ", dimension);
  }
  return absl::StrCat("    ", declaration.name, " ", SafetensorsDTypeName(declaration.dtype), " [",
                      shape, "]:", Hex(PackedTensorBytes(name, packed, declaration.name)), "\n");
}

UnifiedLinear VectorA() {
  UnifiedLinear a;
  a.bits = 2;
  a.num_outputs = 2;
  a.num_inputs = a.group_size = 5;
  a.codes = {0, 1, 2, 3, 0, 3, 3, 1, 0, 2};
  a.alpha = {1.0f, 0.5f, 2.0f, 0.25f};
  a.shift = {0.125f, -1.0f};
  return a;
}

UnifiedLinear VectorB() {
  UnifiedLinear b;
  b.bits = 3;
  b.num_outputs = 1;
  b.num_inputs = 64;
  b.group_size = 32;
  for (int k = 0; k < 64; ++k) b.codes.push_back(k % 8);
  b.alpha = {1.0f, 0.5f, 0.25f, 2.0f, 1.0f, 0.5f};
  b.shift = {0.0f, 1.0f};
  return b;
}

TEST(LayoutTest, FormatVectorsHold) {
  const std::string page = FormatPage();
  for (const auto& [name, unified] : {std::pair("A", VectorA()), std::pair("B", VectorB())}) {
    const PackedLinear packed = Pack(unified);
    EXPECT_EQ(packed.num_saturated, 0);
    for (int tensor = 0; tensor < 4; ++tensor) {
      EXPECT_THAT(page, HasSubstr(Line(name, packed, tensor)));
    }
  }
}

TEST(LayoutTest, FormatVectorsDequantize) {
  std::vector<float> a(10);
  Dequantize(Pack(VectorA()), a.data());
  EXPECT_EQ(a, (std::vector<float>{1.625f, 0.625f, -0.375f, -1.375f, 1.625f, -3.25f, -3.25f, 0.75f,
                                   1.25f, -2.75f}));
  std::vector<float> b(64);
  Dequantize(Pack(VectorB()), b.data());
  for (int k = 0; k < 8; ++k) {
    EXPECT_EQ(b[k], 1.75f - 0.5f * k);
    EXPECT_EQ(b[32 + k], 4.5f - k);
  }
}

TEST(LayoutTest, RoundsAndSaturatesAsTheFormatSays) {
  const auto pack = [](float value) {
    UnifiedLinear one;
    one.bits = 2;
    one.num_outputs = one.num_inputs = one.group_size = 1;
    one.codes = {0};
    one.alpha = {1.0f, 1.0f};
    one.shift = {value};
    return Pack(one);
  };
  const std::string page = FormatPage();
  const struct {
    const char* text;
    float value;
    uint16_t stored;
    bool saturated;
  } kCases[] = {
      {"1.00048828125 (a tie) → 00 3c", 1.00048828125f, 0x3C00, false},
      {"1.00146484375 (a tie) → 02 3c", 1.00146484375f, 0x3C02, false},
      {"65519.0 → ff 7b ", 65519.0f, 0x7BFF, false},
      {"65520.0 → ff 7b, counted", 65520.0f, 0x7BFF, true},
      {"-1e30 → ff fb, counted", -1e30f, 0xFBFF, true},
      {"5.9604644775390625e-08 → 01 00", 5.9604644775390625e-08f, 0x0001, false},
      {"-0.0 → 00 80", -0.0f, 0x8000, false},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(page, HasSubstr(c.text));
    const PackedLinear packed = pack(c.value);
    EXPECT_EQ(packed.beta[0], c.stored) << c.text;
    EXPECT_EQ(packed.num_saturated, c.saturated ? 1 : 0) << c.text;
  }
}

UnifiedLinear RandomLinear(int bits, int64_t N, int64_t K, int64_t group_size, std::mt19937* rng) {
  UnifiedLinear unified;
  unified.bits = bits;
  unified.num_outputs = N;
  unified.num_inputs = K;
  unified.group_size = group_size;
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < N * K; ++i) unified.codes.push_back((*rng)() & ((1u << bits) - 1));
  for (int64_t i = 0; i < N * K / group_size * bits; ++i) unified.alpha.push_back(normal(*rng));
  for (int64_t i = 0; i < N * K / group_size; ++i) unified.shift.push_back(normal(*rng));
  return unified;
}

// The format's formula, one weight at a time, from the codes and not from the planes.
float ReferenceWeight(const UnifiedLinear& u, int64_t row, int64_t k) {
  const int64_t group = row * (u.num_inputs / u.group_size) + k / u.group_size;
  const int code = u.codes[row * u.num_inputs + k];
  const auto round = [](float value) { return Float16ToFloat(FloatToFloat16(value)); };
  float sum = 0;
  for (int i = 0; i < u.bits; ++i) {
    const float alpha = round(u.alpha[group * u.bits + i]);
    const float term = ((code >> (u.bits - 1 - i)) & 1) == 0 ? alpha : -alpha;
    sum = i == 0 ? term : sum + term;
  }
  return sum + round(u.shift[group]);
}

TEST(LayoutTest, DequantizeEqualsTheScalarReferenceBitForBit) {
  constexpr int kSeed = 20251;
  std::mt19937 rng(kSeed);
  const struct {
    int64_t N, K, g;
  } kShapes[] = {{1, 1, 1},    {3, 32, 32}, {5, 33, 33}, {2, 96, 48},
                 {4, 100, 20}, {7, 64, 1},  {2, 31, 31}};
  for (int bits = 2; bits <= 8; ++bits) {
    for (const auto& shape : kShapes) {
      SCOPED_TRACE(absl::StrCat("seed ", kSeed, " bits ", bits, " shape ", shape.N, "x", shape.K,
                                "/", shape.g));
      const UnifiedLinear unified = RandomLinear(bits, shape.N, shape.K, shape.g, &rng);
      std::vector<float> out(shape.N * shape.K);
      Dequantize(Pack(unified), out.data());
      for (int64_t row = 0; row < shape.N; ++row) {
        for (int64_t k = 0; k < shape.K; ++k) {
          ASSERT_EQ(out[row * shape.K + k], ReferenceWeight(unified, row, k)) << row << "," << k;
        }
      }
    }
  }
}

class PackedFileTest : public ::testing::Test {
 protected:
  PackedFileTest() : store_(OpenObjectStore(dir_.path()).value()) {}

  // Writes the packed layer; `edit` may change declarations and bytes before.
  template <typename Edit>
  std::shared_ptr<const SafetensorsFile> WriteShard(const PackedLinear& packed, Edit edit) {
    auto declarations = PackedTensors("m", packed);
    std::map<std::string, std::string> bytes;
    for (const auto& d : declarations) bytes[d.name] = PackedTensorBytes("m", packed, d.name);
    edit(&declarations, &bytes);
    auto out = store_->NewWriter("shard.safetensors", {}).value();
    auto writer = SafetensorsWriter::Create(out.get(), declarations, {}).value();
    for (const auto& d : declarations) {
      EXPECT_OK(writer->Append(d.name, bytes[d.name].data(), bytes[d.name].size()));
    }
    EXPECT_OK(writer->Finish());
    EXPECT_OK(out->Commit());
    return SafetensorsFile::Open(store_, "shard.safetensors").value();
  }

  using Declarations = std::vector<SafetensorsWriter::Declaration>;
  using Contents = std::map<std::string, std::string>;
  TempDir dir_;
  std::shared_ptr<ObjectStore> store_;
};

TEST_F(PackedFileTest, ReadsBackWhatWasPacked) {
  std::mt19937 rng(3);
  const PackedLinear packed = Pack(RandomLinear(5, 6, 70, 35, &rng));
  const auto shard = WriteShard(
      packed, [](Declarations* d, Contents*) { SafetensorsWriter::SortForAlignment(d); });
  ASSERT_OK_AND_ASSIGN(const PackedLinear read, ReadPackedLinear(*shard, "m", 5, 6, 70, 35));
  EXPECT_EQ(read.qweight, packed.qweight);
  EXPECT_EQ(read.alpha, packed.alpha);
  EXPECT_EQ(read.beta, packed.beta);
}

TEST_F(PackedFileTest, RefusesWhatDoesNotFit) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const PackedLinear packed = Pack(VectorA());
  const auto plain = WriteShard(packed, [](Declarations*, Contents*) {});
  EXPECT_OK(ReadPackedLinear(*plain, "m", 2, 2, 5, 5));
  EXPECT_THAT(ReadPackedLinear(*plain, "other", 2, 2, 5, 5),
              FailsWith(kInvalid, "TENSOR_NOT_FOUND", HasSubstr("other.qweight")));
  EXPECT_THAT(ReadPackedLinear(*plain, "m", 3, 2, 5, 5), FailsWith(kInvalid, "TENSOR_SHAPE"));
  EXPECT_THAT(ReadPackedLinear(*plain, "m", 2, 3, 5, 5), FailsWith(kInvalid, "TENSOR_SHAPE"));
  EXPECT_THAT(ReadPackedLinear(*plain, "m", 2, 2, 5, 1), FailsWith(kInvalid, "TENSOR_SHAPE"));
  for (const auto& [bits, N, K, g] : {std::tuple<int, int64_t, int64_t, int64_t>{1, 2, 5, 5},
                                      {9, 2, 5, 5},
                                      {2, 0, 5, 5},
                                      {2, 2, 5, 2},
                                      {2, 2, 5, 0},
                                      {2, -2, 5, 5},
                                      {2, INT64_MAX, INT64_MAX, 1}}) {
    EXPECT_THAT(ReadPackedLinear(*plain, "m", bits, N, K, g),
                FailsWith(kInvalid, "INVALID_ARTIFACT"));
  }
  const auto wrong_dtype = WriteShard(
      packed, [](Declarations* d, Contents*) { (*d)[0].dtype = SafetensorsDType::kU32; });
  EXPECT_THAT(ReadPackedLinear(*wrong_dtype, "m", 2, 2, 5, 5),
              FailsWith(kInvalid, "TENSOR_DTYPE", HasSubstr("m.qweight")));
  const auto infinite = WriteShard(packed, [](Declarations*, Contents* bytes) {
    (*bytes)["m.beta_2"] = std::string("\x00\x30\x00\x7c", 4);
  });
  EXPECT_THAT(ReadPackedLinear(*infinite, "m", 2, 2, 5, 5),
              FailsWith(kInvalid, "INVALID_ARTIFACT", HasSubstr("m.beta_2\", element 1")));
}

}  // namespace
}  // namespace uniquanf
