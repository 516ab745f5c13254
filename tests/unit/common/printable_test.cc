#include "common/base/printable.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace uniquanf {
namespace {

TEST(PrintableTest, WhatDrivesATerminalIsEscaped) {
  EXPECT_EQ(PrintableText("a\x1b[31mb\x07\r\n\tc\x7f"), "a\\x1b[31mb\\x07\\x0d\\x0a\\x09c\\x7f");
  EXPECT_EQ(PrintableText(std::string("\0", 1)), "\\x00");
  EXPECT_EQ(PrintableText("\u009b2J \u0085"), "\\u009b2J \\u0085");                       // C1
  EXPECT_EQ(PrintableText("\u202egnp.exe\u2066\u200f"), "\\u202egnp.exe\\u2066\\u200f");  // bidi
  EXPECT_EQ(PrintableText("a\u2028b\u2029\ufeff"), "a\\u2028b\\u2029\\ufeff");
  EXPECT_EQ(PrintableText("\U000E0041"), "\\U000e0041");
}

TEST(PrintableTest, BytesThatAreNoUtf8AreEscapedOneByOne) {
  EXPECT_EQ(PrintableText("\x9b"
                          "1m"),
            "\\x9b1m");  // C1 in Latin-1
  EXPECT_EQ(PrintableText("\xC3"), "\\xc3");
  EXPECT_EQ(PrintableText("\xC1\x9B"), "\\xc1\\x9b");           // overlong
  EXPECT_EQ(PrintableText("\xE0\x82\x9B"), "\\xe0\\x82\\x9b");  // overlong U+009B
  EXPECT_EQ(PrintableText("\xED\xA0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(PrintableText("\xF5\x80\x80\x80"), "\\xf5\\x80\\x80\\x80");
}

TEST(PrintableTest, OtherTextsStay) {
  const std::string text = "Grüße, 日本語, עברית, \xF0\x9F\x98\x80 \\n";
  EXPECT_EQ(PrintableText(text), text);
  EXPECT_EQ(PrintableJson(text), text);
}

TEST(PrintableTest, JsonKeepsItsMeaning) {
  const std::string value = "\u009b \u202e \x7f \U000E0041 é \x1b \n";
  const std::string json = nlohmann::json{{"k", value}}.dump(2);
  const std::string printable = PrintableJson(json);
  EXPECT_EQ(printable.find("\u009b"), std::string::npos);
  EXPECT_EQ(printable.find("\u202e"), std::string::npos);
  EXPECT_NE(printable.find("\\u202e"), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(printable)["k"], value);
}

}  // namespace
}  // namespace uniquanf
