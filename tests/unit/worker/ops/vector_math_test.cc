#include "worker/backend/vector_math.h"

#include <gtest/gtest.h>

#include <cmath>

namespace uniquanf {
namespace {

double UlpsFrom(float actual, double expected) {
  const float rounded = std::abs(static_cast<float>(expected));
  const double ulp = std::nextafter(rounded, INFINITY) - static_cast<double>(rounded);
  return std::abs(actual - expected) / ulp;
}

TEST(PortableExpTest, IsWithinTwoUlps) {
  for (float x = -87.3f; x < 88.7f; x += 0.00037f) {
    ASSERT_LT(UlpsFrom(PortableExp(x), std::exp(static_cast<double>(x))), 2.0) << x;
  }
}

TEST(PortableExpTest, SaturatesAtTheEnds) {
  EXPECT_EQ(PortableExp(0.0f), 1.0f);
  EXPECT_EQ(PortableExp(-88.0f), 0.0f);
  EXPECT_EQ(PortableExp(-INFINITY), 0.0f);
  EXPECT_EQ(PortableExp(89.0f), INFINITY);
  EXPECT_EQ(PortableExp(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(PortableExp(NAN)));
}

TEST(PortableLogTest, IsWithinTwoUlps) {
  for (float x = 1.2e-38f; x < 3e38f; x *= 1.0013f) {
    ASSERT_LT(UlpsFrom(PortableLog(x), std::log(static_cast<double>(x))), 2.0) << x;
  }
}

TEST(PortableLogTest, HandlesTheEnds) {
  EXPECT_EQ(PortableLog(1.0f), 0.0f);
  EXPECT_EQ(PortableLog(0.0f), -INFINITY);
  EXPECT_EQ(PortableLog(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(PortableLog(-1.0f)));
  EXPECT_TRUE(std::isnan(PortableLog(NAN)));
}

}  // namespace
}  // namespace uniquanf
