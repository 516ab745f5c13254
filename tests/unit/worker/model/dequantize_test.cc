// Dequantized originals against values computed here in double precision from the formats'
// definitions.
#include "worker/model/dequantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/worker/model/model_fixture.h"
#include "worker/model/checkpoint.h"
#include "worker/model/checkpoint_files.h"

namespace uniquanf {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using DType = SafetensorsDType;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kReason[] = "INVALID_QUANTIZATION";

// `value` with `bits` significant bits, ties to even, and no exponent below `lowest`.
double Rounded(double value, int bits, int lowest) {
  if (value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - bits, lowest));
  return std::nearbyint(value / unit) * unit;
}
double ToBf16(double value) { return Rounded(Rounded(value, 24, -149), 8, -133); }
double ToF16(double value) { return Rounded(Rounded(value, 24, -149), 11, -24); }

// A float of 1 sign, `exponent` and `mantissa` bits, by its definition; NaNs aside.
double SmallFloat(uint8_t code, int exponent_bits, int mantissa_bits) {
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double fraction = std::ldexp(mantissa, -mantissa_bits);
  const double size =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return code >> (exponent_bits + mantissa_bits) & 1 ? -size : size;
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

class DequantizeTest : public testing::Test {
 protected:
  // Codes of an fp8 type: every finite one occurs.
  static std::vector<uint8_t> Codes(int64_t count, bool e5m2) {
    std::vector<uint8_t> codes(count);
    for (int64_t i = 0; i < count; ++i) {
      codes[i] = static_cast<uint8_t>(i * 167 + i / 256);
      const int magnitude = codes[i] & 0x7F;
      if (e5m2 ? magnitude >= 0x7C : magnitude == 0x7F) codes[i] = 0x35;
    }
    return codes;
  }
  std::vector<float> Scales(int64_t count) {
    std::uniform_real_distribution<float> draw(-9, 2);
    std::vector<float> scales(count);
    for (float& scale : scales) scale = std::exp2(draw(random_));
    return scales;
  }
  void Add(const std::string& name, DType dtype, std::vector<int64_t> shape, std::string bytes) {
    FixtureTensor& tensor = tensors_[name];
    tensor.dtype = dtype;
    tensor.shape = std::move(shape);
    tensor.bytes = std::move(bytes);
  }
  void AddFloats(const std::string& name, std::vector<int64_t> shape, std::vector<float> values,
                 DType dtype = DType::kF32) {
    tensors_[name] = {dtype, std::move(shape), std::move(values)};
  }

  absl::StatusOr<std::vector<ManifestDequantized>> Run() {
    WriteFile(dir_.File("model.safetensors"), FixtureFile(tensors_));
    files_ = *OpenCheckpointFiles(*OpenObjectStore(dir_.path()));
    return DequantizeTensors(quantization_, &files_.tensors);
  }

  // Compares the whole tensor and parts of it, as floats and as bytes.
  void ExpectTensor(const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                    const std::vector<double>& expected) {
    ASSERT_EQ(files_.tensors.count(name), 1u) << name;
    const SourceTensor& tensor = files_.tensors[name];
    EXPECT_EQ(tensor.info.dtype, dtype);
    EXPECT_EQ(tensor.info.shape, shape);
    const auto size = static_cast<int64_t>(expected.size());
    ASSERT_EQ(tensor.info.num_elements(), size);
    const int64_t width = shape.back();
    for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
             {0, size}, {3, size - 2}, {width - 1, width + 1}, {size / 2, size / 2 + 1}}) {
      if (begin >= end || end > size) continue;
      std::vector<float> values(end - begin);
      ASSERT_OK(tensor.ReadFloats(begin, end, values.data()));
      for (int64_t i = begin; i < end; ++i) {
        ASSERT_EQ(values[i - begin], expected[i]) << name << " element " << i << " of " << begin;
      }
      if (dtype == DType::kF32) continue;
      std::vector<uint16_t> halves(end - begin);
      ASSERT_OK(tensor.ReadBytes(begin, end, reinterpret_cast<char*>(halves.data())));
      for (int64_t i = begin; i < end; ++i) {
        const float value = dtype == DType::kBF16 ? Bfloat16ToFloat(halves[i - begin])
                                                  : Float16ToFloat(halves[i - begin]);
        ASSERT_EQ(value, expected[i]) << name << " bytes of element " << i;
      }
    }
  }

  TempDir dir_;
  FixtureTensors tensors_;
  SourceQuantization quantization_ = {"fp8", {{128, 128}}, {}, DType::kBF16};
  CheckpointFiles files_;
  std::mt19937 random_{17};
};

TEST_F(DequantizeTest, Fp8InBlocksThatDoNotDivideTheMatrix) {
  const int64_t n = 130, k = 300;
  for (const bool e5m2 : {false, true}) {
    const std::vector<uint8_t> codes = Codes(n * k, e5m2);
    const std::vector<float> scales = Scales(2 * 3);
    Add("a.weight", e5m2 ? DType::kF8E5M2 : DType::kF8E4M3, {n, k}, Bytes(codes));
    AddFloats("a.weight_scale_inv", {2, 3}, scales);
    AddFloats("norm.weight", {4}, {1, 2, 3, 4});
    ASSERT_OK_AND_ASSIGN(const auto done, Run());
    std::vector<double> expected(n * k);
    for (int64_t i = 0; i < n * k; ++i) {
      const float scale = scales[i / k / 128 * 3 + i % k / 128];
      expected[i] = ToBf16(SmallFloat(codes[i], e5m2 ? 5 : 4, e5m2 ? 2 : 3) * scale);
    }
    ExpectTensor("a.weight", DType::kBF16, {n, k}, expected);
    EXPECT_EQ(files_.tensors.size(), 2u);
    EXPECT_EQ(files_.tensors["a.weight"].size_on_disk(), n * k + 24u);
    ASSERT_EQ(done.size(), 1u);
    EXPECT_EQ(done[0].form, absl::StrCat(e5m2 ? "F8_E5M2" : "F8_E4M3", ", a scale for 128 x 128"));
    EXPECT_EQ(done[0].num_tensors, 1);
  }
}

// A scale a tensor, row, column or matrix of a stack, in every shape that is written.
TEST_F(DequantizeTest, Fp8WithOtherScales) {
  const int64_t n = 5, k = 24;
  struct Case {
    std::vector<int64_t> weights, scales;
    int64_t row_step, column_step, matrix_step;
  };
  const Case cases[] = {
      {{n, k}, {}, 0, 0, 0},           {{n, k}, {1}, 0, 0, 0},          {{n, k}, {1, 1}, 0, 0, 0},
      {{n, k}, {n}, 1, 0, 0},          {{n, k}, {n, 1}, 1, 0, 0},       {{n, k}, {1, k}, 0, 1, 0},
      {{3, n, k}, {3}, 0, 0, 1},       {{3, n, k}, {3, 1, 1}, 0, 0, 1}, {{3, n, k}, {}, 0, 0, 0},
      {{3, n, k}, {3, n, 1}, 1, 0, n}, {{3, n, k}, {3, 1, k}, 0, 1, k},
  };
  quantization_.blocks.clear();
  for (const Case& test : cases) {
    int64_t size = 1, num_scales = 1;
    for (const int64_t dim : test.weights) size *= dim;
    for (const int64_t dim : test.scales) num_scales *= dim;
    const std::vector<uint8_t> codes = Codes(size, false);
    const std::vector<float> scales = Scales(num_scales);
    tensors_.clear();
    Add("e.gate_up_proj", DType::kF8E4M3, test.weights, Bytes(codes));
    AddFloats("e.gate_up_proj_scale", test.scales, scales);
    ASSERT_OK(Run());
    std::vector<double> expected(size);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t at =
          i / (n * k) * test.matrix_step + i / k % n * test.row_step + i % k * test.column_step;
      expected[i] = ToBf16(SmallFloat(codes[i], 4, 3) * scales[at]);
    }
    ExpectTensor("e.gate_up_proj", DType::kBF16, test.weights, expected);
  }
}

TEST_F(DequantizeTest, RoundsToTheScalesTypeOrTheConfigs) {
  const std::vector<uint8_t> codes = Codes(2 * 8, false);
  for (const DType scale_type : {DType::kF32, DType::kBF16}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      quantization_.dtype = dtype;
      Add("a.weight", DType::kF8E4M3, {2, 8}, Bytes(codes));
      AddFloats("a.weight_scale_inv", {}, {1.0078125f}, scale_type);
      ASSERT_OK(Run());
      const DType result = scale_type == DType::kF32 ? dtype : scale_type;
      std::vector<double> expected(codes.size());
      for (size_t i = 0; i < codes.size(); ++i) {
        const double value = SmallFloat(codes[i], 4, 3) * 1.0078125;
        expected[i] = result == DType::kF32    ? value
                      : result == DType::kBF16 ? ToBf16(value)
                                               : ToF16(value);
      }
      ExpectTensor("a.weight", result, {2, 8}, expected);
    }
  }
}

TEST_F(DequantizeTest, ScalesThatArePowersOfTwo) {
  Add("a.weight", DType::kF8E4M3, {1, 4}, Bytes<uint8_t>({0x38, 0xB8, 0x01, 0x7E}));
  Add("a.weight_scale_inv", DType::kF8E8M0, {1}, Bytes<uint8_t>({120}));
  ASSERT_OK(Run());
  ExpectTensor("a.weight", DType::kBF16, {1, 4},
               {0x1p-7, -0x1p-7, std::ldexp(0x1p-9, -7), std::ldexp(448.0, -7)});
}

TEST_F(DequantizeTest, MicroscaledExpertsAreTransposed) {
  const int64_t experts = 3, rows = 6, columns = 64;
  std::vector<uint8_t> blocks(experts * rows * columns / 2), scales(experts * rows * 2);
  for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random_());
  for (uint8_t& scale : scales) scale = static_cast<uint8_t>(118 + random_() % 12);
  scales[0] = 0;    // the smallest power of two
  scales[1] = 252;  // and one near the largest
  Add("m.experts.gate_up_proj_blocks", DType::kU8, {experts, rows, 2, 16}, Bytes(blocks));
  Add("m.experts.gate_up_proj_scales", DType::kU8, {experts, rows, 2}, Bytes(scales));
  AddFloats("m.experts.gate_up_proj_bias", {experts, rows},
            std::vector<float>(experts * rows, 0.5f));
  quantization_ = {"mxfp4", {}, {}, DType::kBF16};
  ASSERT_OK_AND_ASSIGN(const auto done, Run());
  std::vector<double> expected(experts * columns * rows);
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t byte = (e * rows + r) * columns / 2 + c / 2;
        const int code = c % 2 == 0 ? blocks[byte] % 16 : blocks[byte] / 16;
        const double value = SmallFloat(code, 2, 1);
        expected[(e * columns + c) * rows + r] =
            std::ldexp(value, scales[(e * rows + r) * 2 + c / 32] - 127);
      }
    }
  }
  ExpectTensor("m.experts.gate_up_proj", DType::kBF16, {experts, columns, rows}, expected);
  EXPECT_EQ(files_.tensors.size(), 2u);
  EXPECT_THAT(done[0].form, HasSubstr("mxfp4"));
}

// compressed-tensors: 2, 4 and 8 bits, groups and rows, with and without zero points and an order.
TEST_F(DequantizeTest, PackedIntegers) {
  for (const int bits : {2, 4, 8}) {
    for (const int64_t group : {8, 32}) {
      for (const int kind : {0, 1, 2, 3}) {  // symmetric; packed zeros; zeros in bytes; an order
        const int64_t n = 11, k = 32, groups = k / group, per_word = 32 / bits;
        const int offset = 1 << (bits - 1);
        std::vector<int> codes(n * k), zeros(n * groups);
        for (int& code : codes) code = static_cast<int>(random_() % (1u << bits)) - offset;
        for (int& zero : zeros) zero = static_cast<int>(random_() % (1u << bits)) - offset;
        std::vector<uint32_t> words(n * k / per_word);
        for (int64_t i = 0; i < n * k; ++i) {
          words[i / per_word] |= static_cast<uint32_t>(codes[i] + offset) << i % per_word * bits;
        }
        const std::vector<float> drawn = Scales(n * groups);
        tensors_.clear();
        Add("a.weight_packed", DType::kI32, {n, k / per_word}, Bytes(words));
        Add("a.weight_shape", DType::kI64, {2}, Bytes<int64_t>({n, k}));
        AddFloats("a.weight_scale", {n, groups}, drawn, DType::kBF16);
        if (kind == 1) {
          const int64_t zero_rows = (n + per_word - 1) / per_word;
          std::vector<uint32_t> packed(zero_rows * groups);
          for (int64_t r = 0; r < n; ++r) {
            for (int64_t g = 0; g < groups; ++g) {
              packed[r / per_word * groups + g] |=
                  static_cast<uint32_t>(zeros[r * groups + g] + offset) << r % per_word * bits;
            }
          }
          Add("a.weight_zero_point", DType::kI32, {zero_rows, groups}, Bytes(packed));
        } else if (kind == 2) {
          const std::vector<int8_t> bytes(zeros.begin(), zeros.end());
          Add("a.weight_zero_point", DType::kI8, {n, groups}, Bytes(bytes));
        }
        std::vector<int32_t> order(k);
        for (int64_t c = 0; c < k; ++c) order[c] = static_cast<int32_t>(c * 7 % k / group);
        if (kind == 3) Add("a.weight_g_idx", DType::kI32, {k}, Bytes(order));
        quantization_ = {"compressed-tensors",
                         {},
                         {{false, bits, kind != 1 && kind != 2, groups == 1 ? 0 : group}},
                         DType::kBF16};
        ASSERT_OK_AND_ASSIGN(const auto done, Run());
        std::vector<double> expected(n * k);
        for (int64_t i = 0; i < n * k; ++i) {
          const int64_t g = kind == 3 && groups > 1 ? order[i % k] : i % k / group;
          const int64_t at = i / k * groups + g;
          const int zero = kind == 1 || kind == 2 ? zeros[at] : 0;
          expected[i] = ToBf16((codes[i] - zero) * ToBf16(drawn[at]));
        }
        ExpectTensor("a.weight", DType::kBF16, {n, k}, expected);
        EXPECT_EQ(files_.tensors.size(), 1u);
        EXPECT_THAT(done[0].form, HasSubstr(absl::StrCat(bits, "-bit")));
      }
    }
  }
}

TEST_F(DequantizeTest, IntegersOneByOne) {
  const std::vector<int8_t> codes = {-128, 127, 3, -4, 0, 1, 2, 100};
  Add("a.weight", DType::kI8, {2, 4}, Bytes(codes));
  AddFloats("a.weight_scale", {2, 1}, {0.125f, 3}, DType::kBF16);
  Add("a.weight_zero_point", DType::kI8, {2, 1}, Bytes<int8_t>({5, -6}));
  quantization_ = {"compressed-tensors", {}, {{false, 8, false, 0}}, DType::kBF16};
  ASSERT_OK(Run());
  std::vector<double> expected(8);
  for (int i = 0; i < 8; ++i) {
    expected[i] = ToBf16(i < 4 ? (codes[i] - 5) * 0.125 : (codes[i] + 6) * 3.0);
  }
  ExpectTensor("a.weight", DType::kBF16, {2, 4}, expected);
}

TEST_F(DequantizeTest, ScalesOfActivationsAreLeftOut) {
  Add("l.q_proj.weight", DType::kF8E4M3, {2, 4}, Bytes(Codes(8, false)));
  AddFloats("l.q_proj.weight_scale", {1}, {1});
  for (const char* name : {"l.q_proj.input_scale", "l.q_proj.activation_scale", "l.k_scale"}) {
    AddFloats(name, {1}, {1});
  }
  ASSERT_OK(Run());
  EXPECT_EQ(files_.tensors.size(), 1u);
}

TEST_F(DequantizeTest, WhatDoesNotFitIsRefusedByName) {
  const auto fp8 = [&] {
    tensors_.clear();
    Add("a.weight", DType::kF8E4M3, {130, 8}, Bytes(Codes(130 * 8, false)));
  };
  fp8();
  AddFloats("a.weight_scale_inv", {3, 1}, {1, 1, 1});
  EXPECT_THAT(Run(),
              FailsWith(kInvalid, kReason,
                        AllOf(HasSubstr("a.weight_scale_inv F32 [3, 1]"),
                              HasSubstr("a.weight F8_E4M3 [130, 8]"), HasSubstr("128 x 128"))));
  fp8();
  Add("a.weight_scale_inv", DType::kI32, {2, 1}, "");
  EXPECT_THAT(Run(), FailsWith(kInvalid, kReason, HasSubstr("they are F32, F16, BF16")));
  fp8();
  AddFloats("a.weight_scale_inv", {2, 1}, {1, 1});
  AddFloats("a.weight_scale", {1}, {1});
  EXPECT_THAT(Run(), FailsWith(kInvalid, kReason, HasSubstr("both scales of a.weight")));
  tensors_.clear();
  Add("a.weight", DType::kF8E4M3, {8}, Bytes(Codes(8, false)));
  AddFloats("a.weight_scale", {1}, {1});
  EXPECT_THAT(Run(), FailsWith(kInvalid, kReason, HasSubstr("is no matrix")));

  const auto mxfp4 = [&](std::vector<int64_t> blocks, std::vector<int64_t> scales) {
    tensors_.clear();
    Add("x_blocks", DType::kU8, std::move(blocks), "");
    Add("x_scales", DType::kU8, std::move(scales), "");
    return Run();
  };
  EXPECT_THAT(mxfp4({2, 3, 2, 15}, {2, 3, 2}), FailsWith(kInvalid, kReason, HasSubstr("x_blocks")));
  EXPECT_THAT(mxfp4({2, 3, 32}, {2, 3, 2}), FailsWith(kInvalid, kReason, HasSubstr("x_blocks")));
  EXPECT_THAT(mxfp4({2, 3, 2, 16}, {2, 3, 1}), FailsWith(kInvalid, kReason, HasSubstr("x_scales")));
  tensors_["x"] = {DType::kF32, {1}, {1}};
  Add("x_scales", DType::kU8, {2, 3, 2}, "");
  EXPECT_THAT(Run(), FailsWith(kInvalid, kReason, HasSubstr("x is there twice")));

  quantization_ = {"compressed-tensors", {}, {{false, 4, true, 8}}, DType::kBF16};
  const auto packed = [&](int64_t words, std::vector<int64_t> shape, int64_t groups) {
    tensors_.clear();
    Add("a.weight_packed", DType::kI32, {4, words}, "");
    Add("a.weight_shape", DType::kI64, {static_cast<int64_t>(shape.size())}, Bytes(shape));
    AddFloats("a.weight_scale", {4, groups}, std::vector<float>(4 * groups, 1));
  };
  const auto expect = [&](const char* text) {
    EXPECT_THAT(Run(), FailsWith(kInvalid, kReason, HasSubstr(text)));
  };
  packed(4, {4, 32}, 4);
  EXPECT_OK(Run());
  const char* none = "of one of the config_groups";
  packed(5, {4, 32}, 4);
  expect(none);
  packed(4, {4, 32, 1}, 4);
  expect("must hold two integers");
  packed(4, {4, 32}, 5);
  expect(none);
  packed(4, {4, 32}, 2);
  expect(none);
  packed(8, {4, 32}, 4);  // 8 bits
  expect(none);
  // A scale a row: how long it is says weight_shape.
  packed(4, {4, 32}, 1);
  expect("none of the config_groups");
  quantization_.schemes[0].group_size = 0;
  EXPECT_OK(Run());
  packed(4, {4, 31}, 1);
  EXPECT_OK(Run());
  EXPECT_EQ(files_.tensors["a.weight"].info.shape, (std::vector<int64_t>{4, 31}));
  packed(4, {5, 32}, 1);
  expect("[5, 32] of one of the config_groups");
  packed(4, {4, -1}, 1);
  expect("which is no matrix");
  packed(4, {4, 40}, 1);
  expect("[4, 40] of one of the config_groups");
  quantization_.schemes[0].group_size = 8;
  packed(4, {4, 32}, 4);
  tensors_.erase("a.weight_shape");
  expect("lacks a.weight_shape");
  packed(4, {4, 32}, 4);
  tensors_.erase("a.weight_scale");
  expect("lacks a.weight_scale");
  packed(4, {4, 32}, 4);
  Add("a.weight_zero_point", DType::kI32, {2, 4}, "");
  expect("a.weight_zero_point I32 [2, 4]");
  packed(4, {4, 32}, 4);
  Add("a.weight_g_idx", DType::kI32, {31}, "");
  expect("a.weight_g_idx");

  std::vector<int32_t> groups(32, 0);
  groups[9] = 4;
  packed(4, {4, 32}, 4);
  Add("a.weight_g_idx", DType::kI32, {32}, Bytes(groups));
  ASSERT_OK(Run());
  std::vector<float> values(4 * 32);
  EXPECT_THAT(files_.tensors["a.weight"].ReadFloats(0, 128, values.data()),
              FailsWith(kInvalid, kReason, HasSubstr("holds 4 at [9]; there are 4 groups")));
}

// A whole checkpoint: some layers quantized, some not, with a section in config.json.
class QuantizedCheckpointTest : public DequantizeTest {
 protected:
  void Quantize(const std::string& name) {
    FixtureTensor& tensor = tensors_[name];
    const auto size = static_cast<int64_t>(tensor.values.size());
    Add(name, DType::kF8E4M3, tensor.shape, Bytes(Codes(size, false)));
    AddFloats(name + "_scale_inv", {1, 1}, {0.01f});
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& section) {
    std::string config = FixtureConfig({});
    config.insert(1, section.empty() ? "" : section + ", ");
    WriteFile(dir_.File("config.json"), config);
    WriteFile(dir_.File("model.safetensors"), FixtureFile(tensors_));
    return Checkpoint::Open(*OpenObjectStore(dir_.path()), false);
  }
  static constexpr char kSection[] =
      R"("quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
         "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]})";
};

TEST_F(QuantizedCheckpointTest, IsReadAsWhatItStandsFor) {
  tensors_ = MakeFixtureTensors({});
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  Quantize(name);
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open(kSection));
  ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint->LoadBlock(1));
  const BlockSpec& spec = checkpoint->config().blocks[1];
  const std::vector<float>& values = block[spec.FindTensor("mlp.up_proj.weight")];
  const std::vector<uint8_t> codes = Codes(static_cast<int64_t>(values.size()), false);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(values[i], ToBf16(SmallFloat(codes[i], 4, 3) * 0.01f)) << i;
  }
  EXPECT_EQ(block[spec.FindTensor("mlp.gate_proj.weight")],
            tensors_["model.layers.1.mlp.gate_proj.weight"].values);
  EXPECT_THAT(checkpoint->TensorNames(), Not(testing::Contains(HasSubstr("scale"))));
  ASSERT_EQ(checkpoint->dequantized().size(), 1u);
  EXPECT_EQ(checkpoint->dequantized()[0].num_tensors, 1);

  // A NaN is found where it stands for one.
  tensors_[name].bytes[24] = 0x7F;
  ASSERT_OK_AND_ASSIGN(const auto damaged, Open(kSection));
  EXPECT_THAT(damaged->LoadBlock(1), FailsWith(kInvalid, std::string("WEIGHT_NOT_FINITE"),
                                               HasSubstr("up_proj.weight holds NaN at [1, 8]")));
}

TEST_F(QuantizedCheckpointTest, WeightsAndScalesGoTogether) {
  tensors_ = MakeFixtureTensors({});
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  AddFloats(name + "_scale_inv", {1, 1}, {1});
  EXPECT_THAT(Open(kSection),
              FailsWith(kInvalid, std::string("UNEXPECTED_TENSOR"),
                        AllOf(HasSubstr(name + "_scale_inv"), HasSubstr("give the original one"))));
  Quantize(name);
  tensors_.erase(name + "_scale_inv");
  EXPECT_THAT(Open(kSection), FailsWith(kInvalid, std::string("TENSOR_DTYPE"),
                                        AllOf(HasSubstr(name), HasSubstr("F8_E4M3"),
                                              HasSubstr("give its original"))));
  // Without a section: DeepSeek's blocks.
  Quantize(name);
  EXPECT_OK(Open(""));
}

// Python writes numbers that JSON does not have.
TEST_F(QuantizedCheckpointTest, ConfigsOfPython) {
  tensors_ = MakeFixtureTensors({});
  EXPECT_OK(Open(R"("some_limit": [0.0, Infinity, -Infinity], "other": NaN)"));
}

}  // namespace
}  // namespace uniquanf
