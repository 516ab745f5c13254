// The quantization spec: ranges, JSON, patterns.
#include <gtest/gtest.h>

#include <cmath>

#include "common/spec/glob.h"
#include "common/spec/quantization_spec.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

QuantizationSpec GoodSpec() {
  QuantizationSpec spec;
  spec.model_uri = "file:///models/tiny";
  spec.calibration_uri = "calib.safetensors";
  spec.output_uri = "out";
  return spec;
}

TEST(GlobTest, MatchesAsDocumented) {
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("", ""));
  EXPECT_FALSE(GlobMatches("", "a"));
  EXPECT_FALSE(GlobMatches("?", ""));
  EXPECT_TRUE(GlobMatches("*.down_proj", "model.layers.3.mlp.down_proj"));
  EXPECT_FALSE(GlobMatches("*.down_proj", "model.layers.3.mlp.down_proj2"));
  EXPECT_TRUE(GlobMatches("model.layers.?.*", "model.layers.3.mlp.up_proj"));
  EXPECT_FALSE(GlobMatches("model.layers.?.*", "model.layers.13.mlp.up_proj"));
  EXPECT_TRUE(GlobMatches("*a*b*c*", "xxaxbxbxc"));
  EXPECT_FALSE(GlobMatches("*a*b*c", "xxaxbxbxcd"));
  EXPECT_FALSE(GlobMatches("lm_head", "lm_headx"));
}

TEST(GlobTest, HostilePatternsEndQuickly) {
  std::string pattern, text(4000, 'a');
  for (int i = 0; i < 2000; ++i) pattern += "*a";
  EXPECT_FALSE(GlobMatches(pattern + "b", text));
}

TEST(SpecTest, DefaultsAreValidAndThePapers) {
  EXPECT_OK(GoodSpec().Validate());
  EXPECT_EQ(QuantizationSpec().epochs, 20);
  EXPECT_EQ(QuantizationSpec().input_prob, 1);
}

TEST(SpecTest, CanonicalJson) {
  QuantizationSpec spec = GoodSpec();
  spec.overrides.push_back({"*.down_proj", 4, 64, false});
  spec.overrides.push_back({"lm_head", 0, -1, true});
  spec.seed = 18446744073709551615u;
  EXPECT_EQ(
      spec.ToJson(),
      R"({"model_uri":"file:///models/tiny","calibration_uri":"calib.safetensors","output_uri":"out",)"
      R"("evaluation_uri":"","evaluation_entry":"valid","evaluation_window":1024,)"
      R"("evaluation_max_windows":200,"method":"uniquanf","bits":4,"group_size":0,"overrides":[)"
      R"({"pattern":"*.down_proj","bits":4,"group_size":64,"full_precision":false},)"
      R"({"pattern":"lm_head","bits":0,"group_size":-1,"full_precision":true}],)"
      R"("num_samples":128,"sequence_length":2048,"epochs":20,"batch_size":1,"input_prob":1.0,)"
      R"("uniform_learning_rate":0.005,"binary_learning_rate":0.0005,)"
      R"("initialization":"activation_aware","grid_steps":1,)"
      R"("alternating_rounds":15,"remap_period":2,"seed":18446744073709551615,)"
      R"("schedule":"sequential","pipeline_rounds":4})");
}

TEST(SpecTest, JsonReadsBack) {
  QuantizationSpec spec = GoodSpec();
  spec.method = QuantizationMethod::kFlexround;
  spec.bits = 3;
  spec.input_prob = 0.1;
  spec.overrides.push_back({"a\"b\\", 2, 0, false});
  ASSERT_OK_AND_ASSIGN(const QuantizationSpec read, QuantizationSpec::FromJson(spec.ToJson()));
  EXPECT_EQ(read.ToJson(), spec.ToJson());
  ASSERT_OK_AND_ASSIGN(const QuantizationSpec empty, QuantizationSpec::FromJson("{}"));
  EXPECT_EQ(empty.ToJson(), QuantizationSpec().ToJson());
}

TEST(SpecTest, FromJsonIsStrict) {
  const auto invalid = [](absl::string_view json, const char* message) {
    EXPECT_THAT(QuantizationSpec::FromJson(json),
                FailsWith(kInvalid, "INVALID_SPEC", HasSubstr(message)))
        << json;
  };
  invalid("", "not valid JSON");
  invalid("[]", "must be a JSON object");
  invalid(R"({"bit":4})", "unknown field bit");
  invalid(R"({"bits":"4"})", "bits must be an integer");
  invalid(R"({"bits":4.5})", "bits must be an integer");
  invalid(R"({"bits":4,"bits":3})", "appears twice");
  invalid(R"({"seed":-1})", "seed must be an integer of 0 or more");
  invalid(R"({"input_prob":null})", "input_prob must be a number");
  invalid(R"({"method":"gptqq"})", "allowed: uniquanf, flexround, alternating, rtn, gptq, awq");
  invalid(R"({"overrides":{}})", "overrides must be an array");
  invalid(R"({"overrides":[{"bits":4}]})", "overrides[0].pattern is missing");
  invalid(R"({"overrides":[{"pattern":"a"},{"pattern":"b","x":1}]})", "overrides[1].x");
}

// Each number's range: tests/unit/client/spec_fields_test.cc.
TEST(SpecTest, WhatIsWrongIsNamedWithWhatIsAllowed) {
  const auto check = [](const char* field, const char* allowed, auto set) {
    QuantizationSpec spec = GoodSpec();
    set(&spec);
    EXPECT_THAT(spec.Validate(),
                FailsWith(kInvalid, "INVALID_SPEC", AllOf(HasSubstr(field), HasSubstr(allowed))))
        << field;
  };
  using Spec = QuantizationSpec*;
  check("model_uri", "required", [](Spec s) { s->model_uri = ""; });
  check("output_uri", "required", [](Spec s) { s->output_uri = ""; });
  check("output_uri", "control", [](Spec s) { s->output_uri = "a\nb"; });
  check("model_uri", "4096", [](Spec s) { s->model_uri = std::string(5000, 'x'); });
  check("calibration_uri", "needs calibration data", [](Spec s) { s->calibration_uri = ""; });
  check("levels", "flexround, rtn, gptq, awq", [](Spec s) { s->levels = Levels::kUniform; });
  check("average_bits", "one budget", [](Spec s) { s->average_bits = 3, s->artifact_size = 9; });
  check("evaluation_entry", "required", [](Spec s) {
    s->evaluation_uri = "x";
    s->evaluation_entry = "";
  });
  check("batch_size = 8", "1 to 4", [](Spec s) {
    s->batch_size = 8;
    s->num_samples = 4;
  });
  check("input_prob = nan", "0 to 1", [](Spec s) { s->input_prob = std::nan(""); });
  check("binary_learning_rate = inf", "0 to 1", [](Spec s) { s->binary_learning_rate = INFINITY; });
  check("num_samples = -1", "0: all in the file", [](Spec s) { s->num_samples = -1; });
  check("overrides[1].bits = 1", "2 to 8", [](Spec s) {
    s->overrides = {{"a", 0, -1, false}, {"b", 1, -1, false}};
  });
  check("overrides[0].group_size = -2", "or -1 for the job's", [](Spec s) {
    s->overrides = {{"a", 0, -2, false}};
  });
  check("overrides[0].pattern", "required", [](Spec s) { s->overrides = {{"", 4, 0, false}}; });
}

TEST(SpecTest, CredentialsInUrisAreRefusedAndNotRepeated) {
  std::string QuantizationSpec::*const fields[] = {
      &QuantizationSpec::model_uri, &QuantizationSpec::calibration_uri,
      &QuantizationSpec::output_uri, &QuantizationSpec::evaluation_uri};
  for (const auto field : fields) {
    for (const char* uri : {"s3://AKIDKEY:S3CRET@bucket/x", "s3://AKIDKEY:S3/CRET@bucket/x",
                            "s3://AKIDKEY@bucket", "https://user:S3CRET@host/x"}) {
      QuantizationSpec spec = GoodSpec();
      spec.*field = uri;
      const absl::Status status = spec.Validate();
      EXPECT_THAT(status, FailsWith(kInvalid, "INVALID_SPEC", HasSubstr("environment"))) << uri;
      EXPECT_THAT(status.ToString(), Not(AnyOf(HasSubstr("CRET"), HasSubstr("AKID"))));
    }
    for (const char* uri : {"s3://bucket/a@b:c", "file:///a@b:c/d", "dir@x/y:z", "s3://bucket"}) {
      QuantizationSpec spec = GoodSpec();
      spec.*field = uri;
      EXPECT_TRUE(spec.Validate().ok()) << uri;
    }
  }
}

TEST(SpecTest, MethodsWithoutReconstructionNeedNoCalibration) {
  QuantizationSpec spec = GoodSpec();
  spec.calibration_uri = "";
  spec.method = QuantizationMethod::kRtn;
  EXPECT_OK(spec.Validate());
  spec.method = QuantizationMethod::kUniquanf;
  spec.epochs = 0;
  EXPECT_OK(spec.Validate());
}

TEST(SpecTest, FirstMatchingOverrideWins) {
  QuantizationSpec spec;
  spec.bits = 3;
  spec.group_size = 128;
  spec.overrides = {{"*.0.*", 0, 0, false}, {"*.mlp.*", 4, -1, false}, {"lm_head", 0, -1, true}};
  const auto expect = [&](const char* name, int bits, int64_t group_size, bool full) {
    const ModuleSettings settings = SettingsForModule(spec, name);
    EXPECT_EQ(settings.bits, bits) << name;
    EXPECT_EQ(settings.group_size, group_size) << name;
    EXPECT_EQ(settings.full_precision, full) << name;
  };
  expect("model.layers.0.mlp.up_proj", 3, 0, false);
  expect("model.layers.1.mlp.up_proj", 4, 128, false);
  expect("model.layers.1.self_attn.q_proj", 3, 128, false);
  expect("lm_head", 3, 128, true);
}

}  // namespace
}  // namespace uniquanf
