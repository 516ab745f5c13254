#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/content_store.h"
#include "worker/task/plan.h"
#include "worker/task/tokens.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class PrepareTest : public TaskTest {
 protected:
  // Whatever was wrong, nothing may lie at the output afterwards.
  void TearDown() override { EXPECT_FALSE(std::filesystem::exists(spec_.output_uri)); }
};

TEST_F(PrepareTest, SameInputsElsewhereGiveTheSamePlan) {
  model_.Write(spec_.model_uri);
  const auto first = RunPrepare(spec_, env_);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->num_layers, 2);
  EXPECT_FALSE(first->layers_independent);
  EXPECT_GT(first->layer_memory_bytes, 100000u);

  TempDir elsewhere;
  QuantizationSpec moved = spec_;
  moved.model_uri = elsewhere.path() + "/m";
  moved.output_uri = elsewhere.path() + "/o";
  model_.Write(moved.model_uri);
  EXPECT_EQ(RunPrepare(moved, env_)->plan_sha256, first->plan_sha256);
  moved.seed = 1;
  EXPECT_NE(RunPrepare(moved, env_)->plan_sha256, first->plan_sha256);
}

TEST_F(PrepareTest, InputProbZeroMakesLayersIndependent) {
  model_.Write(spec_.model_uri);
  spec_.input_prob = 0;
  EXPECT_TRUE(RunPrepare(spec_, env_)->layers_independent);
}

TEST_F(PrepareTest, MissingModelIsNamed) {
  EXPECT_THAT(RunPrepare(spec_, env_).status().message(), HasSubstr("/model"));
  EXPECT_FALSE(RunPrepare(spec_, env_).ok());
}

TEST_F(PrepareTest, TruncatedWeightsAreRefused) {
  model_.Write(spec_.model_uri);
  const std::string file = spec_.model_uri + "/model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "SAFETENSORS_BAD_OFFSETS"));
}

TEST_F(PrepareTest, WrongShapeNamesTheTensor) {
  FixtureTensor& tensor = model_.tensors["model.layers.1.mlp.up_proj.weight"];
  tensor.shape = {64, 96};
  model_.Write(spec_.model_uri);
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "TENSOR_SHAPE", HasSubstr("model.layers.1.mlp.up_proj.weight")));
}

TEST_F(PrepareTest, MissingTensorIsNamed) {
  model_.tensors.erase("model.layers.1.self_attn.o_proj.weight");
  model_.Write(spec_.model_uri);
  EXPECT_THAT(
      RunPrepare(spec_, env_),
      FailsWith(kInvalid, "TENSOR_NOT_FOUND", HasSubstr("model.layers.1.self_attn.o_proj.weight")));
}

TEST_F(PrepareTest, UnsupportedArchitectureIsRefused) {
  model_.config["architectures"] = {"T5ForConditionalGeneration"};
  model_.config["model_type"] = "t5";
  model_.Write(spec_.model_uri);
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "UNSUPPORTED_ARCHITECTURE"));
}

TEST_F(PrepareTest, AlreadyQuantizedModelIsRefused) {
  model_.config["quantization_config"] = {{"quant_method", "gptq"}};
  model_.Write(spec_.model_uri);
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "MODEL_ALREADY_QUANTIZED"));
}

TEST_F(PrepareTest, TokenBeyondVocabularyIsNamed) {
  model_.Write(spec_.model_uri);
  FixtureTokens tokens = RandomTokens({4, 32}, 128, 1);
  tokens.ids[40] = 128;
  WriteTokenFile(spec_.calibration_uri, {{"input_ids", tokens}});
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "TOKEN_OUT_OF_RANGE", HasSubstr("128")));
}

TEST_F(PrepareTest, TooFewSequencesSaysHowMany) {
  model_.Write(spec_.model_uri);
  spec_.num_samples = 5;
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "TOO_FEW_SEQUENCES", HasSubstr("4")));
}

// Nobody has chosen them: a file with less is taken as it is.
TEST_F(PrepareTest, DefaultsAreBounds) {
  model_.Write(spec_.model_uri);
  const QuantizationSpec defaults;
  spec_.num_samples = defaults.num_samples;
  spec_.sequence_length = defaults.sequence_length;
  const auto outcome = RunPrepare(spec_, env_);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->work.calibration_tokens, 4 * 32);
  EXPECT_EQ(outcome->work.tokens_per_step, spec_.batch_size * 32);
}

TEST_F(PrepareTest, TooShortSequencesSaysHowLong) {
  model_.Write(spec_.model_uri);
  spec_.sequence_length = 33;
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "SEQUENCES_TOO_SHORT", HasSubstr("32")));
}

TEST_F(PrepareTest, SequencesBeyondTheModelsPositionsAreRefused) {
  model_.config["max_position_embeddings"] = 16;
  model_.Write(spec_.model_uri);
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "SEQUENCE_TOO_LONG"));
}

TEST_F(PrepareTest, WrongTokenTensorListsWhatThereIs) {
  model_.Write(spec_.model_uri);
  WriteTokenFile(spec_.calibration_uri, {{"tokens", RandomTokens({4, 32}, 128, 1)}});
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "TENSOR_NOT_FOUND", HasSubstr("tokens")));
  WriteTokenFile(spec_.calibration_uri, {{"input_ids", RandomTokens({128}, 128, 1)}});
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "TENSOR_SHAPE"));
}

class PrepareTextTest : public PrepareTest {
 protected:
  void SetUp() override {
    model_.Write(spec_.model_uri);
    // One token a letter.
    nlohmann::json tokenizer = {{"model", {{"type", "BPE"}, {"merges", nlohmann::json::array()}}}};
    for (int i = 0; i < 128; ++i) {
      tokenizer["model"]["vocab"][i == 0 ? "<end>" : std::string(1, static_cast<char>(i))] = i;
    }
    Write("model/tokenizer.json", tokenizer.dump());
    Write(
        "model/tokenizer_config.json",
        R"({"eos_token": "<end>", "chat_template": "{% for m in messages %}{% if m.role == 'system' %})"
        R"({{ raise_exception('no system role') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"})");
    spec_.calibration_uri = dir_.path() + "/a.jsonl";
    std::string lines;
    for (int i = 0; i < 20; ++i) {
      lines += absl::StrCat("{\"messages\": [{\"role\": \"", i == 7 ? "system" : "user",
                            "\", \"content\": \"a question with the number ", i, "\"}]}\n");
    }
    Write("a.jsonl", lines);
    Write("b.txt", std::string(100, 'b') + "\n" + std::string(100, 'c'));
  }
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_.path() + "/" + name, std::ios::binary) << bytes;
  }
  absl::StatusOr<Plan> Prepare() {
    UQ_ASSIGN_OR_RETURN(const PrepareOutcome outcome, RunPrepare(spec_, env_));
    UQ_ASSIGN_OR_RETURN(const std::string json,
                        GetContent(env_.work.get(), outcome.plan_sha256, 1 << 20));
    return Plan::FromJson(json);
  }
};

TEST_F(PrepareTextTest, AMixOfConversationsAndTextIsRecorded) {
  spec_.calibration_mix = {{dir_.path() + "/b.txt", 2}};
  spec_.evaluation_uri = dir_.path() + "/b.txt";
  const auto plan = Prepare();
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->num_samples, 4);
  ASSERT_TRUE(plan->calibration_text.has_value());
  ASSERT_EQ(plan->calibration_text->files.size(), 2u);
  EXPECT_EQ(plan->calibration_text->files[0].kind, "jsonl");
  EXPECT_EQ(plan->calibration_text->files[0].num_documents, 20);
  EXPECT_EQ(plan->calibration_text->files[0].num_sequences, 2);
  EXPECT_EQ(plan->calibration_text->files[1].num_sequences, 2);
  EXPECT_EQ(plan->calibration_text->tokenizer_sha256.size(), 64u);
  EXPECT_EQ(plan->calibration_text->chat_template_sha256.size(), 64u);
  ASSERT_TRUE(plan->evaluation_text.has_value());
  EXPECT_EQ(plan->evaluation_text->chat_template_sha256, "");
  EXPECT_EQ(plan->spec.calibration_mix[0].uri, "") << "where files lie is no part of the plan";
  const auto bytes = GetContent(env_.work.get(), plan->calibration_sha256, 1 << 20);
  const std::vector<int32_t> ids = TokensFromBytes(*bytes);
  EXPECT_EQ(std::string(ids.begin(), ids.begin() + 18), "<user>a question w");
  EXPECT_EQ(std::string(ids.begin() + 64, ids.end()), std::string(64, 'b'));
}

TEST_F(PrepareTextTest, SettingsOfTextChangeTheTokensAndAreInThePlan) {
  const auto plain = Prepare();
  ASSERT_THAT(plain, IsOk());
  spec_.text_chat_template = TextChatTemplate::kNever;
  const auto contents = Prepare();
  ASSERT_THAT(contents, IsOk());
  EXPECT_NE(contents->calibration_sha256, plain->calibration_sha256);
  EXPECT_EQ(contents->calibration_text->chat_template_sha256, "");
  EXPECT_EQ(contents->spec.text_chat_template, TextChatTemplate::kNever);
  spec_.text_separator = "\\n--\\n";
  const auto separated = Prepare();
  ASSERT_THAT(separated, IsOk());
  EXPECT_NE(separated->calibration_sha256, contents->calibration_sha256);
  spec_.text_packing = TextPacking::kTruncate;
  spec_.sequence_length = 16;
  spec_.num_samples = 20;
  const auto truncated = Prepare();
  ASSERT_THAT(truncated, IsOk());
  EXPECT_EQ(truncated->calibration_text->files[0].num_used, 20);
}

TEST_F(PrepareTextTest, SamplesThatTheTemplateRefusesAreDroppedAndCounted) {
  spec_.text_packing = TextPacking::kTruncate;
  spec_.sequence_length = 16;
  spec_.num_samples = 19;
  const auto plan = Prepare();
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->calibration_text->files[0].num_refused, 1);
  ASSERT_FALSE(plan->warnings.empty());
  EXPECT_THAT(plan->warnings[0], HasSubstr("no system role"));
  spec_.num_samples = 20;
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "TOO_FEW_SEQUENCES", HasSubstr("1 refused")));
}

TEST_F(PrepareTextTest, WhatCannotBeJoinedOrRenderedIsRefused) {
  spec_.calibration_mix = {{dir_.path() + "/calib.safetensors", 1}};
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "INVALID_SPEC", HasSubstr("calib.safetensors")));
  spec_.calibration_mix = {{dir_.path() + "/b.txt", 4}};
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "INVALID_SPEC", HasSubstr("calibration_mix")));
  spec_.calibration_mix.clear();
  Write("model/tokenizer_config.json", "{}");
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "NO_CHAT_TEMPLATE"));
  Write("model/tokenizer_config.json", R"({"chat_template": "{% if %}"})");
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "INVALID_CHAT_TEMPLATE"));
  spec_.calibration_uri = dir_.path() + "/b.txt";
  EXPECT_THAT(RunPrepare(spec_, env_), IsOk()) << "plain text needs no template";
}

TEST_F(PrepareTest, BitsOutOfRange) {
  model_.Write(spec_.model_uri);
  for (int bits : {-1, 0, 1, 9, 1000}) {
    spec_.bits = bits;
    EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "INVALID_SPEC", HasSubstr("bits")));
  }
}

TEST_F(PrepareTest, GroupSizeMustDivideEveryLayer) {
  model_.Write(spec_.model_uri);
  spec_.group_size = 64;  // divides 64, not down_proj's 96
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "GROUP_SIZE_NOT_DIVIDING",
                                                 HasSubstr("model.layers.0.mlp.down_proj")));
  ModuleOverride keep;
  keep.pattern = "*.down_proj";
  keep.group_size = 32;
  spec_.overrides = {keep};
  EXPECT_THAT(RunPrepare(spec_, env_), IsOk());
}

TEST_F(PrepareTest, OverrideThatMatchesNothingIsRefused) {
  model_.Write(spec_.model_uri);
  ModuleOverride typo;
  typo.pattern = "*.dwon_proj";
  typo.full_precision = true;
  spec_.overrides = {typo};
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "OVERRIDE_MATCHES_NOTHING", HasSubstr("dwon_proj")));
}

TEST_F(PrepareTest, MethodsThatNeedCalibrationSaySo) {
  model_.Write(spec_.model_uri);
  spec_.calibration_uri.clear();
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "INVALID_SPEC", HasSubstr("calibration")));
  spec_.method = QuantizationMethod::kRtn;
  EXPECT_THAT(RunPrepare(spec_, env_), IsOk());
}

TEST_F(PrepareTest, EvaluationTokensAreChecked) {
  model_.Write(spec_.model_uri);
  spec_.evaluation_uri = dir_.path() + "/eval.safetensors";
  WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({31}, 128, 2)}});
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "TOO_FEW_TOKENS"));
  spec_.evaluation_entry = "test";
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "TENSOR_NOT_FOUND", HasSubstr("valid")));
}

TEST_F(PrepareTest, ZeroEvaluationWindowsMeansAllTokens) {
  model_.Write(spec_.model_uri);
  spec_.evaluation_uri = dir_.path() + "/eval.safetensors";
  WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({100}, 128, 2)}});
  for (const int64_t max_windows : {0, 1}) {
    spec_.evaluation_max_windows = max_windows;
    const auto outcome = RunPrepare(spec_, env_);
    ASSERT_THAT(outcome, IsOk());
    const auto plan_json = GetContent(env_.work.get(), outcome->plan_sha256, 1 << 20);
    ASSERT_THAT(plan_json, IsOk());
    const auto plan = Plan::FromJson(*plan_json);
    ASSERT_THAT(plan, IsOk());
    EXPECT_EQ(plan->num_evaluation_tokens, max_windows == 0 ? 100 : spec_.evaluation_window);
  }
}

class PrepareOutputTest : public TaskTest {};

TEST_F(PrepareOutputTest, ExistingOutputIsRefusedAndKept) {
  model_.Write(spec_.model_uri);
  std::filesystem::create_directories(spec_.output_uri);
  std::ofstream(spec_.output_uri + "/precious") << "data";
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS", HasSubstr("precious")));
  EXPECT_TRUE(std::filesystem::exists(spec_.output_uri + "/precious"));
}

}  // namespace
}  // namespace uniquanf
