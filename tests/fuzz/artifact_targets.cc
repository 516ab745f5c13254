// What common/ reads: JSON, XML, safetensors, specs, the artifact's files.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/manifest.h"
#include "common/artifact/signature.h"
#include "common/base/check.h"
#include "common/base/json_util.h"
#include "common/base/signing_key.h"
#include "common/base/status.h"
#include "common/object_store/s3_xml.h"
#include "common/safetensors/header_parser.h"
#include "common/safetensors/safetensors.h"
#include "common/spec/quantization_spec.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/sample_artifact.h"

namespace uniquanf {
namespace {

constexpr uint64_t kDataBytes = 1000;
const char kHeader[] =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
    R"("c":{"dtype":"I64","shape":[4],"data_offsets":[32,64]}})";

bool RunJson(absl::string_view bytes) {
  const auto json = ParseJson(bytes, "the input", "INVALID_TEXT");
  if (!json.ok()) {
    CheckRefusal(json.status());
    return false;
  }
  const auto again = ParseJson(json->dump(), "the input", "INVALID_TEXT");
  UQ_CHECK(again.ok() && *again == *json);
  return true;
}

bool RunXml(absl::string_view bytes) {
  const absl::StatusOr<XmlElement> root = ParseXml(bytes);
  if (!root.ok()) {
    CheckRefusal(root.status());
    return false;
  }
  for (const XmlElement& child : root->children) UQ_CHECK(root->Find(child.name) != nullptr);
  (void)XmlEscape(root->text);
  return true;
}

// The JSON alone, before kDataBytes bytes of data.
bool RunHeader(absl::string_view bytes) {
  const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(bytes, kDataBytes);
  if (!header.ok()) {
    CheckRefusal(header.status());
    return false;
  }
  const uint64_t start = 8 + bytes.size();
  std::vector<bool> taken(kDataBytes, false);
  for (const auto& [name, info] : header->tensors) {
    UQ_CHECK(name == info.name && !name.empty());
    UQ_CHECK(info.offset >= start && info.offset - start + info.size_bytes <= kDataBytes);
    UQ_CHECK(static_cast<uint64_t>(info.num_elements() * SafetensorsDTypeBits(info.dtype)) ==
             8 * info.size_bytes);
    for (uint64_t i = 0; i < info.size_bytes; ++i) {
      UQ_CHECK(!taken[info.offset - start + i]);
      taken[info.offset - start + i] = true;
    }
  }
  return true;
}

// A whole file; every tensor is read.
bool RunFile(absl::string_view bytes) {
  const auto file = SafetensorsFile::Open(NewMemoryStore({{"f", std::string(bytes)}}), "f");
  if (!file.ok()) {
    CheckRefusal(file.status());
    return false;
  }
  for (const auto& [name, info] : (*file)->tensors()) {
    std::vector<float> floats(info.num_elements());
    std::vector<int64_t> integers(info.num_elements());
    (void)(*file)->ReadFloat(info, floats.data());
    (void)(*file)->ReadInt64(info, integers.data());
  }
  return true;
}

bool RunManifestJson(absl::string_view bytes) {
  const absl::StatusOr<Manifest> manifest = Manifest::FromJson(bytes);
  if (!manifest.ok()) {
    CheckRefusal(manifest.status());
    return false;
  }
  const std::string canonical = manifest->ToJson();
  const absl::StatusOr<Manifest> again = Manifest::FromJson(canonical);
  UQ_CHECK(again.ok() && again->ToJson() == canonical);
  (void)manifest->AverageBits();
  return true;
}

bool RunSpec(absl::string_view bytes) {
  const absl::StatusOr<QuantizationSpec> spec = QuantizationSpec::FromJson(bytes);
  if (!spec.ok()) {
    CheckRefusal(spec.status());
    return false;
  }
  const std::string canonical = spec->ToJson();
  const absl::StatusOr<QuantizationSpec> again = QuantizationSpec::FromJson(canonical);
  UQ_CHECK(again.ok() && again->ToJson() == canonical);
  const absl::Status valid = spec->Validate();
  if (!valid.ok()) CheckRefusal(valid);
  (void)SettingsForModule(*spec, "model.layers.0.mlp.down_proj");
  return true;
}

// The source's config.json becomes the artifact's.
bool RunConfig(absl::string_view bytes) {
  const auto config = BuildArtifactConfig(bytes, QuantizationSpec(), SampleManifest().modules);
  if (!config.ok()) {
    CheckRefusal(config.status());
    return false;
  }
  UQ_CHECK(RunJson(config->json));
  return true;
}

const SigningKey& Key() {
  static const SigningKey& key = *new SigningKey(SigningKey::Generate());
  return key;
}

// Beside a manifest: whoever wrote it, it is of the key that is trusted or it is refused.
bool RunSignature(absl::string_view bytes) {
  const std::string sha256(64, 'a');
  const auto store = NewMemoryStore({{SignatureKey(sha256), std::string(bytes)}});
  const auto signature = CheckSignature(store.get(), sha256, {Key().verifying_key()});
  if (!signature.ok()) {
    UQ_CHECK(!ErrorReason(signature.status()).empty());
    return false;
  }
  UQ_CHECK(signature->key == Key().verifying_key() && signature->signed_by == "worker/w");
  return true;
}

std::string HeaderFile() {
  std::string file(8, '\0');
  const uint64_t header_bytes = std::strlen(kHeader);
  std::memcpy(file.data(), &header_bytes, 8);
  return absl::StrCat(file, kHeader, std::string(64, '\x7f'));
}

std::string ManifestSeed() {
  Manifest manifest = SampleManifest();
  manifest.files = {{"a.json", 12, std::string(64, 'a')}};
  manifest.attachments = {"report.html"};
  return manifest.ToJson();
}

std::string SpecSeed() {
  QuantizationSpec spec;
  spec.overrides.push_back({"*.down_proj", 4, 64, false});
  return spec.ToJson();
}

}  // namespace

std::vector<FuzzTarget> ArtifactTargets() {
  return {
      {"Json",
       RunJson,
       {R"({"a":[1,-2.5e3,"\u00e9\n",null,true],"b":{"":{}}})", "[[[]]]", "0"},
       {}},
      {"Xml",
       RunXml,
       {R"(<?xml version="1.0"?><a:R xmlns:a="x"><K>t&amp;u</K><K/><L><M>1</M></L></a:R>)"},
       {"<!DOCTYPE a [<!ENTITY b \"c\">]>", "<a>", "</a>", "&b;", "&#0;", "<![CDATA["}},
      {"SafetensorsHeader",
       RunHeader,
       {kHeader, "{}", R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[5,5]}})"},
       {"\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"U64\"", "__metadata__"}},
      {"SafetensorsFile",
       RunFile,
       {HeaderFile()},
       {std::string(8, '\xff'), std::string(4, '\0'), "\"I32\"", "\"F16\""}},
      {"Manifest",
       RunManifestJson,
       {ManifestSeed()},
       {"\"modules\"", "\"files\"", "\"..\"", "\"a/../b\""}},
      {"Signature",
       RunSignature,
       {SignManifest(Key(), "worker/w", std::string(64, 'a'))},
       {"\"signed_by\"", "\"key\"", "\"signature\"", "\"version\": 1", "null"}},
      {"Spec",
       RunSpec,
       {SpecSeed(), "{}", R"({"bits":3,"overrides":[{"pattern":"*"}]})"},
       {"\"overrides\"", "\"pattern\"", "\"seed\"", "0.5"}},
      {"ArtifactConfig",
       RunConfig,
       {R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,"rope_theta":1e4})"},
       {"\"quantization_config\"", "\"architectures\"", "1e400", "\"num_hidden_layers\""}},
  };
}

}  // namespace uniquanf
