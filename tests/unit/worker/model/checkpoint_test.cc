#include "worker/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/support/faulty_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/worker/model/model_fixture.h"

namespace uniquanf {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kUp[] = "model.layers.1.mlp.up_proj.weight";

class CheckpointTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() {
    return Checkpoint::Open(*OpenObjectStore(dir_.path()), false);
  }
  void Write() { WriteFixture(dir_.path(), options_, tensors_); }
  // Empty where the block has no such tensor.
  static std::vector<float> Tensor(const Checkpoint& checkpoint, int layer, const HostBlock& block,
                                   absl::string_view stored_name) {
    const int index = checkpoint.config().blocks[layer].FindTensor(stored_name);
    return index < 0 ? std::vector<float>() : block[index];
  }

  TempDir dir_;
  FixtureOptions options_;
  FixtureTensors tensors_ = MakeFixtureTensors(options_);
};

TEST_F(CheckpointTest, LoadsBlocksAndEnds) {
  Write();
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_FALSE(checkpoint->quantized());
  ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint->LoadBlock(1));
  EXPECT_EQ(Tensor(*checkpoint, 1, block, "mlp.up_proj.weight"), tensors_[kUp].values);
  EXPECT_EQ(Tensor(*checkpoint, 1, block, "input_layernorm.weight"),
            tensors_["model.layers.1.input_layernorm.weight"].values);
  EXPECT_TRUE(Tensor(*checkpoint, 1, block, "self_attn.q_norm.weight").empty());
  const std::vector<float>& embedding = tensors_["model.embed_tokens.weight"].values;
  ASSERT_OK_AND_ASSIGN(const std::vector<float> head, checkpoint->LoadLmHead());
  EXPECT_EQ(head, embedding);
  EXPECT_EQ(checkpoint->TensorNames().size(), tensors_.size());
  EXPECT_THAT(checkpoint->LoadBlock(2), FailsWith(kInvalid, std::string("LAYER_OUT_OF_RANGE")));
}

TEST_F(CheckpointTest, LoadsTheRowsOfTheEmbeddingThatAreAskedFor) {
  const std::string name = "model.embed_tokens.weight";
  for (int vocab_size : {40, 60000}) {  // rows of 64 bytes: in one read, and in several
    options_.vocab_size = vocab_size;
    tensors_ = MakeFixtureTensors(options_);
    std::vector<float>& table = tensors_[name].values;
    const int64_t bad_row = vocab_size - 3;
    table[bad_row * 16 + 2] = std::numeric_limits<float>::quiet_NaN();
    Write();
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
    const std::vector<int32_t> ids = {0, 1, 5, vocab_size / 2, vocab_size - 4, vocab_size - 1};
    std::vector<float> rows(ids.size() * 16);
    ASSERT_OK(checkpoint->LoadEmbeddingRows(ids, rows.data()));
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_TRUE(std::equal(&rows[i * 16], &rows[i * 16] + 16, &table[ids[i] * 16])) << ids[i];
    }
    EXPECT_OK(checkpoint->LoadEmbeddingRows({}, nullptr));
    EXPECT_THAT(checkpoint->LoadEmbeddingRows({1, vocab_size - 3}, rows.data()),
                FailsWith(kInvalid, std::string("WEIGHT_NOT_FINITE"),
                          HasSubstr(absl::StrCat(name, " holds NaN at [", bad_row, ", 2]"))));
  }
}

TEST_F(CheckpointTest, LoadsFamilyTensorsAndUntiedHead) {
  for (const char* architecture : {"Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    options_ = {.architecture = architecture, .tied = false};
    options_.qkv_bias = options_.architecture[4] == '2';
    options_.qk_norm = options_.architecture[4] == '3';
    tensors_ = MakeFixtureTensors(options_);
    Write();
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
    ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint->LoadBlock(0));
    EXPECT_EQ(Tensor(*checkpoint, 0, block, "self_attn.q_proj.bias").size(),
              options_.qkv_bias ? 16u : 0u);
    EXPECT_EQ(Tensor(*checkpoint, 0, block, "self_attn.q_norm.weight").size(),
              options_.qk_norm ? 8u : 0u);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> head, checkpoint->LoadLmHead());
    EXPECT_EQ(head, tensors_["lm_head.weight"].values);
  }
}

TEST_F(CheckpointTest, ReadsShardsThroughTheIndex) {
  FixtureTensors first, second;
  std::string weight_map;
  for (const auto& [name, tensor] : tensors_) {
    const bool in_first = first.size() <= second.size();
    (in_first ? first : second)[name] = tensor;
    absl::StrAppend(&weight_map, weight_map.empty() ? "" : ", ", "\"", name, "\": \"",
                    in_first ? "a.safetensors" : "b.safetensors", "\"");
  }
  WriteFile(dir_.File("config.json"), FixtureConfig(options_));
  WriteFile(dir_.File("a.safetensors"), FixtureFile(first));
  WriteFile(dir_.File("b.safetensors"), FixtureFile(second));
  const std::string index = absl::StrCat("{\"weight_map\": {", weight_map, "}}");
  WriteFile(dir_.File("model.safetensors.index.json"), index);
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint->LoadBlock(1));
  EXPECT_EQ(Tensor(*checkpoint, 1, block, "mlp.up_proj.weight"), tensors_[kUp].values);

  // A tensor that is not in the file the index names.
  first.erase(first.begin());
  WriteFile(dir_.File("a.safetensors"), FixtureFile(first));
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("TENSOR_NOT_FOUND"), HasSubstr("a.safe")));
  ASSERT_EQ(std::remove(dir_.File("a.safetensors").c_str()), 0);
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("MODEL_NOT_FOUND"), HasSubstr("a.safe")));
}

TEST_F(CheckpointTest, IndexMustNotLeadElsewhere) {
  WriteFile(dir_.File("config.json"), FixtureConfig(options_));
  for (const char* path : {"../model.safetensors", "/etc/passwd", "sub/a.safetensors", "",
                           ".hidden.safetensors", "a.bin", "..\\\\a.safetensors"}) {
    WriteFile(dir_.File("model.safetensors.index.json"),
              absl::StrCat(R"({"weight_map": {"model.norm.weight": ")", path, "\"}}"));
    EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("INVALID_MODEL_INDEX"))) << path;
  }
  for (const char* index :
       {"", "{}", "[]", R"({"weight_map": 3})", R"({"weight_map": {"a": 3}})"}) {
    WriteFile(dir_.File("model.safetensors.index.json"), index);
    EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("INVALID_MODEL_INDEX"))) << index;
  }
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  EXPECT_THAT(Open(),
              FailsWith(kInvalid, std::string("MODEL_NOT_FOUND"), HasSubstr("config.json")));
  WriteFile(dir_.File("config.json"), FixtureConfig(options_));
  EXPECT_THAT(Open(),
              FailsWith(kInvalid, std::string("MODEL_NOT_FOUND"), HasSubstr("model.safetensors")));
  WriteFile(dir_.File("pytorch_model.bin"), "x");
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("MODEL_NOT_FOUND"), HasSubstr("convert")));
}

TEST_F(CheckpointTest, TruncatedFilesAreRefusedAtAnyLength) {
  Write();
  const std::string whole = ReadFile(dir_.File("model.safetensors"));
  for (size_t length :
       {size_t{0}, size_t{7}, size_t{8}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    WriteFile(dir_.File("model.safetensors"), whole.substr(0, length));
    const auto checkpoint = Open();
    EXPECT_EQ(checkpoint.status().code(), kInvalid) << length << ": " << checkpoint.status();
    EXPECT_THAT(ErrorReason(checkpoint.status()), HasSubstr("SAFETENSORS_")) << length;
  }
}

TEST_F(CheckpointTest, LyingOffsetsAreRefused) {
  Write();
  std::string bytes = ReadFile(dir_.File("model.safetensors"));
  const size_t at = bytes.find("data_offsets\":[0,");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 15] = '4';  // overlaps, and no longer matches shape × dtype
  WriteFile(dir_.File("model.safetensors"), bytes);
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("SAFETENSORS_BAD_OFFSETS")));
  bytes[0] = bytes[1] = bytes[2] = bytes[3] = bytes[4] = '\xFF';  // a header of 2^40 bytes
  WriteFile(dir_.File("model.safetensors"), bytes);
  EXPECT_EQ(Open().status().code(), kInvalid);
}

TEST_F(CheckpointTest, MissingTensorIsNamed) {
  tensors_.erase(kUp);
  Write();
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("TENSOR_NOT_FOUND"), HasSubstr(kUp)));
}

TEST_F(CheckpointTest, UntiedModelNeedsItsHead) {
  options_.tied = false;
  Write();
  EXPECT_THAT(Open(),
              FailsWith(kInvalid, std::string("TENSOR_NOT_FOUND"), HasSubstr("lm_head.weight")));
}

TEST_F(CheckpointTest, WrongShapeIsNamed) {
  tensors_[kUp].shape = {16, 24};  // as many elements
  Write();
  EXPECT_THAT(Open(),
              FailsWith(kInvalid, std::string("TENSOR_SHAPE"),
                        AllOf(HasSubstr(kUp), HasSubstr("[16, 24]"), HasSubstr("[24, 16]"))));
}

TEST_F(CheckpointTest, WrongDtypeIsNamed) {
  tensors_[kUp].dtype = SafetensorsDType::kI32;
  Write();
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("TENSOR_DTYPE"),
                                AllOf(HasSubstr(kUp), HasSubstr("I32"))));
}

TEST_F(CheckpointTest, NonFiniteWeightsAreNamedWithTheirIndex) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (SafetensorsDType dtype : {SafetensorsDType::kF32, SafetensorsDType::kBF16}) {
      tensors_ = MakeFixtureTensors(options_);
      tensors_[kUp].dtype = dtype;
      tensors_[kUp].values[5 * 16 + 3] = bad;
      Write();
      ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
      EXPECT_OK(checkpoint->LoadBlock(0));
      EXPECT_THAT(checkpoint->LoadBlock(1), FailsWith(kInvalid, std::string("WEIGHT_NOT_FINITE"),
                                                      AllOf(HasSubstr(kUp), HasSubstr("[5, 3]"))));
    }
  }
}

TEST_F(CheckpointTest, QuantizationLeftoversAreRefused) {
  for (const char* suffix : {"qweight", "weight_scale", "g_idx", "weight_packed"}) {
    tensors_ = MakeFixtureTensors(options_);
    const std::string name = absl::StrCat("model.layers.0.mlp.up_proj.", suffix);
    tensors_[name] = {SafetensorsDType::kI32, {4}, {}};
    tensors_.erase("model.layers.0.mlp.up_proj.weight");
    Write();
    EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("UNEXPECTED_TENSOR"), HasSubstr(name)));
  }
}

TEST_F(CheckpointTest, TensorsThatWouldBeLostAreRefused) {
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "model.layers.2.input_layernorm.weight"}) {
    tensors_ = MakeFixtureTensors(options_);
    tensors_[name] = {SafetensorsDType::kF32, {16}, std::vector<float>(16, 1.0f)};
    Write();
    EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("UNEXPECTED_TENSOR"), HasSubstr(name)));
  }
  tensors_ = MakeFixtureTensors(options_);
  tensors_["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      SafetensorsDType::kF32, {4}, std::vector<float>(4, 1.0f)};
  Write();
  EXPECT_OK(Open());
}

// Two shards, of which the index knows what `listed` says.
class ShardedCheckpointTest : public CheckpointTest {
 protected:
  void WriteShards() {
    FixtureTensors first, second;
    for (const auto& [name, tensor] : tensors_) {
      FixtureTensors& shard = first.size() <= second.size() ? first : second;
      shard[name] = tensor;
      index_[name] = &shard == &first ? "model-1.safetensors" : "model-2.safetensors";
    }
    WriteFile(dir_.File("config.json"), FixtureConfig(options_));
    WriteFile(dir_.File("model-1.safetensors"), FixtureFile(first));
    WriteFile(dir_.File("model-2.safetensors"), FixtureFile(second));
  }
  void WriteIndex() {
    WriteFile(dir_.File("model.safetensors.index.json"),
              nlohmann::json{{"weight_map", index_}}.dump());
  }
  std::map<std::string, std::string> index_;
};

TEST_F(ShardedCheckpointTest, TwoSetsOfWeightsAreRefused) {
  WriteShards();
  WriteIndex();
  EXPECT_OK(Open());
  FixtureTensors zeros = tensors_;
  for (auto& [name, tensor] : zeros) std::fill(tensor.values.begin(), tensor.values.end(), 0.0f);
  WriteFile(dir_.File("model.safetensors"), FixtureFile(zeros));
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("TWO_MODELS"),
                                AllOf(HasSubstr("model.safetensors"),
                                      HasSubstr("model-1.safetensors"), HasSubstr("Remove"))));
  // An index of the one file is none.
  for (auto& [name, file] : index_) file = "model.safetensors";
  WriteIndex();
  EXPECT_OK(Open());
}

TEST_F(ShardedCheckpointTest, WhatTheIndexOmitsIsSaidWithItsShard) {
  WriteShards();
  const std::string shard = index_[kUp];
  index_.erase(kUp);
  WriteIndex();
  EXPECT_THAT(Open(),
              FailsWith(kInvalid, std::string("TENSOR_NOT_FOUND"),
                        AllOf(HasSubstr(kUp), HasSubstr(shard), HasSubstr("does not list it"))));
  // It counts where it would change the model, too.
  const char* bias = "model.layers.0.self_attn.q_proj.bias";
  tensors_[bias] = {SafetensorsDType::kF32, {16}, std::vector<float>(16, 1.0f)};
  WriteShards();
  index_.erase(bias);
  WriteIndex();
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("UNEXPECTED_TENSOR"), HasSubstr(bias)));
}

TEST_F(ShardedCheckpointTest, WhatNobodyNeedsMayBeMissing) {
  WriteShards();
  index_["mtp.fc.weight"] = "model-2.safetensors";
  WriteIndex();
  EXPECT_OK(Open());
}

TEST_F(CheckpointTest, TensorsThatNobodyNeedsRefuseNothing) {
  const FixtureTensors model = tensors_;
  const auto extra = [&](const char* name, SafetensorsDType dtype, std::vector<int64_t> shape) {
    tensors_ = model;
    tensors_[name] = {dtype, std::move(shape), std::vector<float>(32, 1.0f)};
    Write();
    EXPECT_OK(Open()) << name;
  };
  for (const SafetensorsDType dtype :
       {SafetensorsDType::kF8E4M3, SafetensorsDType::kF4, SafetensorsDType::kC64,
        SafetensorsDType::kF8E8M0, SafetensorsDType::kF6E2M3}) {
    extra("mtp.fc.weight", dtype, {4});
  }
  extra("model.layers.0.self_attn.rotary_emb.cos_cached", SafetensorsDType::kF32, {1, 1, 8, 4});
  extra("model.layers.0.self_attn.rotary_emb.sin_cached", SafetensorsDType::kF32, {1, 1, 8, 4});
  extra("model.layers.0.self_attn.q_proj.bias", SafetensorsDType::kBF16, {0});
}

TEST_F(CheckpointTest, NamesBelowOtherRootsAreFound) {
  options_.tied = false;
  const FixtureTensors model = MakeFixtureTensors(options_);
  const auto write = [&](const std::string& root, const std::string& head) {
    tensors_.clear();
    for (const auto& [name, tensor] : model) {
      tensors_[name == "lm_head.weight" ? head : root + name.substr(6)] = tensor;
    }
    Write();
  };
  const std::pair<const char*, const char*> roots[] = {
      {"", "lm_head.weight"},
      {"module.model.", "module.lm_head.weight"},
      {"_orig_mod.model.", "_orig_mod.lm_head.weight"},
      {"base_model.model.model.", "base_model.model.lm_head.weight"},
      {"model.model.", "model.lm_head.weight"},
      {"model.language_model.", "lm_head.weight"},
      {"language_model.model.", "language_model.lm_head.weight"}};
  for (const auto& [root, head] : roots) {
    write(root, head);
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
    ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint->LoadBlock(1));
    EXPECT_EQ(Tensor(*checkpoint, 1, block, "mlp.up_proj.weight"), model.at(kUp).values) << root;
    EXPECT_EQ(checkpoint->config().LayerPrefix(1), std::string(root) + "layers.1.");
  }
  write("transformer.decoder.", "lm_head.weight");
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("TENSOR_NOT_FOUND"),
                                AllOf(HasSubstr("model.embed_tokens.weight"),
                                      HasSubstr("transformer.decoder.embed_tokens.weight"))));
}

TEST_F(CheckpointTest, OtherFilesAreCalledWhatTheyAre) {
  const std::pair<std::string, const char*> files[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"},
      {std::string("\x1F\x8B\x08") + std::string(40, 'x'), "a gzip file"},
      {"GGUF" + std::string(40, '\3'), "a GGUF file"},
      {"PK\x03\x04" + std::string(40, '\3'), "a zip archive"},
      {std::string("\x80\x02") + std::string(40, '\x8a'), "a pickled Python file"},
      {std::string(4096, '\0'), "did not finish"},
      {"<!DOCTYPE html><html><head><title>x</title></head></html>", "a web page"},
      {"{\"text\": \"hello world, this is a line\"}\n", "a JSON file"},
      {"Not Found: the file is not there, or somewhere else\n", "a text file"},
  };
  for (const auto& [bytes, what] : files) {
    Write();
    WriteFile(dir_.File("model.safetensors"), bytes);
    EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("NOT_SAFETENSORS"),
                                  AllOf(HasSubstr("model.safetensors is no"), HasSubstr(what))));
  }
  WriteFile(dir_.File("config.json"), files[0].first);
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("NOT_THE_FILE"),
                                AllOf(HasSubstr("config.json"), HasSubstr("git lfs pull"))));
  WriteFile(dir_.File("config.json"), "{\"a\": nothing}");
  EXPECT_THAT(Open(), FailsWith(kInvalid, std::string("INVALID_MODEL_CONFIG"),
                                AllOf(HasSubstr("byte"), Not(HasSubstr("exception")))));
}

TEST_F(CheckpointTest, FoldersThatAreNoCheckpointSayWhatToGive) {
  const auto expect = [&](const std::string& folder, std::initializer_list<const char*> texts) {
    const auto opened = Checkpoint::Open(*OpenObjectStore(dir_.path() + "/" + folder), false);
    EXPECT_THAT(opened, FailsWith(kInvalid, std::string("MODEL_NOT_FOUND"))) << folder;
    for (const char* text : texts) {
      EXPECT_THAT(std::string(opened.status().message()), HasSubstr(text)) << folder;
    }
  };
  const auto file = [&](const std::string& name, const std::string& text = "{}") {
    std::filesystem::create_directories(
        std::filesystem::path(dir_.path() + "/" + name).parent_path());
    WriteFile(dir_.path() + "/" + name, text);
  };
  expect("missing", {"there is nothing at all"});
  for (const char* name : {"blobs/1", "refs/main", "snapshots/0123abcd/config.json"}) {
    file(std::string("cache/") + name);
  }
  expect("cache", {"Hugging Face cache", "cache/snapshots/0123abcd"});
  file("above/llama/config.json");
  expect("above", {"give ", "above/llama"});
  file("shards/config.json", FixtureConfig(options_));
  file("shards/model-00001-of-00002.safetensors");
  file("shards/model-00002-of-00002.safetensors");
  expect("shards",
         {"model-00001-of-00002.safetensors", "model.safetensors.index.json, which says"});
  file("adapter/adapter_config.json");
  file("adapter/adapter_model.safetensors");
  expect("adapter", {"merge it into its base model"});
  file("gguf/model.gguf");
  expect("gguf", {"GGUF"});
  file("meta/params.json");
  expect("meta", {"Hugging Face form"});
  file("bin/config.json", FixtureConfig(options_));
  file("bin/pytorch_model.bin");
  expect("bin", {"convert pytorch_model.bin to safetensors"});
  Write();
  expect("model.safetensors", {"give the directory"});
}

TEST_F(CheckpointTest, StorageErrorsPassThroughWhereverTheyHappen) {
  Write();
  for (int nth = 1;; ++nth) {
    int num_operations = 0;
    const absl::Status error = Unavailable("STORE_UNAVAILABLE", "injected");
    auto store =
        NewFaultyStore(*OpenObjectStore(dir_.path()), FailNth(nth, error, &num_operations));
    auto checkpoint = Checkpoint::Open(store, false);
    absl::Status status = checkpoint.status();
    if (status.ok()) status = (*checkpoint)->LoadBlock(0).status();
    if (num_operations < nth) {
      EXPECT_OK(status);
      EXPECT_GT(nth, 5);
      break;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << nth << ": " << status;
  }
}

}  // namespace
}  // namespace uniquanf
