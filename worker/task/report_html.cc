#include "worker/task/report_html.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/base/format_bytes.h"

namespace uniquanf {
namespace {

constexpr int kWidth = 720, kHeight = 260, kLeft = 64, kRight = 12, kTop = 12, kBottom = 34;

constexpr char kStyle[] = R"(
:root{--fg:#1b1f24;--dim:#667;--bg:#fff;--line:#d8dde3;--a:#2f6fb0;--b:#c4622d;--warn:#8a3a00}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ed;--dim:#9aa4af;--bg:#15181c;--line:#333a42;
--a:#6fb1f0;--b:#f09a66;--warn:#ffb27a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:780px;
margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;text-align:right;
border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}td:first-child,
th:first-child{text-align:left}.warn{color:var(--warn)}svg{width:100%;height:auto}
text{fill:var(--dim);font-size:12px}.scroll{overflow-x:auto}
)";

std::string Escape(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Number(double value) {
  if (value == 0) return "–";
  if (std::fabs(value) >= 0.01 && std::fabs(value) < 1e5) return absl::StrFormat("%.4g", value);
  return absl::StrFormat("%.2e", value);
}

// Maps data to the plot's pixels; y is logarithmic because losses span decades.
struct Axes {
  double x_min = 0, x_max = 1, log_min = 0, log_max = 1;
  double X(double x) const {
    return kLeft + (x - x_min) / std::max(x_max - x_min, 1e-12) * (kWidth - kLeft - kRight);
  }
  double Y(double y) const {
    const double t =
        (std::log10(std::max(y, 1e-300)) - log_min) / std::max(log_max - log_min, 1e-9);
    return kHeight - kBottom - t * (kHeight - kTop - kBottom);
  }
};

Axes AxesFor(double x_max, const std::vector<double>& values) {
  Axes axes;
  axes.x_max = x_max;
  bool any = false;
  for (double value : values) {
    if (!(value > 0) || !std::isfinite(value)) continue;
    const double log = std::log10(value);
    axes.log_min = any ? std::min(axes.log_min, log) : log;
    axes.log_max = any ? std::max(axes.log_max, log) : log;
    any = true;
  }
  axes.log_min = std::floor(axes.log_min * 2) / 2;
  axes.log_max = std::max(std::ceil(axes.log_max * 2) / 2, axes.log_min + 0.5);
  return axes;
}

std::string Frame(const Axes& axes, absl::string_view x_label, absl::string_view x_end) {
  std::string svg = absl::StrFormat("<svg viewBox=\"0 0 %d %d\" role=\"img\">", kWidth, kHeight);
  const double step = axes.log_max - axes.log_min > 4 ? 1.0 : 0.5;
  for (double log = axes.log_min; log <= axes.log_max + 1e-9; log += step) {
    const double y = axes.Y(std::pow(10, log));
    absl::StrAppendFormat(&svg,
                          "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" "
                          "stroke=\"var(--line)\"/><text x=\"%d\" y=\"%.1f\" "
                          "text-anchor=\"end\">%s</text>",
                          kLeft, kWidth - kRight, y, y, kLeft - 6, y + 4,
                          Number(std::pow(10, log)));
  }
  absl::StrAppendFormat(&svg,
                        "<text x=\"%d\" y=\"%d\">%s</text><text x=\"%d\" y=\"%d\" "
                        "text-anchor=\"end\">%s</text>",
                        kLeft, kHeight - 10, Escape(x_label), kWidth - kRight, kHeight - 10,
                        Escape(x_end));
  return svg;
}

std::string LossCurves(const std::vector<LayerResult>& layers) {
  std::vector<double> values;
  size_t longest = 0;
  for (const LayerResult& layer : layers) {
    longest = std::max(longest, layer.loss_curve.size());
    values.insert(values.end(), layer.loss_curve.begin(), layer.loss_curve.end());
  }
  if (longest < 2) return "";
  const Axes axes = AxesFor(static_cast<double>(longest - 1), values);
  std::string svg = Frame(axes, "first step", "last step");
  for (size_t i = 0; i < layers.size(); ++i) {
    // From the first colour to the second with depth.
    const double mix = layers.size() > 1 ? 100.0 * i / (layers.size() - 1) : 0;
    absl::StrAppendFormat(&svg,
                          "<polyline fill=\"none\" stroke-width=\"1.5\" style=\"stroke:"
                          "color-mix(in srgb,var(--b) %.0f%%,var(--a))\" points=\"",
                          mix);
    for (size_t step = 0; step < layers[i].loss_curve.size(); ++step) {
      absl::StrAppendFormat(&svg, "%.1f,%.1f ", axes.X(static_cast<double>(step)),
                            axes.Y(layers[i].loss_curve[step]));
    }
    absl::StrAppendFormat(&svg, "\"><title>layer %d</title></polyline>", layers[i].layer);
  }
  return absl::StrCat("<h2>Loss while reconstructing, one curve a layer</h2>", svg, "</svg>");
}

std::string LayerErrors(const std::vector<LayerResult>& layers) {
  std::vector<double> values;
  for (const LayerResult& layer : layers) {
    values.push_back(layer.initial_loss);
    values.push_back(layer.final_loss);
  }
  if (std::all_of(values.begin(), values.end(), [](double value) { return value == 0; })) return "";
  Axes axes = AxesFor(static_cast<double>(layers.size()), values);
  axes.log_min -= 0.5;  // so that the lowest bar has a height
  std::string svg =
      Frame(axes, "first layer", absl::StrCat("layer ", layers.empty() ? 0 : layers.size() - 1));
  const double base = kHeight - kBottom;
  for (size_t i = 0; i < layers.size(); ++i) {
    const double bars[2] = {layers[i].initial_loss, layers[i].final_loss};
    const double width = (axes.X(1) - axes.X(0)) * 0.38;
    for (int bar = 0; bar < 2; ++bar) {
      if (!(bars[bar] > 0)) continue;
      const double y = axes.Y(bars[bar]);
      absl::StrAppendFormat(&svg,
                            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                            "fill=\"var(%s)\"><title>layer %d: %s</title></rect>",
                            axes.X(static_cast<double>(i)) + bar * width + 1, y, width,
                            std::max(base - y, 1.0), bar == 0 ? "--b" : "--a", layers[i].layer,
                            Number(bars[bar]));
    }
  }
  return absl::StrCat(
      "<h2>Output error per layer</h2><p>Mean squared error of the block's output on "
      "the calibration data: <b style=\"color:var(--b)\">initialized</b>, <b "
      "style=\"color:var(--a)\">stored</b>.</p>",
      svg, "</svg>");
}

std::string Row(absl::string_view key, absl::string_view value) {
  return absl::StrCat("<tr><td>", Escape(key), "</td><td>", Escape(value), "</td></tr>");
}

std::string Summary(const Plan& plan, const FinalizeOutcome& outcome) {
  const QuantizationSpec& spec = plan.spec;
  std::string html = "<table>";
  absl::StrAppend(
      &html, Row("Method", QuantizationMethodName(spec.method)),
      Row("Bits", spec.average_bits > 0
                      ? absl::StrFormat("spread over the modules, %g stored bits a weight at most",
                                        spec.average_bits)
                  : spec.artifact_size > 0
                      ? absl::StrCat("spread over the modules, ", spec.artifact_size,
                                     " bytes of files at most")
                      : absl::StrCat(spec.bits)),
      Row("Group size", spec.group_size == 0 ? "per row" : absl::StrCat(spec.group_size)),
      Row("Stored bits a quantized weight", Number(outcome.report.average_bits)));
  if (outcome.report.perplexity_before.has_value()) {
    absl::StrAppend(
        &html, Row("Perplexity before", absl::StrFormat("%.4f", *outcome.report.perplexity_before)),
        Row("Perplexity after", absl::StrFormat("%.4f", *outcome.report.perplexity_after)),
        Row("Evaluated tokens", absl::StrCat(outcome.report.num_evaluation_tokens)));
  }
  absl::StrAppend(&html, Row("Model size", FormatBytes(outcome.report.model_size_bytes)),
                  Row("Artifact size", FormatBytes(outcome.report.artifact_size_bytes)),
                  Row("Calibration", absl::StrCat(plan.num_samples, " × ", plan.sequence_length,
                                                  " tokens, ", spec.epochs, " epochs")),
                  Row("Device", absl::StrCat(plan.device, ", ", plan.arithmetic)),
                  Row("Computing time",
                      absl::StrFormat("%.1f s", absl::ToDoubleSeconds(outcome.report.duration))));
  return html + "</table>";
}

std::string Quality(const std::optional<QualityReport>& quality) {
  if (!quality.has_value()) return "";
  std::string html =
      absl::StrCat("<h2>Quality</h2><p><b>", Escape(quality->verdict), "</b></p><table>");
  if (quality->num_compared_tokens > 0) {
    absl::StrAppend(
        &html,
        Row("Divergence from the original",
            absl::StrFormat("%.4f nats a token", quality->divergence)),
        Row("Same most probable token", absl::StrFormat("%.2f%%", 100 * quality->same_top_token)),
        Row("Compared tokens", absl::StrCat(quality->num_compared_tokens)));
  }
  if (quality->baseline_perplexity.has_value()) {
    absl::StrAppend(&html, Row("Perplexity of round to nearest",
                               absl::StrFormat("%.4f", *quality->baseline_perplexity)));
  }
  absl::StrAppend(&html, "</table>");
  if (quality->texts.empty()) return html;
  absl::StrAppend(&html,
                  "<h2>What both write</h2><p>After the same beginning, the most probable token "
                  "each time.</p><table><tr><th>Beginning</th><th>Original</th><th>Artifact</th>"
                  "</tr>");
  for (const TextSample& text : quality->texts) {
    absl::StrAppend(&html, "<tr><td>", Escape(text.prompt), "</td><td>", Escape(text.before),
                    "</td><td>", Escape(text.after), "</td></tr>");
  }
  return html + "</table>";
}

std::string LayerTable(const FinalizeOutcome& outcome, const std::vector<LayerResult>& results) {
  std::string html =
      "<h2>Layers</h2><div class=\"scroll\"><table><tr><th>Layer</th><th>Bits</th><th>Initial "
      "error</th><th>Stored error</th><th>Ratio</th><th>Seconds</th><th></th></tr>";
  for (size_t i = 0; i < outcome.report.layers.size(); ++i) {
    const LayerReport& layer = outcome.report.layers[i];
    std::vector<std::string> notes;
    if (results[i].kept_start) notes.emplace_back("stored as it began");
    if (results[i].num_folded > 0) {
      notes.push_back(absl::StrCat(results[i].num_folded, " channels folded"));
    }
    const double ratio = layer.initial_loss > 0 ? layer.final_loss / layer.initial_loss : 0;
    absl::StrAppendFormat(&html,
                          "<tr><td>%d</td><td>%d</td><td>%s</td><td>%s</td><td>%s</td>"
                          "<td>%.1f</td><td>%s</td></tr>",
                          layer.layer, layer.bits, Number(layer.initial_loss),
                          Number(layer.final_loss), Number(ratio),
                          absl::ToDoubleSeconds(layer.duration), absl::StrJoin(notes, "; "));
  }
  return html + "</table></div>";
}

std::string AllocationTable(const Plan& plan) {
  if (plan.allocation.empty()) return "";
  std::string html = "<h2>Bits by the budget</h2><div class=\"scroll\"><table>";
  for (const auto& [module, bits] : plan.allocation) {
    absl::StrAppend(&html, Row(module, absl::StrCat(bits)));
  }
  return html + "</table></div>";
}

std::string WindowTable(const FinalizeOutcome& outcome) {
  if (outcome.report.windows.empty()) return "";
  std::string html =
      "<h2>Distillation</h2><p>KL divergence of the next-token distributions from the original "
      "model's, nats a token, on held-back calibration data.</p><div class=\"scroll\"><table><tr>"
      "<th>Layers</th><th>Before</th><th>After</th><th>Seconds</th></tr>";
  for (const WindowReport& window : outcome.report.windows) {
    absl::StrAppendFormat(&html, "<tr><td>%d to %d</td><td>%s</td><td>%s</td><td>%.1f</td></tr>",
                          window.first_layer, window.first_layer + window.num_layers - 1,
                          Number(window.initial_divergence), Number(window.final_divergence),
                          absl::ToDoubleSeconds(window.duration));
  }
  return html + "</table></div>";
}

}  // namespace

std::string RenderReportHtml(const Plan& plan, const FinalizeOutcome& outcome,
                             const std::vector<LayerResult>& layers) {
  std::string html = absl::StrCat(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>Quantization report</title><style>",
      kStyle, "</style></head><body><h1>Quantization report</h1>");
  for (const std::string& warning : outcome.report.warnings) {
    absl::StrAppend(&html, "<p class=\"warn\">Warning: ", Escape(warning), "</p>");
  }
  absl::StrAppend(&html, Summary(plan, outcome), Quality(outcome.report.quality),
                  LossCurves(layers), LayerErrors(layers), LayerTable(outcome, layers),
                  AllocationTable(plan), WindowTable(outcome), "</body></html>\n");
  return html;
}

}  // namespace uniquanf
