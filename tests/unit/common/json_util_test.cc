// Tests of strict parsing, typed access and canonical writing.
#include <gtest/gtest.h>

#include <limits>

#include "common/base/json_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ParseJsonTest, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "{\"a\":}", "{} x", "\"\xff\"", "[1,]", "NaN", "{'a':1}"}) {
    EXPECT_THAT(ParseJson(text, "x.json", "BAD_X"),
                FailsWith(kInvalid, "BAD_X", HasSubstr("x.json")))
        << text;
  }
}

TEST(ParseJsonTest, RefusesDeepNestingWithoutBuildingIt) {
  std::string deep;
  deep.resize(50'000'000, '[');
  EXPECT_THAT(ParseJson(deep, "x.json", "BAD_X"),
              FailsWith(kInvalid, "BAD_X", HasSubstr("nested deeper")));
}

TEST(ParseJsonTest, RefusesRepeatedKeys) {
  EXPECT_THAT(ParseJson(R"({"a":{"b":1,"b":2}})", "x.json", "BAD_X"),
              FailsWith(kInvalid, "BAD_X", HasSubstr("\"b\" appears twice")));
  EXPECT_OK(ParseJson(R"({"a":{"b":1},"c":{"b":2}})", "x.json", "BAD_X"));
}

TEST(JsonObjectReaderTest, ReadsEveryType) {
  const auto json = nlohmann::json::parse(
      R"({"s":"x","b":true,"i":-3,"u":18446744073709551615,"d":0.5,"l":["p","q"]})");
  JsonObjectReader reader(json, "", "BAD");
  std::string s;
  bool b = false;
  int i = 0;
  uint64_t u = 0;
  double d = 0;
  std::vector<std::string> l;
  int missing = 42;
  reader.Read("s", JsonObjectReader::kRequired, &s);
  reader.Read("b", JsonObjectReader::kRequired, &b);
  reader.Read("i", JsonObjectReader::kRequired, &i);
  reader.Read("u", JsonObjectReader::kRequired, &u);
  reader.Read("d", JsonObjectReader::kRequired, &d);
  reader.Read("l", JsonObjectReader::kRequired, &l);
  reader.Read("missing", JsonObjectReader::kOptional, &missing);
  ASSERT_OK(reader.Finish());
  EXPECT_EQ(s, "x");
  EXPECT_TRUE(b);
  EXPECT_EQ(i, -3);
  EXPECT_EQ(u, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(d, 0.5);
  EXPECT_EQ(l, (std::vector<std::string>{"p", "q"}));
  EXPECT_EQ(missing, 42);
}

TEST(JsonObjectReaderTest, ErrorsNameTheField) {
  const auto json = nlohmann::json::parse(
      R"({"float":1.5,"text":"5","big":9223372036854775808,"wide":2147483648,"null":null})");
  const auto read = [&](const char* name, auto value) {
    JsonObjectReader reader(json, "modules[3]", "BAD");
    reader.Read(name, JsonObjectReader::kRequired, &value);
    return reader.Finish();
  };
  EXPECT_THAT(read("float", int64_t{0}), FailsWith(kInvalid, "BAD", HasSubstr("modules[3].float")));
  EXPECT_THAT(read("text", int64_t{0}), FailsWith(kInvalid, "BAD", HasSubstr("an integer")));
  EXPECT_THAT(read("big", int64_t{0}), FailsWith(kInvalid, "BAD", HasSubstr("an integer")));
  EXPECT_THAT(read("wide", int{0}), FailsWith(kInvalid, "BAD", HasSubstr("32-bit")));
  EXPECT_THAT(read("null", double{0}), FailsWith(kInvalid, "BAD", HasSubstr("a number")));
  EXPECT_THAT(read("gone", bool{}), FailsWith(kInvalid, "BAD", HasSubstr("gone is missing")));
}

TEST(JsonObjectReaderTest, UnknownFieldsAndWrongDocumentsAreErrors) {
  const auto json = nlohmann::json::parse(R"({"bits":4,"bitz":4})");
  JsonObjectReader reader(json, "", "BAD");
  int bits = 0;
  reader.Read("bits", JsonObjectReader::kRequired, &bits);
  EXPECT_THAT(reader.Finish(), FailsWith(kInvalid, "BAD", HasSubstr("unknown field bitz")));
  const nlohmann::json array = nlohmann::json::array();
  JsonObjectReader wrong(array, "", "BAD");
  wrong.Read("bits", JsonObjectReader::kRequired, &bits);
  EXPECT_THAT(wrong.Finish(), FailsWith(kInvalid, "BAD", HasSubstr("must be a JSON object")));
}

TEST(WrittenJsonTest, CompactAndIndented) {
  OrderedJson json;
  json["b"] = {-1, 0.005, 1e300 * 1e300};
  json["a"] = OrderedJson::object();
  json["s"] = "q\"\\\n\x01\xc3\xa4";
  EXPECT_EQ(CompactJson(json),
            "{\"b\":[-1,0.005,null],\"a\":{},\"s\":\"q\\\"\\\\\\n\\u0001\xc3\xa4\"}");
  EXPECT_EQ(IndentedJson(json),
            "{\n \"b\": [\n  -1,\n  0.005,\n  null\n ],\n \"a\": {},\n"
            " \"s\": \"q\\\"\\\\\\n\\u0001\xc3\xa4\"\n}\n");
  EXPECT_EQ(CompactJson("\xff"), "\"\xEF\xBF\xBD\"");
}

TEST(WrittenJsonTest, DoublesReadBackExactly) {
  for (const double value : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.0, -0.0}) {
    const std::string text = CompactJson(value);
    EXPECT_EQ(nlohmann::json::parse(text).get<double>(), value) << text;
  }
}

}  // namespace
}  // namespace uniquanf
