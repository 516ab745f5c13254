// The report of a real small job: what is in it, and that no name can leave the place of data.
#include "worker/task/report_html.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/report_template.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kBegin[] = "<script type=\"application/json\" id=\"data\">";

// The text of the data element, which ends at the first end tag, as a browser reads it.
std::string DataOf(const std::string& html) {
  const size_t begin = html.find(kBegin);
  if (begin == std::string::npos) return "";
  const size_t from = begin + sizeof(kBegin) - 1;
  return html.substr(from, html.find("</script", from) - from);
}

class ReportHtmlTest : public TaskTest {
 protected:
  ReportHtmlTest() {
    spec_.evaluation_uri = dir_.path() + "/eval.safetensors";
    WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({100}, 128, 2)}});
  }
};

TEST_F(ReportHtmlTest, AJobsReportHoldsItsFigures) {
  spec_.overrides.push_back({"*layers.1.mlp.down_proj", 5});
  model_.Write(spec_.model_uri);
  env_.job = "jobs/first";
  const auto outcome = RunJob();
  ASSERT_THAT(outcome, IsOk());
  const std::string html = ReadFile(spec_.output_uri + "/report.html");
  EXPECT_THAT(html, HasSubstr("<title>model: quantization report</title>"));
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  const auto json = nlohmann::json::parse(DataOf(html), nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["format"], "uniquanf-report");
  EXPECT_EQ(json["job"], "jobs/first");
  EXPECT_EQ(json["model"]["name"], "model");
  EXPECT_EQ(json["model"]["architecture"], "LlamaForCausalLM");
  EXPECT_EQ(json["manifest_sha256"], outcome->artifact.manifest_sha256);
  EXPECT_EQ(json["spec"]["bits"], 3);
  EXPECT_EQ(json["report"], nlohmann::json::parse(ToJson(outcome->report).dump()));
  EXPECT_EQ(json["report"]["perplexity_after"], *outcome->report.perplexity_after);
  EXPECT_FALSE(json["report"]["quality"]["verdict"].get<std::string>().empty());
  EXPECT_EQ(json["given"], nlohmann::json({"model_uri", "calibration_uri", "evaluation_uri"}));
  EXPECT_EQ(json["num_steps"], 8);

  ASSERT_EQ(json["layers"].size(), outcome->report.layers.size());
  for (const auto& layer : json["layers"]) EXPECT_EQ(layer["loss_curve"].size(), 8u);

  const auto read = ReadManifest(OpenObjectStore(spec_.output_uri)->get());
  ASSERT_THAT(read, IsOk());
  ASSERT_EQ(json["modules"].size(), read->modules.size());
  uint64_t module_bytes = 0;
  for (size_t i = 0; i < read->modules.size(); ++i) {
    const ManifestModule& module = read->modules[i];
    const auto& shown = json["modules"][i];
    EXPECT_EQ(shown["name"], module.name);
    EXPECT_EQ(shown["quantized"], module.quantized);
    if (!module.quantized) continue;
    EXPECT_EQ(shown["bits"], module.bits);
    EXPECT_NEAR(shown["weight_error"].get<double>(), module.weight_error,
                1e-4 * module.weight_error);
    // FORMAT.md: n bits a code (columns padded to 32), n + 1 numbers of 16 bits a group.
    const int64_t padded = (module.num_inputs + 31) / 32 * 32;
    const int64_t groups = module.num_inputs / module.group_size;
    const uint64_t expected = module.num_outputs * padded * module.bits / 8 +
                              module.num_outputs * groups * (module.bits + 1) * 2;
    EXPECT_EQ(shown["size_bytes"], expected) << module.name;
    module_bytes += expected;
  }

  int64_t total = 0;
  for (const auto& part : json["parts"]) total += part["size_bytes"].get<int64_t>();
  EXPECT_EQ(total, outcome->report.artifact_size_bytes) << "parts are all of the artifact";
  EXPECT_EQ(json["parts"][0]["size_bytes"].get<uint64_t>() +
                json["parts"][1]["size_bytes"].get<uint64_t>(),
            module_bytes);
}

TEST_F(ReportHtmlTest, WithoutEvaluationWhatIsUnknownIsNull) {
  spec_.evaluation_uri.clear();
  spec_.method = QuantizationMethod::kRtn;
  model_.Write(spec_.model_uri);
  ASSERT_THAT(RunJob(), IsOk());
  const auto json =
      nlohmann::json::parse(DataOf(ReadFile(spec_.output_uri + "/report.html")), nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["job"], "");
  EXPECT_TRUE(json["report"]["perplexity_after"].is_null());
  EXPECT_TRUE(json["report"]["quality"].is_null());
}

// Whatever a name, a warning or a text is, the page stays what it is and gives it back.
TEST(ReportPageTest, NamesCannotLeaveTheData) {
  const std::string evil = "</script><script>alert(1)</script><!-- \"'&\xff";
  QuantizationSpec spec;
  spec.model_uri = "s3://bucket/<img src=x onerror=alert(1)>/";
  Plan plan;
  plan.num_layers = 1;
  Manifest manifest;
  manifest.model.architecture = evil;
  manifest.environment = evil;
  ManifestModule module;
  module.name = evil;
  module.reason = evil;
  manifest.modules = {module};
  FinalizeOutcome outcome;
  outcome.report.warnings = {evil};
  outcome.report.quality.emplace();
  outcome.report.quality->verdict = evil;
  outcome.report.quality->texts = {{evil, evil, evil}};
  LayerResult layer;
  layer.loss_curve = {1.0F, NAN, INFINITY};
  const std::string html = RenderReportHtml(
      {spec, plan, manifest, outcome, {layer}, PartSizes(), evil, absl::UnixEpoch()});
  EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  const std::string data = DataOf(html);
  EXPECT_THAT(data, Not(HasSubstr("<")));
  const auto json = nlohmann::json::parse(data, nullptr, false);
  ASSERT_TRUE(json.is_object());
  const std::string clean = evil.substr(0, evil.size() - 1) + "\xef\xbf\xbd";
  EXPECT_EQ(json["modules"][0]["name"], clean);
  EXPECT_EQ(json["report"]["warnings"][0], clean);
  EXPECT_EQ(json["job"], clean);
  EXPECT_EQ(json["layers"][0]["loss_curve"][0], 1.0);
  EXPECT_TRUE(json["layers"][0]["loss_curve"][1].is_null());
  // After the data the page goes on as it was built.
  const absl::string_view page = ReportTemplate();
  const absl::string_view rest = page.substr(page.find("UNIQUANF_REPORT_DATA") + 20);
  EXPECT_EQ(html.substr(html.size() - rest.size()), rest);
}

TEST(ReportPageTest, ThePageFetchesNothing) {
  const std::string page(ReportTemplate());
  for (const char* word : {"src=\"http", "href=\"http", "@import", "url(http", "fetch("}) {
    EXPECT_THAT(page, Not(HasSubstr(word)));
  }
}

TEST(PartSizesTest, TensorsGoWhereTheirNamesSay) {
  PartSizes parts;
  parts.Add("model.layers.0.mlp.up_proj.qweight", 100, false);
  parts.Add("model.layers.0.mlp.up_proj.alpha_3", 20, false);
  parts.Add("model.layers.0.mlp.up_proj.beta_3", 10, false);
  parts.Add("model.layers.0.mlp.up_proj.q_bias", 5, false);
  parts.Add("model.layers.0.input_layernorm.weight", 2, false);
  parts.Add("model.layers.0.alpha_", 3, false);  // a name of the model's own
  parts.Add("lm_head.weight", 1000, true);
  EXPECT_EQ(parts.OfModule("model.layers.0.mlp.up_proj"), 130u);
  EXPECT_EQ(parts.OfModule("model.layers.0"), 0u);
  std::vector<uint64_t> sizes;
  for (const auto& part : parts.ToJson(1200)) sizes.push_back(part["size_bytes"]);
  EXPECT_THAT(sizes, ::testing::ElementsAre(100, 30, 5, 5, 1000, 60));
  // Tensors that no file holds twice can be more than the files only in a bug; no number
  // underflows.
  EXPECT_EQ(parts.ToJson(10).size(), 5u);
}

}  // namespace
}  // namespace uniquanf
