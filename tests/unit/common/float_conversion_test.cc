// Float conversions against an exhaustive reading of every 16-bit pattern.
#include "common/safetensors/float_conversion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace uniquanf {
namespace {

// The value by definition: sign, exponent, mantissa.
double Decode(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int sign = bits >> 15;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double value;
  if (exponent == (1 << exponent_bits) - 1) {
    value = mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                          : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else {
    value = std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  }
  return sign ? -value : value;
}

TEST(FloatConversionTest, EveryPatternDecodesAndComesBack) {
  for (int bits = 0; bits <= 0xFFFF; ++bits) {
    const uint16_t pattern = static_cast<uint16_t>(bits);
    const double half = Decode(pattern, 5, 10), bfloat = Decode(pattern, 8, 7);
    if (std::isnan(half)) {
      EXPECT_TRUE(std::isnan(Float16ToFloat(pattern)));
      EXPECT_TRUE(std::isnan(Float16ToFloat(FloatToFloat16(Float16ToFloat(pattern)))));
    } else {
      ASSERT_EQ(Float16ToFloat(pattern), half) << bits;
      ASSERT_EQ(FloatToFloat16(Float16ToFloat(pattern)), pattern) << bits;
    }
    if (std::isnan(bfloat)) {
      EXPECT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(Bfloat16ToFloat(pattern)))));
    } else {
      ASSERT_EQ(Bfloat16ToFloat(pattern), static_cast<float>(bfloat)) << bits;
      ASSERT_EQ(FloatToBfloat16(Bfloat16ToFloat(pattern)), pattern) << bits;
    }
  }
}

// Between two neighbours: below the middle goes down, above it up, the middle to the even one.
TEST(FloatConversionTest, RoundsToNearestEven) {
  for (int bits = 0; bits < 0x7BFF; ++bits) {
    const float low = Float16ToFloat(static_cast<uint16_t>(bits));
    const float high = Float16ToFloat(static_cast<uint16_t>(bits + 1));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    ASSERT_EQ(FloatToFloat16(middle), bits + (bits & 1)) << bits;
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, low)), bits) << bits;
    ASSERT_EQ(FloatToFloat16(std::nextafter(middle, high)), bits + 1) << bits;
  }
  EXPECT_EQ(FloatToFloat16(65519.0f), 0x7BFF);
  EXPECT_EQ(FloatToFloat16(65520.0f), 0x7C00);
  EXPECT_EQ(FloatToFloat16(-65520.0f), 0xFC00);
  EXPECT_EQ(FloatToFloat16(1e30f), 0x7C00);
  EXPECT_EQ(FloatToFloat16(0x1p-26f), 0);
}

}  // namespace
}  // namespace uniquanf
